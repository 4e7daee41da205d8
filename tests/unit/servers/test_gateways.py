"""The operator asks gateways whom they want, and where tenants' sessions lie: with their real admin port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

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
        self.changed: list[tuple[str, str]] = []
        self.moved: list[tuple[str, str]] = []
        self.gateways = Gateways(lambda *pool: self.changed.append(pool), lambda *tenant: self.moved.append(tenant))
        self.demand = Demand(asyncio.get_running_loop().time)
        self.tenants: dict[str, Any] = {}
        self.key: str | None = KEY

    def follow(self, key: str = KEY) -> None:
        self.gateways.follow("apps", "saas", {"gateway-1": "127.0.0.1"}, key)

    def demanded(self) -> bool:
        return self.gateways.demanded("apps", SERVER)

    async def tell_demand(self, asked: admin.Asked) -> Any:
        number = int(admin.seconds(asked, "after", most=1e15))
        return {"servers": await self.demand.after(number, admin.seconds(asked, "wait")), "number": self.demand.number}

    async def tell_tenants(self, asked: admin.Asked) -> Any:
        return {"tenants": self.tenants}


@pytest.fixture
async def subject(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Subject]:
    made = Subject()
    pages = admin.private(lambda: made.key, {"/demand": made.tell_demand, "/tenants": made.tell_tenants})
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
    assert subject.changed == [("apps", "saas")]
    assert subject.gateways.count() == 1
    subject.demand._wanted.clear()
    await soon(lambda: not subject.demanded(), "it is not wanted any more")
    await soon(lambda: len(subject.changed) == 2, "and the pool looks again")


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
    subject.tenants = {"alice": {"homes": [SERVER, "copilot-b"]}}
    await soon(lambda: subject.gateways.homes("apps", "alice") == frozenset({SERVER, "copilot-b"}), "and what is new")
    assert subject.moved == [("apps", "alice")] * 2


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
