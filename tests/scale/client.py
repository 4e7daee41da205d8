"""The bare client: applies at full speed, and waits for the last of many objects by one watch."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

from copilot_operator.cluster.client import KubeApi, load_access
from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.engine.limiter import Limiter
from tests.scale.objects import NAMESPACE, Child

AT_ONCE: Final = 32
LONGEST_S: Final = 900.0  # a run that takes longer has failed
OPEN_S: Final = 30.0
INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
READ_BUFFER: Final = 4 << 20  # one line of a watch is one object

Seen = Callable[[str, Manifest], None]  # type of the watch event, object


@asynccontextmanager
async def client() -> AsyncIterator[KubeApi]:
    async with KubeApi(await load_access(), limiter=Limiter(most=AT_ONCE, start=AT_ONCE), timeout_s=60.0) as api:
        yield api


async def make_namespace(api: KubeApi, name: str) -> None:
    await api.create(NAMESPACE, "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


async def apply_all(api: KubeApi, groups: Iterable[list[Child]]) -> None:
    """The objects of a group one after the other, ``AT_ONCE`` groups at a time."""
    waiting = iter(groups)

    async def work() -> None:
        for group in waiting:
            for kind, manifest in group:
                await api.apply(kind, manifest)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


@asynccontextmanager
async def watching(api: KubeApi, kind: Kind, namespace: str, seen: Seen) -> AsyncIterator[None]:
    """Tell of every event of a kind, from before the body starts until it ends."""
    opened = asyncio.Event()
    task = asyncio.create_task(_watch(api, kind, namespace, seen, opened), name=f"watch-{kind}")
    try:
        opening = asyncio.create_task(opened.wait())
        await asyncio.wait((opening, task), timeout=OPEN_S, return_when=asyncio.FIRST_COMPLETED)
        opening.cancel()
        if task.done():
            task.result()
        if not opened.is_set():
            raise TimeoutError(f"the watch of {kind} was not answered within {OPEN_S:.0f} s")
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()


async def _watch(api: KubeApi, kind: Kind, namespace: str, seen: Seen, opened: asyncio.Event) -> None:
    access = api.access
    authorization = await access.configuration.get_api_key_with_prefix("BearerToken")
    headers = {"Authorization": authorization} if authorization else {}
    # With the bookmark that ends the initial events an answer begins at once, also where there is nothing yet.
    query = (
        "watch=1&timeoutSeconds=3600&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    )
    url = f"{access.configuration.host}{kind.path(namespace)}?{query}"
    options: dict[str, Any] = {"headers": headers, "ssl": access.ssl_context or False}
    options["timeout"] = aiohttp.ClientTimeout(total=2 * LONGEST_S)
    known: dict[str, Manifest] = {}
    async with aiohttp.ClientSession(read_bufsize=READ_BUFFER) as session:
        while True:  # the API server ends the watch of a client that was too busy to read
            listed: set[str] = set()
            async with session.get(url, **options) as answer:
                if answer.status == 429:  # "storage is (re)initializing": the CRD was established a moment ago
                    await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
                    continue
                answer.raise_for_status()
                opened.set()
                async for line in answer.content:
                    event = json.loads(line)
                    type_, manifest = event["type"], event["object"]
                    if type_ == "ERROR":
                        break
                    if type_ != "BOOKMARK":
                        uid = manifest["metadata"]["uid"]
                        listed.add(uid)
                        known[uid] = manifest
                        if type_ == "DELETED":
                            del known[uid]
                        seen(type_, manifest)
                    elif INITIAL_EVENTS_END in annotations_of(manifest):
                        for uid in known.keys() - listed:
                            seen("DELETED", known.pop(uid))
            say(f"the watch of {kind} ended, and begins anew")


class Countdown:
    """Becomes ``done`` once ``count`` different objects were told of."""

    def __init__(self, count: int, what: str) -> None:
        self._count, self._what = count, what
        self._names: set[str] = set()
        self._all = asyncio.Event()
        self.last_at = 0.0

    def tell(self, name: str) -> None:
        if name not in self._names:
            self._names.add(name)
            self.last_at = asyncio.get_running_loop().time()
            if len(self._names) >= self._count:
                self._all.set()

    async def wait(self) -> None:
        """Until all were told of, saying now and then how far it is."""
        ends_at = asyncio.get_running_loop().time() + LONGEST_S
        while not self._all.is_set():
            try:
                async with asyncio.timeout(15):
                    await self._all.wait()
            except TimeoutError:
                far = f"{len(self._names)} of {self._count} {self._what}"
                say(far)
                if asyncio.get_running_loop().time() > ends_at:
                    raise TimeoutError(f"{far} after {LONGEST_S:.0f} s") from None


def condition(manifest: Manifest, name: str) -> str:
    """Status of a condition, "" without it."""
    rows = (manifest.get("status") or {}).get("conditions") or ()
    return next((row["status"] for row in rows if row["type"] == name), "")


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def broken(promises: Mapping[str, bool]) -> list[str]:
    """Say of each promise whether it was kept; returns those that were not."""
    for promise, kept in promises.items():
        say(f"{'kept' if kept else 'BROKEN'}: {promise}")
    return [promise for promise, kept in promises.items() if not kept]
