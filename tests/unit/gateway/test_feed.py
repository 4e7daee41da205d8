"""A gateway follows its Secrets and pods: over a list and watch that break in every way they can."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from copilot_operator.gateway.config import Config
from copilot_operator.gateway.config_files import State
from copilot_operator.gateway.feed.feed import Feed
from copilot_operator.gateway.feed.kube import Access, KubeReader
from tests.support.eventually import eventually
from tests.unit.gateway.test_compiled import ENTRY, SECRETS, SERVER, SETTINGS, a_pod

NAMESPACE = "apps"
SETTINGS_NAME = "settings"


@dataclass
class FakeApi:
    """Lists and watches of one namespace; strict about what a gateway may ask. ``tokens``: who may ask now."""

    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    version: int = 1
    tokens: set[str] = field(default_factory=lambda: {"first"})
    oldest: int = 0  # a watch from an older version is answered with 410
    mute: bool = False  # watches are taken and nothing is told
    asked: list[str] = field(default_factory=list)
    refused: int = 0
    watches: list[tuple[str, dict[str, str], asyncio.Queue[Any]]] = field(default_factory=list)
    history: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)  # what watches tell that begin later
    url: str = ""

    def put(self, kind: str, name: str, obj: dict[str, Any]) -> None:
        self.version += 1
        known = (kind, name) in self.objects
        obj = obj | {"metadata": obj.get("metadata", {}) | {"name": name, "resourceVersion": str(self.version)}}
        self.objects[kind, name] = obj
        self._tell(kind, {"type": "MODIFIED" if known else "ADDED", "object": obj})

    def secret(self, name: str, values: dict[str, str]) -> None:
        self.put("secrets", name, {"data": {k: base64.b64encode(v.encode()).decode() for k, v in values.items()}})

    def delete(self, kind: str, name: str) -> None:
        self.version += 1
        obj = self.objects.pop((kind, name))
        self._tell(
            kind,
            {"type": "DELETED", "object": obj | {"metadata": obj["metadata"] | {"resourceVersion": str(self.version)}}},
        )

    def cut(self, *, forget: bool = False) -> None:
        """End all watches; ``forget``: nobody is told what happened meanwhile."""
        self.oldest = self.version + 1 if forget else self.oldest
        for _, _, queue in self.watches:
            queue.put_nowait(None)

    def _tell(self, kind: str, event: dict[str, Any]) -> None:
        self.history.append((self.version, kind, event))
        for resource, query, queue in self.watches:
            if resource == kind and self._selected(event["object"], query) and not self.mute:
                queue.put_nowait(event)

    def _selected(self, obj: dict[str, Any], query: dict[str, str]) -> bool:
        wanted = query.get("fieldSelector", "").removeprefix("metadata.name=")
        return not wanted or obj["metadata"]["name"] == wanted

    async def answer(self, request: web.Request) -> web.StreamResponse:
        resource, query = request.match_info["resource"], dict(request.query)
        if request.headers["Authorization"].removeprefix("Bearer ") not in self.tokens:
            self.refused += 1
            return web.json_response({"message": "who are you?"}, status=401)
        assert query.get("fieldSelector", "").startswith("metadata.name=") if resource == "secrets" else True
        assert query.get("labelSelector") == "app=copilot" if resource == "pods" else True
        if query.get("watch") != "1":
            self.asked.append("list")
            items = [o for (kind, _), o in self.objects.items() if kind == resource and self._selected(o, query)]
            return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})
        if int(query["resourceVersion"]) < self.oldest:
            return web.json_response({"message": "too old"}, status=410)
        response = web.StreamResponse()
        await response.prepare(request)
        watch = (resource, query, asyncio.Queue[Any]())
        for version, kind, event in self.history:
            if version > int(query["resourceVersion"]) and kind == resource and self._selected(event["object"], query):
                watch[2].put_nowait(event)
        self.watches.append(watch)
        try:
            while (event := await watch[2].get()) is not None:
                await response.write(json.dumps(event).encode() + b"\n")
        finally:
            self.watches.remove(watch)
        return response


@asynccontextmanager
async def an_api() -> AsyncIterator[FakeApi]:
    api = FakeApi()
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/apps/{resource}", api.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    api.secret(SETTINGS_NAME, SETTINGS)
    for name, values in SECRETS.items():
        api.secret(name, values)
    yield api
    api.cut()
    await runner.cleanup()


@asynccontextmanager
async def fed(api: FakeApi, directory: Path, *, silence_s: float = 60.0) -> AsyncIterator[list[float]]:
    """A feed that runs; the times at which it told of something new."""
    token = directory / "token"
    if not token.exists():
        token.write_text("first\n")
    told: list[float] = []
    access = Access(api.url, token, directory / "none", NAMESPACE)
    async with KubeReader.open(access, silence_s=silence_s) as reader:
        feed = Feed(reader, SETTINGS_NAME, directory, lambda: told.append(asyncio.get_running_loop().time()))
        running = asyncio.create_task(feed.run())
        yield told
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def state(directory: Path) -> Callable[[], State | None]:
    """The state of the server as the files say."""

    def look() -> State | None:
        with suppress(Exception):
            return Config.read(directory).servers[SERVER].state
        return None

    return look


async def until(directory: Path, wanted: State) -> None:
    look = state(directory)
    await eventually(lambda: look() is wanted, within_s=5, what=f"the server is {wanted}", every_s=0.01)


async def test_what_changes_is_in_the_files_at_once(tmp_path: Path) -> None:
    async with an_api() as api, fed(api, tmp_path) as told:
        await until(tmp_path, State.STOPPED)
        api.put("pods", "p1", a_pod("p1"))
        await until(tmp_path, State.SERVING)
        api.put("pods", "p1", a_pod("p1", labels={"copilot-operator.io/cordoned": "true"}))
        await until(tmp_path, State.DRAINING)
        api.delete("pods", "p1")
        await until(tmp_path, State.STOPPED)
        number = len(told)
        api.put("pods", "p2", a_pod("p2", owner="Job"))
        api.put("pods", "p3", a_pod("p3"))
        await until(tmp_path, State.SERVING)
        assert len(told) == number + 1, "a burst is one configuration"
        assert (tmp_path / "tenants.json").stat().st_mode & 0o077 == 0, "for nobody else to read"


async def test_a_shard_that_comes_later_is_followed_and_until_then_the_last_configuration_holds(tmp_path: Path) -> None:
    async with an_api() as api, fed(api, tmp_path):
        await until(tmp_path, State.STOPPED)
        shards = {"serverTokens": ["tokens-0"], "tenants": ["tenants-0", "tenants-1"]}
        api.secret(SETTINGS_NAME, SETTINGS | {"shards.json": json.dumps(shards)})
        api.put("pods", "p1", a_pod("p1"))
        await eventually(lambda: len(api.watches) == 5, within_s=5, what="the new shard is watched", every_s=0.01)
        assert state(tmp_path)() is State.STOPPED
        api.secret("tenants-1", {"bob": json.dumps(ENTRY | {"name": "bob", "tokens": ["c" * 64]})})
        await until(tmp_path, State.SERVING)
        assert {tenant.name for tenant in Config.read(tmp_path).tenants.values()} == {"alice", "bob"}


async def test_garbage_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with an_api() as api, fed(api, tmp_path):
        await until(tmp_path, State.STOPPED)
        api.secret("tenants-0", {"alice": "{"})
        api.secret(SETTINGS_NAME, SETTINGS | {"shards.json": "{"})
        api.put("pods", "p1", a_pod("p1"))
        complained = "no new configuration: shards.json is no JSON"
        await eventually(lambda: complained in caplog.text, within_s=5, what="it says why", every_s=0.01)
        assert state(tmp_path)() is State.STOPPED
        api.secret(SETTINGS_NAME, SETTINGS)
        api.secret("tenants-0", SECRETS["tenants-0"])
        await until(tmp_path, State.SERVING)


async def test_a_watch_that_was_cut_goes_on_where_it_was(tmp_path: Path) -> None:
    async with an_api() as api, fed(api, tmp_path):
        await until(tmp_path, State.STOPPED)
        await eventually(lambda: len(api.watches) == 4, within_s=5, what="all is watched", every_s=0.01)
        lists = len([each for each in api.asked if each == "list"])
        api.cut()
        api.put("pods", "p1", a_pod("p1"))
        await until(tmp_path, State.SERVING)
        assert len([each for each in api.asked if each == "list"]) == lists, "nothing was listed anew"


async def test_a_version_that_is_too_old_is_listed_anew(tmp_path: Path) -> None:
    async with an_api() as api, fed(api, tmp_path):
        await until(tmp_path, State.STOPPED)
        await eventually(lambda: len(api.watches) == 4, within_s=5, what="all is watched", every_s=0.01)
        api.mute = True
        api.put("pods", "p1", a_pod("p1"))
        api.mute = False
        api.cut(forget=True)
        await until(tmp_path, State.SERVING)


async def test_a_watch_that_hangs_is_given_up(tmp_path: Path) -> None:
    async with an_api() as api, fed(api, tmp_path, silence_s=0.3):
        await until(tmp_path, State.STOPPED)
        api.mute = True
        api.put("pods", "p1", a_pod("p1"))
        api.oldest = api.version
        await until(tmp_path, State.SERVING)


async def test_a_token_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    async with an_api() as api, fed(api, tmp_path):
        await until(tmp_path, State.STOPPED)
        api.tokens = {"second"}
        api.cut(forget=True)
        await eventually(lambda: api.refused > 0, within_s=5, what="the old one is refused", every_s=0.01)
        (tmp_path / "token").write_text("second")
        api.put("pods", "p1", a_pod("p1"))
        await until(tmp_path, State.SERVING)


async def test_without_the_api_server_the_last_files_stay(tmp_path: Path) -> None:
    async with an_api() as api, fed(api, tmp_path):
        api.put("pods", "p1", a_pod("p1"))
        await until(tmp_path, State.SERVING)
    async with fed(api, tmp_path) as told:
        await asyncio.sleep(0)
        assert state(tmp_path)() is State.SERVING
        assert not told
