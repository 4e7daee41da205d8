"""Asking gateways: which servers are wanted that do not run (one long-poll at a time for each of them), which tenants
have sessions where, and whether they have heard of a drain.

What a gateway says is believed for a while after it was said last: who has just been started is not stopped at once.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp

from copilot_operator.domain.snapshot import SessionCounts, Shown

log = logging.getLogger(__name__)

ADMIN_PORT: Final = 4322
WAIT_S: Final = 20.0  # how long a gateway may keep its answer back while nobody is wanted
ANSWER_S: Final = 10.0  # beyond that
CONNECT_S: Final = 5.0
HOMES_EVERY_S: Final = 10.0
AGAIN_S: Final = 1.0  # while sessions wait for any server, and after a failure
NEXT_S: Final = 0.1  # after news: bounds what a storm of wakes costs
KEPT_S: Final = 300.0
CORDON_S: Final = 5.0  # a gateway that says nothing for so long is not waited for
CORDON_LOOK_S: Final = 0.1
WORK_S: Final = 5.0

NUMBERS: Final = ("active", "loaded", "stored")

Pool = tuple[str, str]  # namespace, name


@dataclass
class _Followed:
    """The gateways of a pool: tasks by the name and the address of their pods."""

    key: str = field(repr=False)
    tasks: dict[tuple[str, str], asyncio.Task[None]] = field(default_factory=dict)
    others: frozenset[str] = frozenset()  # addresses of those that take no clients now, and may have turns


class Gateways:
    """``changed(namespace, pool, server)`` is called when a server has come to be wanted, or is not any more;
    ``moved(namespace, tenant)`` when other servers than before store something of a tenant, or its credential has come
    to be refused, or to be taken; ``short(namespace, pool)`` when other sessions than before find no server, or wait
    for one to give them up, or another certificate is shown."""

    def __init__(
        self,
        changed: Callable[[str, str, str], None],
        moved: Callable[[str, str], None],
        short: Callable[[str, str], None] = lambda namespace, pool: None,
    ) -> None:
        self._changed, self._moved, self._short = changed, moved, short
        self._held: dict[Pool, dict[str, int]] = {}  # sessions that no server takes, by pool, then by gateway
        self._waits: dict[Pool, dict[str, dict[str, int]]] = {}  # by gateway: how many sessions wait, by what for
        self._homes: dict[tuple[str, str], dict[str, frozenset[str]]] = {}  # by tenant, then by gateway
        self._sessions: dict[tuple[str, str], dict[str, SessionCounts]] = {}  # likewise
        self._shown: dict[Pool, dict[str, Shown]] = {}  # certificates, by gateway
        self._refused: dict[tuple[str, str], set[str]] = {}  # by tenant: gateways that saw it last
        self._followed: dict[Pool, _Followed] = {}
        self._wanted: dict[tuple[str, str], float] = {}  # loop time until which it is, by namespace and server
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Until cancelled; nobody is asked any more then."""
        try:
            await asyncio.Event().wait()
        finally:
            for pool in list(self._followed):
                self.follow(*pool, {}, "")
            if self._session:
                await self._session.close()
            self._session = None

    def follow(
        self, namespace: str, pool: str, pods: Mapping[str, str], key: str, others: Collection[str] = ()
    ) -> None:
        """Ask these gateways from now on, and no others of the pool: addresses by name of the pod. ``others``: those
        that start or end, which are asked for turns alone."""
        followed = self._followed.setdefault((namespace, pool), _Followed(key))
        gone = set(followed.tasks) if followed.key != key else followed.tasks.keys() - pods.items()
        for pod in gone:
            followed.tasks.pop(pod).cancel()
            for homes in self._homes.values():
                homes.pop(pod[0], None)
            for counts in self._sessions.values():
                counts.pop(pod[0], None)
            self._held.get((namespace, pool), {}).pop(pod[1], None)
            self._waits.get((namespace, pool), {}).pop(pod[0], None)
            self._shown.get((namespace, pool), {}).pop(pod[0], None)
            for gateways in self._refused.values():
                gateways.discard(pod[0])
        followed.key, followed.others = key, frozenset(others)
        for name, ip in pods.items():
            if (name, ip) not in followed.tasks:
                work = self._follow(namespace, pool, name, ip, key)
                followed.tasks[name, ip] = asyncio.get_running_loop().create_task(work, name=f"gateway-{name}")
        if not followed.tasks:
            self._held.pop((namespace, pool), None)
            if not followed.others:
                del self._followed[namespace, pool]

    def demanded(self, namespace: str, server: str) -> bool:
        """Whether requests are held for the server, or were until a while ago."""
        return self._wanted.get((namespace, server), 0.0) > asyncio.get_running_loop().time()

    def held(self, namespace: str, pool: str) -> int:
        """Sessions whose requests gateways hold, since no server takes them."""
        return sum(self._held.get((namespace, pool), {}).values())

    async def cordoned(self, namespace: str, pool: str, server: str) -> None:
        """Return when the gateways of a pool have heard that they must lead nothing new to a server, or do not say."""
        followed = self._followed.get((namespace, pool))
        if followed is None:
            return
        tasks = [self._has_heard(ip, followed.key, server) for _, ip in followed.tasks]
        await asyncio.gather(*tasks)

    async def _has_heard(self, ip: str, key: str, server: str) -> None:
        try:
            async with asyncio.timeout(CORDON_S):
                while True:
                    if _states(await self._get(ip, "/servers", key)).get(server) not in ("Serving", "Starting"):
                        return
                    await asyncio.sleep(CORDON_LOOK_S)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.warning("a gateway does not say that it leaves a server", extra={"server": server, "error": str(error)})

    async def work(self, namespace: str, pool: str, tenant: str | None = None) -> bool:
        """Whether a session of a tenant, or any of the pool, is in a turn now. A gateway that does not say, or a pool
        of which nothing is known yet, may have some."""
        followed = self._followed.get((namespace, pool))
        if followed is None:
            return True
        asked = {ip for _, ip in followed.tasks} | followed.others
        return any(await asyncio.gather(*(self._works(ip, followed.key, tenant) for ip in asked)))

    async def _works(self, ip: str, key: str, tenant: str | None) -> bool:
        try:
            async with asyncio.timeout(WORK_S):
                document = await self._get(ip, "/tenants", key)
            told = document if tenant is None else document["tenants"].get(tenant, {"active": 0})
            return bool(told["active"] != 0)
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError, AttributeError) as error:
            log.warning("a gateway does not say whether it works", extra={"address": ip, "error": str(error)})
            return True

    def homes(self, namespace: str, tenant: str) -> frozenset[str] | None:
        """Servers that store something of a tenant, as its gateways say now; None: none has said anything."""
        told = self._homes.get((namespace, tenant))
        return None if told is None else frozenset().union(*told.values())

    def sessions(self, namespace: str, tenant: str) -> SessionCounts | None:
        """Of a tenant that shares servers with others, all gateways together; None: none has said anything."""
        told = (self._sessions.get((namespace, tenant)) or {}).values()
        if not told:
            return None
        active, loaded = sum(each.active for each in told), sum(each.loaded for each in told)
        return SessionCounts(active, loaded, max(each.stored for each in told))

    def waits(self, namespace: str, pool: str) -> dict[str, int]:
        """How many sessions wait for another server to give them up, by what is said of that."""
        told = self._waits.get((namespace, pool), {}).values()
        return {why: max(each.get(why, 0) for each in told) for why in sorted({why for each in told for why in each})}

    def shown(self, namespace: str, pool: str) -> tuple[Shown, ...]:
        """Certificates at the TLS ports of a pool's gateways, of those that have told."""
        return tuple(self._shown.get((namespace, pool), {}).values())

    def refused(self, namespace: str, tenant: str) -> bool:
        """Whether a model, or GitHub, did not take the credential of a tenant's sessions the last time (HTTP 401)."""
        return bool(self._refused.get((namespace, tenant)))

    def count(self) -> int:
        """Servers that are wanted."""
        now = asyncio.get_running_loop().time()
        return sum(until > now for until in self._wanted.values())

    async def _follow(self, namespace: str, pool: str, gateway: str, ip: str, key: str) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask_demand(namespace, pool, ip, key))
            group.create_task(self._ask_homes(namespace, pool, gateway, ip, key))

    async def _get(self, ip: str, page: str, key: str, **query: float) -> Any:
        """Raises aiohttp.ClientError, TimeoutError, ValueError."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=WAIT_S + ANSWER_S, connect=CONNECT_S)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        host = f"[{ip}]" if ":" in ip else ip
        url = f"http://{host}:{ADMIN_PORT}{page}"
        async with self._session.get(
            url, params=query, headers={"Authorization": f"Bearer {key}"}, raise_for_status=True
        ) as answer:
            return await answer.json()

    async def _ask_homes(self, namespace: str, pool: str, gateway: str, ip: str, key: str) -> None:
        while True:
            try:
                document = await self._get(ip, "/tenants", key)
                told, counts, refused = _homes(document), _sessions(document), _refused(document)
                shown = _shown(document)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                log.debug("a gateway does not tell of tenants", extra={"gateway": gateway, "error": str(error)})
            else:
                for tenant, count in counts.items():
                    self._sessions.setdefault((namespace, tenant), {})[gateway] = count
                for tenant, servers in told.items():
                    before = self.homes(namespace, tenant)
                    self._homes.setdefault((namespace, tenant), {})[gateway] = servers
                    if self.homes(namespace, tenant) != before:
                        self._moved(namespace, tenant)
                waited = self.waits(namespace, pool)
                self._waits.setdefault((namespace, pool), {})[gateway] = _waits(document)
                if self.waits(namespace, pool) != waited:
                    self._short(namespace, pool)
                self._note_refused(namespace, gateway, refused)
                self._note_shown((namespace, pool), gateway, shown)
            await asyncio.sleep(HOMES_EVERY_S)

    def _note_refused(self, namespace: str, gateway: str, tenants: set[str]) -> None:
        known = {tenant for (place, tenant), by in self._refused.items() if place == namespace and gateway in by}
        for tenant in known | tenants:
            before = self.refused(namespace, tenant)
            by = self._refused.setdefault((namespace, tenant), set())
            (by.add if tenant in tenants else by.discard)(gateway)
            if not by:
                del self._refused[namespace, tenant]
            if self.refused(namespace, tenant) != before:
                self._moved(namespace, tenant)

    def _note_shown(self, pool: Pool, gateway: str, shown: Shown | None) -> None:
        known = self._shown.setdefault(pool, {})
        if known.get(gateway) == shown:
            return
        if shown:
            known[gateway] = shown
        else:
            known.pop(gateway, None)
        self._short(*pool)

    async def _ask_demand(self, namespace: str, pool: str, ip: str, key: str) -> None:
        after, held = -1, 0
        while True:
            try:
                wait_s = 0.0 if held else WAIT_S  # nothing tells that a session is held no more
                after, servers, held = _read(await self._get(ip, "/demand", key, after=after, wait=wait_s))
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                log.debug("a gateway does not tell whom it wants", extra={"address": ip, "error": str(error)})
                after, servers, held = -1, [], 0
            self._note(namespace, pool, servers)
            before = self._held.setdefault((namespace, pool), {})
            if before.get(ip, 0) != held:
                before[ip] = held
                self._short(namespace, pool)
            await asyncio.sleep(AGAIN_S if held or after < 0 else NEXT_S)

    def _note(self, namespace: str, pool: str, servers: list[str]) -> None:
        loop = asyncio.get_running_loop()
        new = [server for server in servers if not self.demanded(namespace, server)]
        for server in servers:
            self._wanted[namespace, server] = loop.time() + KEPT_S
        if new:
            log.info("wanted by requests that are held", extra={"pool": pool, "servers": ", ".join(new)})
            for server in new:
                self._changed(namespace, pool, server)
                loop.call_later(KEPT_S, self._look_again, namespace, pool, server)

    def _look_again(self, namespace: str, pool: str, server: str) -> None:
        loop = asyncio.get_running_loop()
        until = self._wanted.get((namespace, server), 0.0)
        if until > loop.time():
            loop.call_later(until - loop.time(), self._look_again, namespace, pool, server)
        else:
            self._wanted.pop((namespace, server), None)
            self._changed(namespace, pool, server)


def _homes(document: Any) -> dict[str, frozenset[str]]:
    """Servers by tenant; of those alone that share them. Raises ValueError."""
    tenants = document.get("tenants") if isinstance(document, dict) else None
    if not isinstance(tenants, dict):
        raise ValueError("no tenants")
    found: dict[str, frozenset[str]] = {}
    for name, numbers in tenants.items():
        homes = numbers.get("homes") if isinstance(numbers, dict) else None
        if isinstance(homes, list):
            found[name] = frozenset(home for home in homes if isinstance(home, str))
    return found


def _sessions(document: Any) -> dict[str, SessionCounts]:
    """Sessions by tenant; of those alone that share servers, and of whom all numbers are told."""
    found = {}
    for name, numbers in document["tenants"].items():
        told: list[Any] = [numbers.get(key) if isinstance(numbers, dict) else None for key in NUMBERS]
        if all(type(each) is int and each >= 0 for each in told):
            found[name] = SessionCounts(*told)
    return found


def _waits(document: Any) -> dict[str, int]:
    """As ``Holders.waiting`` tells it; gateways of an older version do not."""
    told = document.get("waits")
    if not isinstance(told, dict):
        return {}
    return {why: count for why, count in told.items() if isinstance(why, str) and type(count) is int}


def _shown(document: Any) -> Shown | None:
    """None: it has no TLS port. Raises ValueError."""
    told = document.get("tls")
    if not isinstance(told, dict):
        return None
    times = [told.get(name) for name in ("notBefore", "notAfter")]
    if not all(isinstance(each, int | float) for each in times):
        times = [None, None]
    try:
        before, after = (None if each is None else datetime.fromtimestamp(each, UTC) for each in times)
    except (OverflowError, OSError) as error:
        raise ValueError("no times") from error
    fault = told.get("fault", "")
    return Shown(before, after, fault if isinstance(fault, str) else "")


def _refused(document: Any) -> set[str]:
    """Tenants whose credential was refused; ``document`` as for ``_homes``."""
    return {
        name
        for name, numbers in document["tenants"].items()
        if isinstance(numbers, dict) and numbers.get("refused") is True
    }


def _states(document: Any) -> dict[str, Any]:
    """How servers stand, by name. Raises ValueError."""
    servers = document.get("servers") if isinstance(document, dict) else None
    if not isinstance(servers, dict):
        raise ValueError("no servers")
    return servers


def _read(document: Any) -> tuple[int, list[str], int]:
    """Number of the news, names of servers, and sessions that no server takes. Raises ValueError."""
    if not isinstance(document, dict):
        raise ValueError("no object")
    number, servers = document.get("number"), document.get("servers")
    if type(number) is not int or not isinstance(servers, list):
        raise ValueError("neither a number nor servers")
    waiting = document.get("waiting", 0)  # an older gateway does not tell
    held = waiting if type(waiting) is int else 0
    return number, [server for server in servers if isinstance(server, str)], held
