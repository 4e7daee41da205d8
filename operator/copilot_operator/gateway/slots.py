"""What belongs to one session and one request beside the machine itself, and what a tenant's sessions live in."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from copilot_operator.gateway.rules import methods
from copilot_operator.gateway.rules.create_fields import ASK_USER
from copilot_operator.gateway.server import Server
from copilot_operator.gateway.session.actions import Load
from copilot_operator.gateway.session.machine import Session
from copilot_operator.gateway.watch import TurnWatch


class Surroundings(Protocol):
    """What a tenant's sessions live in."""

    isolation: methods.Isolation

    @property
    def trouble(self) -> str:
        """What keeps servers from starting that are waited for, as far as the operator has told; "" if nothing."""

    def server(self, name: str) -> Server | None:
        """A server of the pool; None: it has left."""

    def place(self, tenant: str, session_id: str, server_id: str, *, stored: bool) -> Server | None:
        """Where a session is to be loaded; None: nowhere, for now. ``stored``: only where it is stored will do."""

    def waits(self, tenant: str, server_id: str, does: bool) -> None:
        """No server takes a session that is to be loaded, and its requests are held; or one does."""

    def sessions_of(self, tenant: str) -> int | None:
        """How many sessions a tenant may have loaded on one server; None: no bound of its own."""

    def made(self, method: str, params: Mapping[str, Any], known: Collection[str]) -> Mapping[str, Any]:
        """What the server is to get for a client's create or resume, but for ids. Raises Refused.

        ``known``: tools that other owners have brought to the session.
        """

    def restored(self, params: Mapping[str, Any], known: Collection[str]) -> Mapping[str, Any]:
        """What brings a session back that was made with ``params``, but for ids. Raises Refused."""


class Handle(msgspec.Struct, eq=False, gc=False):
    """What answers a client's request: its id there (raw JSON), and the rule of its method.

    ``params`` are what the server gets, ids and all; None: they depend on the time at which it is sent.
    """

    id: bytes
    rule: methods.Rule
    params: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Handle({self.id!r}, {self.rule.method!r})"


@dataclass(slots=True, eq=False)
class Slot:
    """One session and what belongs to it here; ``server_id`` is what servers know it by."""

    session: Session
    server_id: str
    watch: TurnWatch
    home: str = ""  # the server where it is or was loaded last
    load: tuple[asyncio.Handle, Load] | None = None  # that is to be carried out
    timer: asyncio.Handle | None = None
    timer_due: float = 0.0  # while there is a timer; uvloop's know it only if it is in the future


def tools_of(session: Session) -> list[str]:
    """The tools that a session's owners have brought, as its filter names them: a resume must not lose them."""
    tools = list[str]()
    for link in session.owners:
        own = session.owners[link].own
        tools += [f"custom:{tool['name']}" for tool in own.get("tools") or () if "name" in tool]
        tools += [ASK_USER] if own.get("requestUserInput") is True else []
    return list(dict.fromkeys(tools))
