"""How a conversation goes on when things go wrong, with a connection that a test plays."""

import queue
from collections.abc import Callable
from typing import Any

import pytest

from copilot_operator.plugin import conversation
from copilot_operator.plugin.conversation import Conversation, Decision
from copilot_operator.plugin.errors import PluginError
from copilot_operator.plugin.talker import LOST
from copilot_operator.rpc.errors import ConnectionLost, RpcError
from tests.unit.plugin.test_turns import event

ANSWER = [event("assistant.message", messageId="m", content="fine"), event("session.idle")]


class Played:
    """A Talker: ``on`` says what a call does, by method; the default is an empty answer."""

    def __init__(self) -> None:
        self.events: queue.Queue[Any] = queue.Queue()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.opened = 0
        self.on: dict[str, Callable[[dict[str, Any]], Any]] = {}

    def open(self) -> None:
        self.opened += 1

    def call(self, method: str, timeout_s: float | None = None, **params: Any) -> Any:
        self.calls.append((method, params))
        found = self.on.get(method)
        return found(params) if found else {}

    def hear(self, *events: dict[str, Any], session: str = "s") -> None:
        for each in events:
            self.events.put((session, each))

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.calls]


@pytest.fixture
def played() -> Played:
    return Played()


def talk(played: Played, decision: Decision = Decision.REFUSED) -> Conversation:
    return Conversation(played, "s", may=lambda _: decision)  # type: ignore[arg-type]


def test_an_answer_is_shown_as_it_comes(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    played.hear(event("session.idle"))  # of before: nobody looked
    pieces = [event("assistant.message_delta", messageId="m", deltaContent=text) for text in ("fi", "ne")]

    def send(_: Any) -> None:
        played.hear(*ANSWER, session="another")
        played.hear(*pieces, *ANSWER)

    played.on["session.send"] = send
    turn = talk(played).turn("how are you", 5)
    assert (turn.answer, capsys.readouterr().out) == ("fine", "fine\n")


def test_ctrl_c_aborts_the_turn_and_waits_for_its_end(played: Played) -> None:
    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    played.on["session.send"] = interrupted
    played.on["session.abort"] = lambda _: played.hear(event("abort"), event("session.idle", aborted=True))
    assert talk(played).turn("sleep", 5).interrupted
    assert played.methods == ["session.send", "session.abort"]
    assert played.events.empty()


def test_a_turn_that_takes_too_long_is_aborted(played: Played) -> None:
    played.on["session.abort"] = lambda _: played.hear(event("session.idle", aborted=True))
    with pytest.raises(PluginError, match=r"took more than 0.05 s and was aborted; --turn-timeout"):
        talk(played).turn("sleep", 0.05)
    assert "session.abort" in played.methods


@pytest.mark.parametrize("decision", list(Decision))
def test_a_tool_that_asks_is_answered(played: Played, decision: Decision) -> None:
    request = {"kind": "shell", "fullCommandText": "ls"}
    asked = event("permission.requested", requestId="r", permissionRequest=request)
    played.on["session.send"] = lambda _: played.hear(asked, event("session.idle"))
    talk(played, decision).turn("list", 5)
    assert played.calls[-1] == (
        "session.permissions.handlePendingPermissionRequest",
        {"sessionId": "s", "requestId": "r", "result": {"kind": decision.value}},
    )


def test_a_connection_that_breaks_in_a_turn_is_made_again_and_the_turn_goes_on(played: Played) -> None:
    played.on["session.send"] = lambda _: played.events.put(("", {"type": LOST}))

    def active(_: Any) -> Any:
        played.hear(*ANSWER)
        return {"hasActiveWork": True}

    played.on["session.metadata.activity"] = active
    assert talk(played).turn("how are you", 5).answer == "fine"
    assert played.opened == 1
    assert played.methods == ["session.send", "session.resume", "session.metadata.activity"]


def test_what_was_answered_meanwhile_is_read_from_what_is_stored(played: Played) -> None:
    stored = [event("user.message", content="how are you"), event("assistant.message", content="fine")]
    played.on["session.send"] = lambda _: played.events.put(("", {"type": LOST}))
    played.on["session.getMessages"] = lambda _: {"events": stored}
    assert talk(played).turn("how are you", 5).answer == "fine"
    stored.pop()
    with pytest.raises(PluginError, match="ended with the connection"):
        talk(played).turn("how are you", 5)


def test_a_message_that_a_broken_connection_did_not_take_is_sent_on_the_next(played: Played) -> None:
    def send(_: Any) -> None:
        if played.methods.count("session.send") == 1:
            raise ConnectionLost("session.send: the connection was closed")
        played.hear(*ANSWER)

    played.on["session.send"] = send
    assert talk(played).turn("how are you", 5).answer == "fine"
    assert played.methods == ["session.send", "session.resume", "session.send"]


def test_who_cannot_come_back_is_told_so(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise PluginError("no pod of it is ready")

    monkeypatch.setattr(played, "open", fail)
    monkeypatch.setattr(conversation, "RECONNECT_S", 0.0)
    played.on["session.send"] = lambda _: played.events.put(("", {"type": LOST}))
    with pytest.raises(PluginError, match="no pod of it is ready"):
        talk(played).turn("how are you", 5)


def test_an_error_of_the_server_is_no_reason_to_send_again(played: Played) -> None:
    def refuse(_: Any) -> None:
        raise RpcError("session.send", -32603, "Session not found")

    played.on["session.send"] = refuse
    with pytest.raises(RpcError):
        talk(played).turn("hi", 5)
    assert played.methods == ["session.send"]
