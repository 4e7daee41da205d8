"""Asking gateways which servers are wanted that do not run: one long-poll at a time for each of them.

What a gateway says is believed for a while after it was said last: who has just been started is not stopped at once.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

log = logging.getLogger(__name__)

ADMIN_PORT: Final = 4322
WAIT_S: Final = 20.0  # how long a gateway may keep its answer back while nobody is wanted
ANSWER_S: Final = 10.0  # beyond that
CONNECT_S: Final = 5.0
HOMES_EVERY_S: Final = 10.0
AGAIN_S: Final = 1.0  # while somebody is wanted, and after a failure
KEPT_S: Final = 300.0

Pool = tuple[str, str]  # namespace, name


@dataclass
class _Followed:
    """The gateways of a pool: tasks by the name and the address of their pods."""

    key: str = field(repr=False)
    tasks: dict[tuple[str, str], asyncio.Task[None]] = field(default_factory=dict)


class Gateways:
    """``changed(namespace, pool)`` is called when a server has come to be wanted, or is not any more;
    ``moved(namespace, tenant)`` when other servers than before store something of a tenant."""

    def __init__(self, changed: Callable[[str, str], None], moved: Callable[[str, str], None]) -> None:
        self._changed, self._moved = changed, moved
        self._homes: dict[tuple[str, str], dict[str, frozenset[str]]] = {}  # by tenant, then by gateway
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

    def follow(self, namespace: str, pool: str, pods: Mapping[str, str], key: str) -> None:
        """Ask these gateways from now on, and no others of the pool: addresses by name of the pod."""
        followed = self._followed.setdefault((namespace, pool), _Followed(key))
        gone = set(followed.tasks) if followed.key != key else followed.tasks.keys() - pods.items()
        for pod in gone:
            followed.tasks.pop(pod).cancel()
            for told in self._homes.values():
                told.pop(pod[0], None)
        followed.key = key
        for name, ip in pods.items():
            if (name, ip) not in followed.tasks:
                work = self._follow(namespace, pool, name, ip, key)
                followed.tasks[name, ip] = asyncio.get_running_loop().create_task(work, name=f"gateway-{name}")
        if not followed.tasks:
            del self._followed[namespace, pool]

    def demanded(self, namespace: str, server: str) -> bool:
        """Whether requests are held for the server, or were until a while ago."""
        return self._wanted.get((namespace, server), 0.0) > asyncio.get_running_loop().time()

    def homes(self, namespace: str, tenant: str) -> frozenset[str] | None:
        """Servers that store something of a tenant, as its gateways say now; None: none has said anything."""
        told = self._homes.get((namespace, tenant))
        return None if told is None else frozenset().union(*told.values())

    def count(self) -> int:
        """Servers that are wanted."""
        now = asyncio.get_running_loop().time()
        return sum(until > now for until in self._wanted.values())

    async def _follow(self, namespace: str, pool: str, gateway: str, ip: str, key: str) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask_demand(namespace, pool, ip, key))
            group.create_task(self._ask_homes(namespace, gateway, ip, key))

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

    async def _ask_homes(self, namespace: str, gateway: str, ip: str, key: str) -> None:
        while True:
            try:
                told = _homes(await self._get(ip, "/tenants", key))
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                log.debug("a gateway does not tell of tenants", extra={"gateway": gateway, "error": str(error)})
            else:
                for tenant, servers in told.items():
                    before = self.homes(namespace, tenant)
                    self._homes.setdefault((namespace, tenant), {})[gateway] = servers
                    if self.homes(namespace, tenant) != before:
                        self._moved(namespace, tenant)
            await asyncio.sleep(HOMES_EVERY_S)

    async def _ask_demand(self, namespace: str, pool: str, ip: str, key: str) -> None:
        after = -1
        while True:
            try:
                after, servers = _read(await self._get(ip, "/demand", key, after=after, wait=WAIT_S))
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                log.debug("a gateway does not tell whom it wants", extra={"address": ip, "error": str(error)})
                after, servers = -1, []
            self._note(namespace, pool, servers)
            if servers or after < 0:
                await asyncio.sleep(AGAIN_S)

    def _note(self, namespace: str, pool: str, servers: list[str]) -> None:
        loop = asyncio.get_running_loop()
        new = [server for server in servers if not self.demanded(namespace, server)]
        for server in servers:
            self._wanted[namespace, server] = loop.time() + KEPT_S
        if new:
            log.info("wanted by requests that are held", extra={"pool": pool, "servers": ", ".join(new)})
            self._changed(namespace, pool)
            for server in new:
                loop.call_later(KEPT_S, self._look_again, namespace, pool, server)

    def _look_again(self, namespace: str, pool: str, server: str) -> None:
        loop = asyncio.get_running_loop()
        until = self._wanted.get((namespace, server), 0.0)
        if until > loop.time():
            loop.call_later(until - loop.time(), self._look_again, namespace, pool, server)
        else:
            self._wanted.pop((namespace, server), None)
            self._changed(namespace, pool)


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


def _read(document: Any) -> tuple[int, list[str]]:
    """Number of the news and names of servers. Raises ValueError."""
    if not isinstance(document, dict):
        raise ValueError("no object")
    number, servers = document.get("number"), document.get("servers")
    if type(number) is not int or not isinstance(servers, list):
        raise ValueError("neither a number nor servers")
    return number, [server for server in servers if isinstance(server, str)]
