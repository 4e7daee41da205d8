"""Gives gateways the locks of shared sessions, one place for each server, however many gateways there are.

The pages, all of them GET, ids and tokens as they stand:

    /locks?asks=ID:TOKEN:HOLDER:MODE,...       who may speak. Mode w: waits; n: does not
    /locks/renew?leases=ID:TOKEN:HOLDER,...    which leases go on
    /locks/release?leases=ID:TOKEN,...         gives leases back, and places in the queue
    /locks/tend?id=ID&holder=HOLDER            whether he may end or answer for the turn
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from copilot_operator.agent.locks import NEVER, Held, Locks
from copilot_operator.agent.observer import Observer
from copilot_operator.agent.queries import as_json, listed
from copilot_operator.agent.survey import standing_of
from copilot_operator.agent.web import BadRequest, Handler, Response
from copilot_operator.rpc.busy import Standing
from copilot_operator.rpc.errors import ServerError

LOOK_EVERY_S: Final = 0.1
CALL_S: Final = 2.0
WAIT_S: Final = 2.0
GIVEN_BACK_S: Final = 0.5  # from session.idle to the end of the lease; 0.01 s as a rule


@dataclass(frozen=True, slots=True)
class Ask:
    """A tenant wants to speak in session ``id``; ``token`` names the lease that it gets then. ``waits``: in a queue."""

    id: str
    token: str
    holder: str
    waits: bool


class Arbiter:
    """Whether a session works is for the CLI to say, of which ``observer`` knows."""

    def __init__(self, observer: Observer, ttl_s: float) -> None:
        self._observer = observer
        self.locks = Locks(_now(), ttl_s)

    @property
    def waiting(self) -> int:
        """How many wait for a lock."""
        return self.locks.waiting(_now())

    @property
    def pages(self) -> dict[str, Handler]:
        """What is served, by path."""
        return {
            "/locks": self._ask,
            "/locks/renew": self._renew,
            "/locks/release": self._release,
            "/locks/tend": self._tend,
        }

    async def ask(self, asks: Iterable[Ask]) -> dict[str, Held | None]:
        """What each gets, by token: None, its lease. Returns once that is certain of one, else after ``WAIT_S``.

        Who does not wait is refused while the session works. If it is idle whoever had it last may be about to give
        its lease back, and have told the asker itself that its turn is over.
        """
        asks, began_at = list(asks), _now()
        while True:
            looks = {id: await self._look(id, asks) for id in {ask.id for ask in asks}}
            found = {ask.token: self._ask_once(ask, *looks[ask.id]) for ask in asks}  # in turn: each sees the others
            waited_s = _now() - began_at
            certain = (_is_certain(ask, found[ask.token], looks[ask.id][0], waited_s) for ask in asks)
            if any(certain) or waited_s >= WAIT_S:
                return found
            await asyncio.sleep(LOOK_EVERY_S)

    def _ask_once(self, ask: Ask, busy: bool, idle_at: float) -> Held | None:
        return self.locks.ask(ask.id, ask.token, ask.holder, _now(), waits=ask.waits, busy=busy, idle_at=idle_at)

    async def _look(self, id: str, asks: Iterable[Ask]) -> tuple[bool, float]:
        """Whether a session is known to work; and, if it is known to be idle, when this look began."""
        began_at = _now()
        if not self.locks.must_look(id, began_at) and all(ask.waits for ask in asks if ask.id == id):
            return False, NEVER
        standing = await self._standing(id)
        return standing.is_busy and standing is not Standing.UNCOUNTED, NEVER if standing.is_busy else began_at

    async def _standing(self, id: str) -> Standing:
        try:
            return await standing_of(self._observer.connection, id, timeout_s=CALL_S)
        except ServerError:
            return Standing.UNCOUNTED

    async def _ask(self, query: Mapping[str, str]) -> Response:
        asks = [Ask(id, token, holder, mode == "w") for id, token, holder, mode in _parts(query, "asks", 4)]
        asked_at = _now()
        found = await self.ask(asks)
        return as_json({"asks": {a.token: _refusal(found[a.token]) or self._grant(a, asked_at) for a in asks}})

    async def _renew(self, query: Mapping[str, str]) -> Response:
        leases = _parts(query, "leases", 3)
        renewed = [token for id, token, holder in leases if self.locks.renew(id, token, holder, _now())]
        return as_json({"renewed": renewed, "ttlSeconds": self.locks.ttl_s})

    async def _release(self, query: Mapping[str, str]) -> Response:
        leases = _parts(query, "leases", 2)
        return as_json({"released": [token for id, token in leases if self.locks.release(id, token, _now())]})

    async def _tend(self, query: Mapping[str, str]) -> Response:
        held = self.locks.tend(query.get("id", ""), query.get("holder", ""), _now())
        return as_json({"tend": _refusal(held) or {"granted": True}})

    def _grant(self, ask: Ask, asked_at: float) -> dict[str, Any]:
        """Counted from when it was asked for, a moment that both clocks know: who waited has the lease whole."""
        return {"granted": True, "ttlSeconds": self.locks.ends_at(ask.id, ask.token) - asked_at}


def _refusal(held: Held | None) -> dict[str, Any] | None:
    if held is None:
        return None
    return {
        "granted": False, "holder": held.holder, "heldSeconds": round(held.held_s, 3), "ahead": held.ahead,
        "full": held.full, "settling": held.settling,
    }  # fmt: skip


def _is_certain(ask: Ask, held: Held | None, busy: bool, waited_s: float) -> bool:
    if held is None or held.full:
        return True
    return not ask.waits and not held.settling and (busy or waited_s >= GIVEN_BACK_S)


def _parts(query: Mapping[str, str], name: str, length: int) -> list[list[str]]:
    """``a:b:c,d:e:f`` of a query. Raises BadRequest."""
    found = [each.split(":") for each in listed(query, name)]
    if any(len(parts) != length or not all(parts) for parts in found):
        raise BadRequest(400, f"{name} must have {length} parts each, with ':' between them")
    return found


def _now() -> float:
    return asyncio.get_running_loop().time()
