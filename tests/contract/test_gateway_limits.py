"""More clients than may have sessions loaded, through two gateways and the agent: exact, and every turn completes."""

from pathlib import Path

import pytest

from tests.contract.gateway_bed import token_of
from tests.scale.sessions import Plan, a_bed, measured
from tests.support.eventually import eventually
from tests.support.gateway import RawClient


@pytest.mark.parametrize("real", [False, True], ids=["stand-in", "real"])
async def test_no_more_are_loaded_than_may_be_and_every_turn_completes(tmp_path: Path, real: bool) -> None:
    found = await measured(Plan(clients=18, most=6, turns=2, real=real), tmp_path)
    assert (found["failed"], found["errors"], found["turns"]) == (0, 0, 36), found
    assert found["loaded_max"] == 6, "or it was not needed"


async def test_no_tenant_has_more_than_its_share(tmp_path: Path) -> None:
    found = await measured(Plan(clients=18, most=100, of_tenant=1, turns=2), tmp_path)
    assert (found["failed"], found["errors"], found["turns"]) == (0, 0, 36), found
    assert (found["loaded_max"], found["loaded_max_of_tenant"]) == (6, 1)


async def test_without_the_rule_more_are_loaded(tmp_path: Path) -> None:
    found = await measured(Plan(clients=18, most=1000, turns=2), tmp_path)
    assert found["loaded_max"] > 6, "all that are there at the same time"


async def test_one_too_many_is_refused_where_the_pool_says_so_and_busy_ones_go_on(tmp_path: Path) -> None:
    async with a_bed(Plan(most=1), tmp_path, evict=False) as bed:
        one, other = [await RawClient.open(gateway.host, gateway.port) for gateway in bed.gateways]
        for client, tenant in ((one, "tenant-0"), (other, "tenant-1")):
            await client.connect(token_of(tenant))
        await one("session.create", sessionId="a", model="m")
        await one("session.send", sessionId="a", prompt="SLEEP=1")
        refused = (await other.ask("session.create", sessionId="b", model="m"))["error"]
        assert refused["data"] == {"reason": "TooManySessions", "retryAfterSeconds": 5}
        assert "this server has 1 sessions loaded, which is the most" in refused["message"]
        await eventually(lambda: "session.idle" in one.types("a"), within_s=30, what="the turn of the other ends")
        await one("session.destroy", sessionId="a")

        async def let_in() -> bool:
            return "result" in await other.ask("session.create", sessionId="b", model="m")

        await eventually(let_in, within_s=60, what="there is room", every_s=1)
        for client in (one, other):
            await client.close()


async def test_a_turn_that_waits_too_long_for_an_answer_makes_room_and_goes_on_with_it(tmp_path: Path) -> None:
    async with a_bed(Plan(most=1, real=True), tmp_path, idle={"sessionS": 2.0}) as bed:
        one, other = [await RawClient.open(gateway.host, gateway.port) for gateway in bed.gateways]
        for client, tenant in ((one, "tenant-0"), (other, "tenant-1")):
            await client.connect(token_of(tenant))
            client.answer_s = 60

        def asked(kind: str) -> str | None:
            found = [event["data"]["requestId"] for event in one.events("a") if event["type"] == f"{kind}.requested"]
            return str(found[0]) if found else None

        tool = {"name": "weather", "description": "tells it", "parameters": {"type": "object", "properties": {}}}
        await one("session.create", sessionId="a", model="m", requestPermission=True, tools=[tool], streaming=True)
        await one("session.send", sessionId="a", prompt="CALL=`weather {}`")
        permission = await eventually(lambda: asked("permission"), within_s=20, what="it asks for permission")
        await other("session.create", sessionId="b", model="m")
        assert "session.idle" not in one.types("a"), "its turn is not over"
        await other("session.destroy", sessionId="b")
        answer = {"requestId": permission, "result": {"kind": "approve-once"}}
        await one("session.permissions.handlePendingPermissionRequest", sessionId="a", **answer)
        call = await eventually(lambda: asked("external_tool"), within_s=20, what="the tool is called")
        result = {"textResultForLlm": "rain", "resultType": "success"}
        await one("session.tools.handlePendingToolCall", sessionId="a", requestId=call, result=result)
        await eventually(lambda: "session.idle" in one.types("a"), within_s=20, what="its turn ends")
        assert "session.error" not in one.types("a")
        said = [event["data"]["content"] for event in one.events("a") if event["type"] == "assistant.message"]
        assert said[-1] == "the tool said: rain"
        for client in (one, other):
            await client.close()


async def test_while_all_work_one_more_waits_and_nothing_is_lost(tmp_path: Path) -> None:
    async with a_bed(Plan(most=1), tmp_path) as bed:
        one, other = [await RawClient.open(gateway.host, gateway.port) for gateway in bed.gateways]
        for client, tenant in ((one, "tenant-0"), (other, "tenant-1")):
            await client.connect(token_of(tenant))
        await one("session.create", sessionId="a", model="m")
        await one("session.send", sessionId="a", prompt="SLEEP=3")
        await other("session.create", sessionId="b", model="m")
        assert "session.idle" in one.types("a"), "it would have been unloaded in its turn"
        messages = await one("session.getMessages", sessionId="a")
        assert "assistant.message" in [event["type"] for event in messages["events"]], "and it comes back by itself"
        for client in (one, other):
            await client.close()
