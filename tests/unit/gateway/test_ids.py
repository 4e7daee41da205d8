"""A tenant sees its own ids, at every place where the CLI puts one, and nobody else's."""

import json
from typing import Any

import pytest

from copilot_operator.gateway.rules.ids import InvalidId, NameSpace

CODE = "k3f9x0q7m2zp"
OTHERS = "a1b2c3d4e5f6"
OURS = NameSpace(CODE)
DEDICATED = NameSpace("")


def compact(method: str, params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params}, separators=(",", ":")).encode()


def event(session: str, type: str, **data: object) -> bytes:
    return compact("session.event", {"sessionId": session, "event": {"type": type, "data": data, "id": "e-1"}})


def shown(body: bytes) -> Any:
    told = OURS.event(body)
    return None if told is None else json.loads(told)["params"]


# Ids of a client


@pytest.mark.parametrize("id", ["a", "-_", "A-z_09", "x" * (250 - len(CODE)), CODE + "a", OTHERS])
def test_a_good_id_has_the_code_in_front_on_the_server(id: str) -> None:
    assert OURS.outer(id) == CODE + id
    assert OURS.inner(CODE + id) == id


@pytest.mark.parametrize("id", [OTHERS + "a", CODE, "a", "", CODE[:-1] + "A" + "a"])
def test_what_does_not_begin_with_the_code_is_of_somebody_else(id: str) -> None:
    assert OURS.inner(id) is None


def test_a_dedicated_tenants_ids_stay_as_they_are() -> None:
    assert DEDICATED.outer("x" * 250) == "x" * 250
    assert DEDICATED.inner("anything") == "anything"
    assert DEDICATED.to_server("session.send", {"sessionId": "a", "prompt": "p"}) == {"sessionId": "a", "prompt": "p"}
    result = {"sessionId": "a", "nativeSessionId": "b"}
    assert DEDICATED.from_server_result("session.create", result) == result
    body = event("a", "hook.start", input={"sessionId": "b"})
    assert DEDICATED.event(body) is body
    assert DEDICATED.event(compact("host.event", {})) == compact("host.event", {})


@pytest.mark.parametrize(
    ("method", "id", "said"),
    [
        ("session.create", "../x", "Rejected session.create request with invalid sessionId: ../x"),
        ("session.create", "", "Rejected session.create request with invalid sessionId: "),
        ("session.create", "é", "Rejected session.create request with invalid sessionId: é"),
        ("session.create", "a\n", "Rejected session.create request with invalid sessionId: a\n"),
        ("session.create", 5, "session.create sessionId must be a string"),
        ("session.resume", "a b", "Rejected session.resume request with invalid sessionId: a b"),
        ("session.resume", None, "Missing sessionId parameter"),
        ("session.send", "../x", "Session not found for sessionId: ../x"),
        ("session.send", None, "Missing sessionId in session.send request"),
        ("session.metadata.activity", ["a"], "Missing sessionId in session.metadata.activity request"),
        ("session.getMessages", "../x", "Session not found: ../x"),
        ("session.getMetadata", "../x", 'Invalid sessionId: "../x"'),
        ("session.getMetadata", 5, "Missing sessionId parameter"),
        ("sessions.close", "../x", 'Invalid sessionId: "../x"'),
        ("sessions.close", None, "Invalid sessionId: null"),
    ],
)
def test_an_id_that_cannot_be_one_is_answered_in_the_clis_words(method: str, id: object, said: str) -> None:
    for space in (OURS, DEDICATED):
        with pytest.raises(InvalidId) as caught:
            space.to_server(method, {"sessionId": id})
        assert caught.value.result is None
        assert (caught.value.code, caught.value.message) == (-32603, f"Request {method} failed with message: {said}")


@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("session.detach", {"success": True}),
        ("session.destroy", {"success": False}),
        ("session.delete", {"success": False, "error": "Invalid sessionId"}),
    ],
)
def test_where_the_cli_answers_with_a_result_so_does_the_gateway(method: str, result: object) -> None:
    with pytest.raises(InvalidId) as caught:
        OURS.to_server(method, {"sessionId": "../x"})
    assert caught.value.result == result


def test_an_id_too_long_for_its_name_space_says_how_long_it_may_be() -> None:
    with pytest.raises(InvalidId, match=r"at most 238 characters here"):
        OURS.outer("x" * 239)
    assert NameSpace(CODE).outer("x" * 238)


@pytest.mark.parametrize(
    ("method", "params", "sent"),
    [
        ("session.send", {"sessionId": "a", "prompt": "a"}, {"sessionId": CODE + "a", "prompt": "a"}),
        ("sessions.bulkDelete", {"sessionIds": ["a", "b"]}, {"sessionIds": [CODE + "a", CODE + "b"]}),
        ("sessions.bulkDelete", {"sessionIds": []}, {"sessionIds": []}),
        ("sessions.findByPrefix", {"prefix": "a"}, {"prefix": CODE + "a"}),
        ("sessions.findByPrefix", {"prefix": ""}, {"prefix": CODE}),
        ("session.mode.set", {"sessionId": "a", "mode": "plan"}, {"sessionId": CODE + "a", "mode": "plan"}),
        (
            "session.mode.set",
            {"sessionId": "a", "inheritPlanBaseFromSessionId": "b"},
            {"sessionId": CODE + "a", "inheritPlanBaseFromSessionId": CODE + "b"},
        ),
        ("session.list", {"filter": {"cwd": "/a"}}, {"filter": {"cwd": "/a"}}),
    ],
)
def test_ids_are_put_into_the_name_space_wherever_they_stand(method: str, params: object, sent: object) -> None:
    assert OURS.to_server(method, params) == sent


@pytest.mark.parametrize(
    ("method", "params", "said"),
    [
        ("sessions.checkInUse", {"sessionIds": "a"}, "missing or non-array parameter 'sessionIds'"),
        ("sessions.checkInUse", {}, "missing or non-array parameter 'sessionIds'"),
        ("sessions.checkInUse", {"sessionIds": ["a", "../x"]}, 'Invalid sessionId: "../x"'),
        ("sessions.checkInUse", {"sessionIds": [5]}, "Invalid sessionId: 5"),
        ("sessions.findByPrefix", {"prefix": 5}, "missing or non-string parameter 'prefix'"),
        ("session.send", ["a"], "Missing sessionId in session.send request"),
    ],
)
def test_lists_and_prefixes_are_checked_like_ids(method: str, params: object, said: str) -> None:
    with pytest.raises(InvalidId) as caught:
        OURS.to_server(method, params)
    assert caught.value.message == f"Request {method} failed with message: {said}"


# Results


@pytest.mark.parametrize(
    ("method", "result", "told"),
    [
        (
            "session.create",
            {"sessionId": CODE + "a", "nativeSessionId": CODE + "a", "mode": "interactive"},
            {"sessionId": "a", "nativeSessionId": "a", "mode": "interactive"},
        ),
        (
            "session.list",
            {"sessions": [{"sessionId": CODE + "a", "name": "n"}, {"sessionId": OTHERS + "b"}, {"name": "?"}, 5]},
            {"sessions": [{"sessionId": "a", "name": "n"}]},
        ),
        ("session.list", {"sessions": {"odd": 1}}, {}),
        ("session.getMetadata", {"session": {"sessionId": CODE + "a"}}, {"session": {"sessionId": "a"}}),
        ("session.getMetadata", {"session": {"sessionId": OTHERS + "a", "name": "secret"}}, {}),
        ("session.getMetadata", {}, {}),
        ("sessions.getSizes", {"sizes": {CODE + "a": 1, OTHERS + "a": 2}}, {"sizes": {"a": 1}}),
        ("sessions.bulkDelete", {"freedBytes": {CODE + "a": 1}}, {"freedBytes": {"a": 1}}),
        ("sessions.checkInUse", {"inUse": [CODE + "a", OTHERS + "a", 5]}, {"inUse": ["a"]}),
        (
            "sessions.getClientMetadata",
            [{"sessionId": CODE + "a", "status": "ok"}, {"sessionId": OTHERS + "a"}],
            [{"sessionId": "a", "status": "ok"}],
        ),
        ("sessions.findByPrefix", {"sessionId": CODE + "a"}, {"sessionId": "a"}),
        ("sessions.findByPrefix", {"sessionId": OTHERS + "a"}, {}),
        ("sessions.findByPrefix", {}, {}),
        (
            "session.metadata.snapshot",
            {"sessionId": CODE + "a", "workspace": {"id": CODE + "a", "cwd": "/w"}},
            {"sessionId": "a", "workspace": {"id": "a", "cwd": "/w"}},
        ),
        (
            "session.metadata.snapshot",
            {"sessionId": CODE + "a", "workspace": None},
            {"sessionId": "a", "workspace": None},
        ),
        (
            "session.delete",
            {"success": False, "error": f"Session file not found for {CODE}a"},
            {"success": False, "error": "Session file not found for a"},
        ),
        (
            "auth.getStatus",
            {"isAuthenticated": True, "login": "pool", "statusMessage": "pool"},
            {"isAuthenticated": True},
        ),
        ("session.abort", {"success": True}, {"success": True}),
        ("session.tasks.list", None, None),
    ],
)
def test_a_result_shows_the_clients_ids_and_nobody_elses(method: str, result: object, told: object) -> None:
    assert OURS.from_server_result(method, result) == told


def test_events_in_a_result_are_shown_as_pushed_ones_are() -> None:
    events = [
        {"type": "session.start", "data": {"sessionId": CODE + "a"}},
        {"type": "user.message", "data": {"content": f"I am {CODE}a", "source": "gateway-17"}},
        {"type": "hook.start", "data": {"input": {"sessionId": OTHERS + "b", "parentAgentId": CODE + "a"}}},
        {"type": "odd"},
        "odder",
    ]
    assert OURS.from_server_result("session.getMessages", {"events": events}) == {
        "events": [
            {"type": "session.start", "data": {"sessionId": "a"}},
            {"type": "user.message", "data": {"content": f"I am {CODE}a"}},
            {"type": "hook.start", "data": {"input": {"sessionId": "", "parentAgentId": "a"}}},
            {"type": "odd"},
            "odder",
        ]
    }


def test_the_gateways_mark_of_a_message_is_kept_from_dedicated_clients_too() -> None:
    marked = {"type": "user.message", "data": {"content": "c", "source": "gateway-17"}}
    told = DEDICATED.from_server_result("session.getMessages", {"events": [marked]})
    assert told == {"events": [{"type": "user.message", "data": {"content": "c"}}]}
    body = DEDICATED.event(event("a", "user.message", content="c", source="gateway-17"))
    assert body == event("a", "user.message", content="c")


@pytest.mark.parametrize("space", [OURS, DEDICATED], ids=["shared", "dedicated"])
def test_a_queued_message_does_not_show_the_mark_either(space: NameSpace) -> None:
    items: list[Any] = [{"kind": "message", "source": "gateway-17"}, {"kind": "message", "source": "skill-x"}, 5]
    told = space.from_server_result("session.queue.pendingItems", {"items": items})
    assert told == {"items": [{"kind": "message"}, {"kind": "message", "source": "skill-x"}, 5]}


# Events


def test_an_event_without_ids_inside_is_spliced_and_else_stays_byte_for_byte() -> None:
    body = event(CODE + "chat", "assistant.message_delta", deltaContent=f"{CODE}chat is in the text", x=1.0)
    assert OURS.event(body) == body.replace(f'"{CODE}chat"'.encode(), b'"chat"')


@pytest.mark.parametrize(
    ("type", "data", "told"),
    [
        ("session.start", {"sessionId": CODE + "a", "v": 1}, {"sessionId": "a", "v": 1}),
        ("external_tool.requested", {"sessionId": CODE + "a"}, {"sessionId": "a"}),
        ("permission.requested", {"ownerSessionId": CODE + "a"}, {"ownerSessionId": "a"}),
        ("permission.requested", {}, {}),
        ("assistant.usage", {"accounting": {"sourceSessionId": CODE + "a"}}, {"accounting": {"sourceSessionId": "a"}}),
        ("assistant.usage", {"accounting": None}, {"accounting": None}),
        (
            "tool.execution_complete",
            {"toolUsage": {"accounting": {"sourceSessionId": OTHERS + "b"}}},
            {"toolUsage": {"accounting": {"sourceSessionId": "chat"}}},
        ),
        (
            "hook.start",
            {"input": {"sessionId": CODE + "a", "parentAgentId": "toolu_1", "transcriptPath": f"/s/{CODE}a"}},
            {"input": {"sessionId": "a", "parentAgentId": "toolu_1", "transcriptPath": f"/s/{CODE}a"}},
        ),
        (
            "session.shutdown",
            {"usageAccountingWatermarks": {CODE + "a": 1, OTHERS + "b": 2}},
            {"usageAccountingWatermarks": {"a": 1}},
        ),
        ("user.message", {"source": f"agent-{CODE}a"}, {"source": "agent-a"}),
        ("user.message", {"source": "agent-explore"}, {"source": "agent-explore"}),
        ("user.message", {"source": "skill-x", "content": CODE}, {"source": "skill-x", "content": CODE}),
        (
            "session.error",
            {"message": f"Session not found for sessionId: {CODE}a"},
            {"message": "Session not found for sessionId: a"},
        ),
    ],
)
def test_ids_inside_an_event_are_the_clients_own(type: str, data: dict[str, Any], told: object) -> None:
    assert shown(event(CODE + "chat", type, **data)) == {
        "sessionId": "chat",
        "event": {"type": type, "data": told, "id": "e-1"},
    }


@pytest.mark.parametrize("type", ["assistant.message", "session.start", "user.message"])
def test_an_event_of_somebody_else_is_not_shown(type: str) -> None:
    assert OURS.event(event(OTHERS + "chat", type, sessionId=CODE + "chat")) is None
    assert OURS.event(event(CODE, type)) is None


@pytest.mark.parametrize("more", [{}, {"metadata": {"startTime": "t"}}])
def test_a_lifecycle_of_ones_own_is_shown_and_of_others_is_not(more: dict[str, Any]) -> None:
    fields = {"type": "session.updated", "sessionId": CODE + "a", **more}
    assert OURS.event(compact("session.lifecycle", fields)) == compact("session.lifecycle", fields | {"sessionId": "a"})
    assert OURS.event(compact("session.lifecycle", fields | {"sessionId": OTHERS + "a"})) is None
    assert OURS.event(compact("session.lifecycle", fields | {"sessionId": CODE})) is None


@pytest.mark.parametrize(
    "body",
    [
        compact("session.event", {"event": {"type": "assistant.message"}, "sessionId": CODE + "a"}),
        compact("session.lifecycle", {"sessionId": CODE + "a", "type": "session.updated"}),
        compact("session.event", {"sessionId": CODE + "a", "event": {"type": "a\\b"}}),
        b'{ "jsonrpc":"2.0","method":"session.event","params":{"sessionId":"%ba","event":{"type":"a"}}}'
        % CODE.encode(),
        b'{"jsonrpc":"2.0","method":"session.event","params":{"sessionId":"\\u006b%ba","event":{"type":"a"}}}'
        % CODE[1:].encode(),
    ],
)
def test_a_frame_of_another_form_is_understood_as_well(body: bytes) -> None:
    assert shown(body) == json.loads(body)["params"] | {"sessionId": "a"}


@pytest.mark.parametrize(
    "body",
    [
        compact("host.event", {"scope": {"type": "session", "sessionId": CODE + "a"}, "kind": "k"}),
        compact("gitHubTelemetry.event", {"event": {"session_id": CODE + "a"}}),
        compact("something.new", {"sessionId": CODE + "a"}),
        compact("session.event", ["odd"]),
        b"no JSON",
    ],
)
def test_what_is_not_known_to_be_one_tenants_is_not_shown_in_a_shared_pool(body: bytes) -> None:
    assert OURS.event(body) is None


def test_a_request_of_the_server_has_the_clients_ids() -> None:
    params = {
        "sessionId": CODE + "a",
        "hookType": "preToolUse",
        "input": {"sessionId": CODE + "a", "parentAgentId": CODE + "a", "cwd": "/w"},
    }
    before = json.dumps(params)
    assert OURS.reverse(params) == {
        "sessionId": "a",
        "hookType": "preToolUse",
        "input": {"sessionId": "a", "parentAgentId": "a", "cwd": "/w"},
    }
    assert json.dumps(params) == before
    assert OURS.reverse({"sessionId": OTHERS + "a"}) is None
    assert OURS.reverse({}) is None
    assert OURS.reverse(["odd"]) is None


# Error messages


@pytest.mark.parametrize(
    "form",
    [
        "Session not found for sessionId: {}",
        "Request session.send failed with message: Session not found for sessionId: {}",
        "Request session.resume failed with message: Failed to load session events: Session not found: {}",
        "Request session.getMessages failed with message: Session not found: {}",
        "Request s.readPersistedEvents failed with message: Persisted event journal is unavailable for session {}",
        'Request sessions.close failed with message: Invalid sessionId: "{}"',
        "Session file not found for {}",
        "Cannot delete session {}: it is currently in use by another process.",
        'Cannot acquire a bearer token for provider "default": no client connection registered for session "{}".'
        " The connection that supplied this provider may have disconnected.",
    ],
)
def test_an_error_names_the_clients_id(form: str) -> None:
    assert OURS.error_text(form.format(CODE + "a")) == form.format("a")
    assert OURS.error_text(form.format(OTHERS + "a")) == form.format("?")
    assert DEDICATED.error_text(form.format("a")) == form.format("a")


@pytest.mark.parametrize("text", [f"the model said {CODE}a", f"Session not found for sessionId: {CODE}a, it said", ""])
def test_free_text_is_not_searched(text: str) -> None:
    assert OURS.error_text(text) == text


@pytest.mark.parametrize("code", ["a b", "é", "x" * 250])
def test_a_code_has_the_characters_of_an_id(code: str) -> None:
    with pytest.raises(ValueError, match="a code has"):
        NameSpace(code)
