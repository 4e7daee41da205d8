"""What a terminal shows of the events of a turn."""

from typing import Any

import pytest

from copilot_operator.plugin.turns import Shown, Turn, What, answer_to, session_rows, summary


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": data}


def feed(*events: dict[str, Any]) -> tuple[Turn, list[Shown]]:
    turn = Turn()
    return turn, [shown for each in events for shown in turn.feed(each)]


def test_an_answer_that_came_in_pieces_is_not_shown_again_as_a_whole() -> None:
    turn, shown = feed(
        event("assistant.message_delta", messageId="m", deltaContent="Hel"),
        event("assistant.message_delta", messageId="m", deltaContent="lo"),
        event("assistant.message", messageId="m", content="Hello"),
        event("assistant.message", messageId="n", content="And more"),
        event("session.idle"),
    )
    assert [each.text for each in shown if each.what is What.TEXT] == ["Hel", "lo", "And more"]
    assert shown[-1].what is What.END
    assert (turn.answer, turn.aborted) == ("And more", False)


def test_tools_are_named_with_what_tells_most_and_their_failures() -> None:
    _, shown = feed(
        event("tool.execution_start", toolCallId="t", toolName="bash", arguments={"command": "ls\n -l", "id": 1}),
        event("tool.execution_progress", toolCallId="t", progressMessage="half"),
        event("tool.execution_complete", toolCallId="t", success=True),
        event("tool.execution_start", toolCallId="u", toolName="view"),
        event("tool.execution_complete", toolCallId="u", success=False, error={"message": "no such file"}),
    )
    assert [each.text for each in shown] == ["bash: ls -l", "half", "view", "view failed: no such file"]


def test_a_permission_is_asked_for_once_and_not_if_a_hook_has_answered() -> None:
    request = {"kind": "shell", "fullCommandText": "rm -r x", "toolCallId": "t"}
    _, shown = feed(
        event("permission.requested", requestId="1", permissionRequest=request),
        event("permission.requested", requestId="2", permissionRequest=request, resolvedByHook=True),
    )
    assert shown == [Shown(What.ASK, "shell: rm -r x", "1")]


def test_what_a_subagent_says_is_not_shown() -> None:
    _, shown = feed(event("assistant.message_delta", messageId="m", deltaContent="x", parentToolCallId="t"))
    assert shown == []


def test_errors_and_aborts_are_remembered() -> None:
    turn, shown = feed(event("session.error", message="quota"), event("abort", reason="user"), event("session.idle"))
    assert (turn.errors, turn.aborted) == (["quota"], True)
    assert [each.what for each in shown] == [What.ERROR, What.END]


@pytest.mark.parametrize(
    "odd", [{}, {"type": "x"}, {"type": "assistant.message_delta"}, {"type": "session.idle", "data": 1}]
)
def test_odd_events_do_no_harm(odd: dict[str, Any]) -> None:
    Turn().feed(odd)


def test_a_summary_is_one_short_line() -> None:
    assert summary({"a": 1}) == '{"a": 1}'
    assert summary(None) == ""
    assert len(summary("x" * 1000)) == 100


def test_sessions_come_last_used_first_whatever_is_missing() -> None:
    rows = session_rows(
        {
            "sessions": [
                {"sessionId": "a", "startTime": "2030-01-01T00:00:00Z", "modifiedTime": "2030-01-01T00:00:00Z"},
                {"sessionId": "b", "modifiedTime": "2030-01-02T00:00:00Z", "summary": "talk"},
                {"sessionId": "c"},
            ]
        }
    )
    assert [row["id"] for row in rows] == ["b", "a", "c"]
    assert rows[0] == {"id": "b", "created": "", "lastUsed": "2030-01-02T00:00:00Z", "summary": "talk"}
    assert session_rows({}) == []
    assert session_rows(None) == []


def test_the_answer_to_a_prompt_is_found_among_stored_events() -> None:
    stored = [
        event("assistant.message", content="one"),
        event("assistant.message", content="two"),
        event("session.idle"),
    ]
    asked = [event("user.message", content="before"), *stored, event("user.message", content="now")]
    assert answer_to("now", asked) is None
    assert answer_to("now", [*asked, event("assistant.message", content="three")]) == "three"
    assert answer_to("now", [event("user.message", content="other"), *stored]) is None, "it never got there"
    assert answer_to("now", None) is None
