"""Two tenants on one real CLI: for every method of the pinned table, one gets nothing of the other.

Each method is tried three ways: by the owner of a session, who must get what the CLI says to it directly (a gateway
that refuses everything is no gateway); with the id of another tenant's session, at every place where an id can stand,
which must be answered as an id that nobody has; and, where the table refuses it, as a method that does not exist.
Meanwhile the other tenant has a turn under way, whose model call, transcript and connection must not change.
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import pytest
import pytest_asyncio

from copilot_operator.gateway.rules.methods import Verdict, rule, table
from copilot_operator.rpc.errors import METHOD_NOT_FOUND
from tests.contract import catalog
from tests.contract.gateway_bed import code_of
from tests.contract.two_tenants import OWN, SECRET, VICTIM, Bed, Client, two_tenants

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODYS: Final = "session-that-isnt-x"  # as long
UNSTABLE: Final = re.compile(r'\d{4}-\d\d-\d\dT[\d:.]+Z|[0-9a-f]{8}-[0-9a-f-]{27}|"interest-\d+"')

RULES: Final = {method: rule(method, "Shared") for method in table().methods}
FORWARDED: Final = [method for method, found in RULES.items() if found.verdict is Verdict.FORWARD]
REFUSED: Final = [method for method, found in RULES.items() if found.verdict is Verdict.REFUSE]
PLACES: Final = [(method, place) for method in FORWARDED for place in RULES[method].ids if method != "session.create"]

ALONE: Final = {  # what cannot succeed here even for its owner, and what the CLI says then
    "models.list": "Not authenticated",
    "models.listTokenPriceUnits": "Not authenticated",
    "session.history.clearContext": "must be called from inside a tool handler",
    "session.history.compact": "Nothing to compact",
    "session.mcp.isServerRunning": "No MCP host initialized",
    "session.mcp.listTools": "is not connected",
    "session.model.switchAutoTier": "requires the selected model to be `auto`",
    "session.tasks.readOutput": "No detached shell task",
}
OTHERWISE: Final = {  # where the gateway's answer is its own
    "account.getQuota": "the pool's quota is not shown",
    "session.history.rewind": "session.history.truncate with this event does it",
}
UNANSWERED: Final = {"session.ui.elicitation"}  # waits for a person


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bed]:
    async with two_tenants(tmp_path_factory.mktemp("isolation")) as made:
        yield made


# By its owner ---------------------------------------------------------------------------------------------------------


async def with_turn(client: Client, id: str) -> dict[str, Any]:
    await client.turn(id, "hello")
    return {}


async def with_user_event(client: Client, id: str) -> dict[str, Any]:
    await client.turn(id, "hello")
    events = (await client("session.getMessages", sessionId=id))["events"]
    return {"eventId": next(event["id"] for event in events if event["type"] == "user.message")}


async def with_queued(client: Client, id: str) -> dict[str, Any]:
    await client("session.send", sessionId=id, prompt="STALL")
    await client.until(id, "assistant.turn_start")
    await client("session.send", sessionId=id, prompt="next")
    [item] = (await client("session.queue.pendingItems", sessionId=id))["items"]
    return {"id": item["id"]}


PREPARED: Final[dict[str, Callable[[Client, str], Awaitable[dict[str, Any]]]]] = {
    "session.history.rewind": with_user_event,
    "session.history.truncate": with_user_event,
    "session.queue.duplicateAt": with_queued,
    "session.queue.moveItem": with_queued,
    "session.queue.removeAt": with_queued,
    "session.queue.sendNow": with_queued,
    "session.queue.updateText": with_queued,
    "sessions.readPersistedEvents": with_turn,
}


async def answer_to_owner(bed: Bed, client: Client, method: str) -> tuple[Any, ...]:
    """What a client is answered about a session that it has just made."""
    id = await bed.session(client)
    more = await PREPARED[method](client, id) if method in PREPARED else {}
    params = least_params(method) | more
    if method == "session.create":
        params |= {"sessionId": f"{id}-new", "model": "fake-model"}
    else:
        for place in RULES[method].ids:
            if place in ("sessionId", "sessionIds[]", "prefix"):
                params |= at_place(place, id)
    answer = await client.answer(method, params)
    await client.answer("session.delete", {"sessionId": id})
    return answer


@pytest.mark.parametrize("method", [method for method in FORWARDED if method not in UNANSWERED])
async def test_its_owner_is_answered_as_by_the_cli(bed: Bed, method: str) -> None:
    direct = await answer_to_owner(bed, bed.direct, method)
    mine = await answer_to_owner(bed, bed.mine, method)
    if method in OTHERWISE:
        assert mine[0] == "error"
        assert OTHERWISE[method] in mine[2]
    elif method in ALONE:
        assert direct[0] == "error"
        assert ALONE[method] in direct[2]
        assert stable(mine, OWN) == stable(direct, OWN)
    else:
        assert direct[0] == "result", direct
        assert mine[0] == "result", mine
        assert shape(mine[1]) == shape(direct[1]) or RULES[method].hidden
    await bed.assert_untouched()


# With another's id ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "place"), PLACES)
async def test_anothers_session_is_one_that_nobody_has(bed: Bed, method: str, place: str) -> None:
    code = code_of("other")
    for id, unknown in ((VICTIM, NOBODYS), (code + VICTIM, code + NOBODYS)):
        answers = [
            await bed.mine.answer(method, await foreign_params(bed, method, place, name)) for name in (id, unknown)
        ]
        assert stable(answers[0], id) == stable(answers[1], unknown)
        assert SECRET not in json.dumps(answers)
    await bed.assert_untouched()


async def foreign_params(bed: Bed, method: str, place: str, id: str) -> dict[str, Any]:
    params = least_params(method)
    if place != "sessionId" and "sessionId" in RULES[method].ids:
        params["sessionId"] = await bed.session(bed.mine)
    return params | at_place(place, id)


async def test_a_session_may_have_the_name_of_anothers(bed: Bed) -> None:
    await bed.mine("session.create", sessionId=VICTIM, model="fake-model")
    await bed.mine.turn(VICTIM, "ECHO=`mine`")
    events = await bed.mine("session.getMessages", sessionId=VICTIM)
    assert SECRET not in json.dumps(events)
    assert [event["data"]["content"] for event in events["events"] if event["type"] == "assistant.message"] == ["mine"]
    await bed.mine("session.delete", sessionId=VICTIM)
    await bed.assert_untouched()


async def test_lists_and_sizes_show_own_sessions_only(bed: Bed) -> None:
    id = await bed.session(bed.mine)
    await bed.mine.turn(id, "hello")
    listed = {
        "session.list": [entry["sessionId"] for entry in (await bed.mine("session.list"))["sessions"]],
        "sessions.list": [entry["sessionId"] for entry in (await bed.mine("sessions.list"))["sessions"]],
        "sessions.getSizes": list((await bed.mine("sessions.getSizes"))["sizes"]),
        "session.getLastId": [(await bed.mine("session.getLastId"))["sessionId"]],
    }
    for method, ids in listed.items():
        assert id in ids, method
        assert [each for each in ids if not each.startswith(OWN)] == [], method
    for prefix in ("", VICTIM, code_of("other"), code_of("other")[:3]):
        found = await bed.mine.answer("sessions.findByPrefix", {"prefix": prefix})
        assert VICTIM not in json.dumps(found[1:]), prefix
    await bed.mine("session.delete", sessionId=id)
    await bed.assert_untouched()


async def test_a_pending_request_is_answered_by_its_owner_only(bed: Bed) -> None:
    """Ids of requests are guessed here; knowing one must not help in a session of one's own."""
    schema = {"type": "object", "properties": {}}
    tool = {"name": "get_weather", "description": "Tells the weather", "parameters": schema}
    name = "asks-for-permission"
    await bed.other("session.create", sessionId=name, model="fake-model", tools=[tool], requestPermission=True)
    await bed.other("session.send", sessionId=name, prompt="CALL=`get_weather {}`")
    await bed.other.until(name, "permission.requested")
    [request] = [data["requestId"] for data in bed.other.events(name, "permission.requested")]
    own = await bed.session(bed.mine)
    for id in (own, name, code_of("other") + name):
        params = {"sessionId": id, "requestId": request, "result": {"kind": "approve-once"}}
        answer = await bed.mine.answer("session.permissions.handlePendingPermissionRequest", params)
        assert answer == ("result", {"success": False}) or answer[0] == "error"
    pending = await bed.other("session.permissions.pendingRequests", sessionId=name)
    assert [item["requestId"] for item in pending["items"]] == [request]
    await bed.other("session.delete", sessionId=name)
    await bed.remember()


async def test_news_of_a_session_reach_its_own_tenant_only(bed: Bed) -> None:
    """The CLI tells every connection; the first tenant has one while its session is loaded."""
    name = "news-of-the-other"
    id = await bed.session(bed.mine)
    before = len(bed.mine.told)
    await bed.other("session.create", sessionId=name, model="fake-model")
    await bed.other.turn(name, "hello")
    await bed.other("session.delete", sessionId=name)
    await bed.mine.turn(id, "hello")  # what was told before has come by then
    kinds = [
        params["type"] for method, params in bed.other.told if params.get("sessionId") == name and "type" in params
    ]
    assert set(kinds) == {"session.created", "session.updated", "session.deleted"}
    assert {params["sessionId"] for _, params in bed.mine.told[before:]} == {id}
    await bed.mine("session.delete", sessionId=id)
    await bed.remember()


# Not at all -----------------------------------------------------------------------------------------------------------


async def test_a_refused_method_does_not_exist(bed: Bed) -> None:
    assert "runtime.shutdown" in REFUSED
    wrong = {}
    for method in [*REFUSED, "session.sendAndWait", "no.such"]:
        for params in ({}, {"sessionId": VICTIM}, least_params(method) | {"sessionId": code_of("other") + VICTIM}):
            answer = await bed.mine.answer(method, params)
            if answer != ("error", METHOD_NOT_FOUND, f"Unhandled method {method}"):
                wrong[method] = answer
    assert wrong == {}
    await bed.assert_untouched()


async def test_the_other_was_never_seen(bed: Bed) -> None:
    """Over everything above: no byte that the first tenant received carries anything of the second's."""
    assert [text for text in bed.mine.received if SECRET in text] == []
    told = [(method, params) for method, params in bed.mine.told if params.get("type") != "session.deleted"]
    assert [text for text in map(json.dumps, told) if code_of("other") in text] == []  # deleted: its own, see above
    await bed.assert_untouched()


def least_params(method: str) -> dict[str, Any]:
    """Parameters by the schema; hand-written methods are not in it."""
    return catalog.least_params(method) if method in catalog.methods() else {"prompt": "x"} if "send" in method else {}


def at_place(place: str, id: str) -> dict[str, Any]:
    return {place.removesuffix("[]"): [id] if place.endswith("[]") else id}


def stable(answer: tuple[Any, ...], id: str) -> str:
    """An answer without what differs in every run."""
    return UNSTABLE.sub("...", re.sub(f"{id}(-[0-9]+)?(-new)?", "ID", json.dumps(answer)))


def shape(value: Any) -> Any:
    """The members of an object, to compare answers whose values differ."""
    return sorted(value) if isinstance(value, dict) else type(value).__name__
