"""The operator asks gateways whom they want, and where tenants' sessions lie: with their real admin port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from copilot_operator.domain.snapshot import SessionCounts, Shown
from copilot_operator.gateway import admin
from copilot_operator.gateway.demand import Demand
from copilot_operator.servers import gateways
from copilot_operator.servers.gateways import Gateways
from tests.support.eventually import eventually

KEY = "the-key"
SERVER = "copilot-a"


class Subject:
    """The operator's side beside one gateway's admin port."""

    def __init__(self) -> None:
        self.changed: list[tuple[str, str, str]] = []
        self.short: list[tuple[str, str]] = []
        self.moved: list[tuple[str, str]] = []
        self.gateways = Gateways(
            lambda *pool: self.changed.append(pool),
            lambda *tenant: self.moved.append(tenant),
            lambda *pool: self.short.append(pool),
        )
        self.demand = Demand(asyncio.get_running_loop().time)
        self.tenants: dict[str, Any] = {}
        self.tls: Any = None
        self.servers: Any = {SERVER: "Serving"}
        self.asked_for_servers = self.asked_for_tenants = 0
        self.active: object = 0
        self.key: str | None = KEY

    def follow(self, key: str = KEY) -> None:
        self.gateways.follow("apps", "saas", {"gateway-1": "127.0.0.1"}, key)

    def demanded(self) -> bool:
        return self.gateways.demanded("apps", SERVER)

    async def tell_demand(self, asked: admin.Asked) -> Any:
        number = int(admin.seconds(asked, "after", most=1e15))
        servers = await self.demand.after(number, admin.seconds(asked, "wait"))
        return {"servers": servers, "number": self.demand.number, "waiting": self.demand.waiting()}

    async def tell_servers(self, asked: admin.Asked) -> Any:
        self.asked_for_servers += 1
        return {"servers": self.servers}

    async def tell_tenants(self, asked: admin.Asked) -> Any:
        self.asked_for_tenants += 1
        return {"tenants": self.tenants, "active": self.active} | ({} if self.tls is None else {"tls": self.tls})


@pytest.fixture
async def subject(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Subject]:
    made = Subject()
    told = {"/demand": made.tell_demand, "/tenants": made.tell_tenants, "/servers": made.tell_servers}
    pages = admin.private(lambda: made.key, told)
    server = await admin.serve("127.0.0.1", 0, pages)
    monkeypatch.setattr(gateways, "ADMIN_PORT", server.sockets[0].getsockname()[1])
    monkeypatch.setattr(gateways, "HOMES_EVERY_S", 0.05)
    monkeypatch.setattr(gateways, "AGAIN_S", 0.05)
    async with running(made.gateways):
        yield made
    server.close()


@asynccontextmanager
async def running(subject: Gateways) -> AsyncIterator[None]:
    task = asyncio.create_task(subject.run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def soon(condition: Any, what: str) -> None:
    await eventually(condition, within_s=5, what=what, every_s=0.01)


async def test_a_server_that_is_wanted_is_heard_of_at_once_and_kept_for_a_while(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateways, "KEPT_S", 0.3)
    subject.follow()
    assert not subject.demanded()
    subject.demand.want(SERVER)
    await soon(subject.demanded, "it is wanted")
    assert subject.changed == [("apps", "saas", SERVER)]
    assert subject.gateways.count() == 1
    subject.demand._wanted.clear()
    await soon(lambda: not subject.demanded(), "it is not wanted any more")
    await soon(lambda: len(subject.changed) == 2, "and the pool looks again")


async def test_who_is_wanted_after_another_is_heard_of_at_once_too(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateways, "AGAIN_S", 3600.0)
    subject.follow()
    for server in (SERVER, "copilot-b"):
        subject.demand.want(server)
        await soon(lambda server=server: subject.gateways.demanded("apps", server), f"{server} is wanted")


async def test_without_the_key_nothing_is_told(subject: Subject) -> None:
    subject.demand.want(SERVER)
    subject.tenants = {"alice": {"homes": [SERVER]}}
    subject.follow(key="another")
    answered = await admin.response(
        admin.private(lambda: None, {"/demand": subject.tell_demand}),
        b"GET /demand HTTP/1.1\r\nAuthorization: Bearer \r\n\r\n",
    )
    assert answered.startswith(b"HTTP/1.1 401")
    subject.follow()
    await soon(subject.demanded, "with the right key it is")


async def test_where_a_tenants_sessions_lie_is_told_when_it_changes(subject: Subject) -> None:
    subject.tenants = {"alice": {"homes": [SERVER]}, "dedicated": {"active": 0}}
    subject.follow()
    assert subject.gateways.homes("apps", "alice") is None
    await soon(lambda: subject.gateways.homes("apps", "alice") == frozenset({SERVER}), "it is told")
    assert subject.gateways.homes("apps", "dedicated") is None
    assert subject.gateways.sessions("apps", "alice") is None, "not all of it was told"
    subject.tenants = {"alice": {"homes": [SERVER, "copilot-b"], "active": 1, "loaded": 2, "stored": 3}}
    await soon(lambda: subject.gateways.homes("apps", "alice") == frozenset({SERVER, "copilot-b"}), "and what is new")
    assert subject.moved == [("apps", "alice")] * 2
    assert subject.gateways.sessions("apps", "alice") == SessionCounts(1, 2, 3)


async def test_a_cordon_is_waited_for_until_every_gateway_has_heard_of_it(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateways, "CORDON_LOOK_S", 0.01)
    subject.follow()
    waiting = asyncio.create_task(subject.gateways.cordoned("apps", "saas", SERVER))
    await soon(lambda: subject.asked_for_servers >= 2, "it is asked again")
    assert not waiting.done()
    subject.servers, asked = {SERVER: "Starting"}, subject.asked_for_servers  # it may take sessions
    await soon(lambda: subject.asked_for_servers >= asked + 3, "it is asked again")
    assert not waiting.done()
    subject.servers = {SERVER: "Draining"}
    async with asyncio.timeout(5):
        await waiting


@pytest.mark.parametrize("answer", [None, [], "down"], ids=str)
async def test_a_gateway_that_does_not_say_is_not_waited_for(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(gateways, "CORDON_S", 0.2)
    subject.servers, subject.key = answer, None if answer == "down" else KEY
    subject.follow()
    async with asyncio.timeout(5):
        await subject.gateways.cordoned("apps", "saas", SERVER)
        await subject.gateways.cordoned("apps", "unknown", SERVER)


async def test_who_is_followed_no_more_is_asked_no_more(subject: Subject) -> None:
    subject.follow()
    subject.gateways.follow("apps", "saas", {}, KEY)
    subject.demand.want(SERVER)
    await asyncio.sleep(0)
    assert not subject.gateways._followed
    assert not subject.demanded()


@pytest.mark.parametrize("answer", [[], {"number": "1", "servers": []}, {"number": 1, "servers": {}}, None], ids=str)
def test_an_answer_of_another_shape_is_none(answer: Any) -> None:
    with pytest.raises(ValueError, match="no"):
        gateways._read(answer)


async def test_sessions_that_no_server_takes_are_heard_of_at_once_and_when_one_takes_them(subject: Subject) -> None:
    subject.follow()
    await soon(lambda: subject.gateways._followed, "it is asked")
    subject.demand.waits("alice", "s", True)
    subject.demand.waits("bob", "s", True)
    await soon(lambda: subject.gateways.held("apps", "saas") == 2, "two wait")
    subject.demand.waits("alice", "s", False)
    await soon(lambda: subject.gateways.held("apps", "saas") == 1, "one is left")
    assert set(subject.short) == {("apps", "saas")}
    subject.gateways.follow("apps", "saas", {}, KEY)
    assert subject.gateways.held("apps", "saas") == 0, "nobody is there to say so"


async def test_a_refused_credential_is_heard_of_and_forgotten_with_the_gateway_that_saw_it(subject: Subject) -> None:
    subject.tenants = {"alice": {"refused": True}, "bob": {}}
    subject.follow()
    await soon(lambda: subject.gateways.refused("apps", "alice"), "it is heard of")
    assert not subject.gateways.refused("apps", "bob")
    assert ("apps", "alice") in subject.moved
    subject.tenants = {"alice": {}}
    await soon(lambda: not subject.gateways.refused("apps", "alice"), "it is taken again")
    subject.tenants = {"alice": {"refused": True}}
    await soon(lambda: subject.gateways.refused("apps", "alice"), "it is refused once more")
    subject.gateways.follow("apps", "saas", {}, "")
    assert not subject.gateways.refused("apps", "alice")


async def test_whether_a_tenant_or_any_of_the_pool_is_in_a_turn_is_asked_when_it_matters(subject: Subject) -> None:
    async def works(tenant: str | None) -> bool:
        return await subject.gateways.work("apps", "saas", tenant)

    assert await works("alice"), "of which nothing is known may have some"
    subject.follow()
    subject.tenants, subject.active = {"alice": {"active": 0}, "bob": {"active": 2}}, 2
    assert [await works(each) for each in ("alice", "bob", "carl", None)] == [False, True, False, True]
    subject.tenants, subject.active = {"bob": {"active": 0}}, 0
    assert [await works(each) for each in ("bob", None)] == [False, False]
    subject.tenants, subject.active = {"bob": {}}, None
    assert [await works(each) for each in ("bob", None)] == [True, True], "one that does not say may have some"
    subject.tenants, subject.active = {"bob": {"active": 2}}, 2
    subject.gateways.follow("apps", "saas", {}, KEY, ["127.0.0.1"])
    assert await works("bob"), "one that ends has its turns still"
    subject.key = "another"
    assert await works("alice")


async def test_what_a_gateway_shows_at_its_tls_port_is_heard_of_and_forgotten_with_it(subject: Subject) -> None:
    def shown() -> tuple[Shown, ...]:
        return subject.gateways.shown("apps", "saas")

    subject.follow()
    subject.tls = {"notBefore": 0.0, "notAfter": 86400.0}
    times = datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 2, tzinfo=UTC)
    await soon(lambda: shown() == (Shown(*times),), "it is heard of")
    assert subject.short == [("apps", "saas")], "its pool is looked at"
    subject.tls["fault"] = "Mismatched"
    await soon(lambda: shown() == (Shown(*times, "Mismatched"),), "a pair is refused")
    subject.tls = {"fault": "Missing"}
    await soon(lambda: shown() == (Shown(fault="Missing"),), "it shows nothing")
    asked = subject.asked_for_tenants
    await soon(lambda: subject.asked_for_tenants > asked + 2, "it is asked again and again")
    assert len(subject.short) == 3, "only when it has changed"
    subject.tls = {"notBefore": "x", "notAfter": True, "fault": 5}
    await soon(lambda: shown() == (Shown(),), "nonsense is nothing")
    subject.gateways.follow("apps", "saas", {}, KEY)
    assert shown() == ()
