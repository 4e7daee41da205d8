"""The session machine, scenario by scenario: what comes in, and exactly which actions come out."""

from typing import Any

from copilot_operator.gateway.session import actions as act
from copilot_operator.gateway.session.actions import (
    Action,
    Answer,
    AnswerServer,
    AskClient,
    AskWork,
    Attach,
    Close,
    Failure,
    Forward,
    HandOver,
    Load,
    Release,
    Replay,
    Reply,
    Request,
    Reverse,
    Settle,
    ShowAgain,
    StoredMessage,
    TellClient,
)
from copilot_operator.gateway.session.machine import WATCHED, Bounds, Phase, Session
from copilot_operator.rpc.busy import Standing

TOOLS = [{"name": "get_weather"}]
MADE_WITH: dict[str, Any] = {"sessionId": "x", "model": "m", "tools": TOOLS}
NOT_LOADED = Reply(
    failure=Failure(-32603, "Request session.send failed with message: Session not found for sessionId: x")
)
NOT_STORED = Failure(
    -32603, "Request session.resume failed with message: Failed to load session events: Session not found: x"
)
TAKEN_IN = Reply(result={"messageId": "id-1"})
NO_METHOD = Reply(failure=Failure(-32601, "Method not found"))


def request(client: int, method: str, at: float = 0.0, mark: str = "", **params: Any) -> Request:
    counts = method in ("session.send", "session.history.compact")
    return Request(client, method, {"sessionId": "x"} | params, at, mark, counts)


def send(client: int, mark: str, at: float = 0.0, **params: Any) -> Request:
    return request(client, "session.send", at, mark, prompt="hello", **params)


def loaded(session: Session | None = None) -> Session:
    """A session that client 1 has made on server a."""
    session = session or Session("x")
    session.on_request(request(1, "session.create", **MADE_WITH), 0)
    session.on_loaded("a", Reply(result={}), 0)
    return session


def with_a_turn(begun_at: float | None = 0.0, mark: str = "m1") -> tuple[Session, Request]:
    """... and in which it has a turn that was answered, and begun if ``begun_at``."""
    session, asked = loaded(), send(1, mark)
    session.on_request(asked, 0)
    session.on_reply(asked, Reply(result={"messageId": "id-1"}), 0)
    if begun_at is not None:
        event(session, "user.message", begun_at, source=mark, messageId="id-1")
    return session, asked


def event(session: Session, type: str, now: float, link: int = 1, id: str | None = None, **data: Any) -> list[Action]:
    assert type in WATCHED
    return session.on_event(link, type, id, data, b"frame of " + type.encode(), now)


def joined(session: Session, client: int, **params: Any) -> list[Action]:
    """Another client has resumed it."""
    asked = request(client, "session.resume", **params)
    (forward,) = session.on_request(asked, 0)
    assert isinstance(forward, Forward)
    return session.on_reply(asked, Reply(result={}), 0)


def error_of(actions: list[Action]) -> list[str]:
    """Reasons of the gateway's own error answers."""
    return [each.reply.failure.data["reason"] for each in actions if isinstance(each, Answer) and each.reply.failure]


def told(actions: list[Action]) -> list[tuple[int, str]]:
    return [(each.client, each.type) for each in actions if isinstance(each, TellClient)]


# The ordinary course


def test_create_loads_the_session_and_requests_that_come_early_follow_in_order() -> None:
    session, create, early = Session("x"), request(1, "session.create", **MADE_WITH), send(1, "m1")
    assert session.on_request(create, 0) == [Load(1, "session.create", create.params, by_client=True)]
    assert session.on_request(early, 0) == []
    answer = Reply(result={"sessionId": "x"})
    assert session.on_loaded("a", answer, 1) == [Answer(create, answer), Forward(1, early)]
    assert (session.phase, session.server, session.links) == (Phase.LOADED, "a", frozenset({1}))


def test_a_turn_is_busy_from_the_send_to_session_idle() -> None:
    session, asked = loaded(), send(1, "m1")
    assert not session.busy
    assert session.on_request(asked, 0) == [Forward(1, asked)]
    assert session.busy
    answer = Reply(result={"messageId": "id-1"})
    assert session.on_reply(asked, answer, 0) == [Answer(asked, answer)]
    event(session, "user.message", 0, source="m1", messageId="id-1")
    event(session, "assistant.turn_start", 0)
    assert (session.busy, session.turns) == (True, 1)
    assert event(session, "session.idle", 5) == []
    assert (session.busy, session.turns, session.used_at) == (False, 0, 5)


def test_a_turn_whose_client_has_come_back_by_another_gateway_is_handed_over() -> None:
    session, _ = with_a_turn()
    session.on_client_gone(1, 1)
    assert event(session, "session.resume", 2) == [HandOver(1, "a")]
    assert session.forgotten


def beside_another() -> tuple[Session, Request]:
    """A loaded session of one of two gateways, and a message that its server has."""
    session, asked = loaded(Session("x", Bounds(kept_s=0.25))), send(1, "m1")
    session.on_request(asked, 0)
    assert session.on_reply(asked, TAKEN_IN, 0) == []
    return session, asked


def test_a_send_is_answered_once_another_gateway_keeps_the_session_and_the_next_at_once() -> None:
    session, asked = beside_another()
    assert session.on_kept("other", True) == [Answer(asked, TAKEN_IN)]
    session.on_request(after := send(1, "m2"), 1)
    assert session.on_reply(after, TAKEN_IN, 1) == [Answer(after, TAKEN_IN)]


def test_without_another_gateway_it_is_answered_a_little_later_and_the_next_at_once() -> None:
    session, asked = beside_another()
    assert session.wake_at == 0.25
    assert session.on_time(0.25) == [Answer(asked, TAKEN_IN)]
    session.on_request(after := send(1, "m2"), 1)
    assert session.on_reply(after, TAKEN_IN, 1) == [Answer(after, TAKEN_IN)]


def test_a_turn_that_has_ended_is_answered_at_once() -> None:
    session, asked = beside_another()
    event(session, "user.message", 0, source="m1", messageId="id-1")
    assert event(session, "session.idle", 0.1) == [Answer(asked, TAKEN_IN)]


def test_the_answer_comes_before_the_news_that_its_turn_has_died() -> None:
    session, asked = beside_another()
    event(session, "user.message", -10, source="m1", messageId="id-1")
    actions = session.on_server_lost(0.1)
    assert actions[0] == Answer(asked, TAKEN_IN)
    assert told(actions) == [(1, "session.error"), (1, "session.idle")]


def test_a_gateway_that_lets_go_is_waited_for_again_and_another_changes_nothing() -> None:
    session, _ = beside_another()
    session.on_kept("other", True)
    session.on_kept("third", False)
    assert session.keeper == "other"
    session.on_kept("other", False)
    session.on_request(after := send(1, "m2"), 1)
    assert session.on_reply(after, TAKEN_IN, 1) == []


def test_a_session_that_was_loaded_again_is_not_kept_yet() -> None:
    session, _ = beside_another()
    session.on_kept("other", True)
    event(session, "session.idle", 0.1)
    session.on_server_lost(0.2)
    assert session.keeper is None


def test_a_send_that_came_too_late_for_an_idle_is_not_ended_by_it() -> None:
    session, _ = with_a_turn()
    second = send(1, "m2")
    session.on_request(second, 1)
    event(session, "session.idle", 1)
    assert session.busy, "the idle was said before the second was taken in"
    session.on_reply(second, Reply(result={"messageId": "id-2"}), 1)
    event(session, "user.message", 1, source="m2", messageId="id-2")
    event(session, "session.idle", 2)
    assert not session.busy


def test_a_queued_message_that_was_withdrawn_does_not_keep_the_session_busy() -> None:
    session, _ = with_a_turn()
    second = send(1, "m2")
    session.on_request(second, 1)
    session.on_reply(second, Reply(result={"messageId": "id-2"}), 1)
    assert event(session, "session.idle", 2) == [AskWork(1, 2.5)]
    assert session.on_work(Standing.IDLE, 2.6) == [], "its client has heard the idle"
    assert not session.busy


def test_copies_of_an_event_for_other_owners_count_once() -> None:
    session, _ = with_a_turn()
    joined(session, 2)
    event(session, "session.idle", 1, link=1, id="e1")
    later = send(1, "m2")
    session.on_request(later, 1)
    session.on_reply(later, Reply(result={"messageId": "id-2"}), 1)
    event(session, "user.message", 1, link=1, id="e2", source="m2", messageId="id-2")
    event(session, "session.idle", 1, link=2, id="e1")
    assert session.busy, "the second link lags behind"


def test_a_failed_send_is_no_turn() -> None:
    session, asked = loaded(), send(1, "m1")
    session.on_request(asked, 0)
    failed = Reply(failure=Failure(-32603, "no"))
    assert session.on_reply(asked, failed, 0) == [Answer(asked, failed)]
    assert not session.busy


def test_a_session_never_loaded_is_answered_as_by_the_cli() -> None:
    session, asked = Session("x"), send(1, "m1")
    (answer,) = session.on_request(asked, 0)
    assert isinstance(answer, Answer)
    assert answer.reply == NOT_LOADED
    assert session.forgotten


def test_what_reads_the_disk_needs_no_loaded_session() -> None:
    session, asked = Session("x"), request(1, "sessions.readPersistedEvents")
    assert session.on_request(asked, 0) == [Forward(None, asked)]
    session.on_reply(asked, Reply(result={}), 0)
    assert session.forgotten


def test_a_client_that_owns_nothing_is_served_over_nobodys_connection() -> None:
    session = loaded()
    asked = request(2, "session.getMessages")
    assert session.on_request(asked, 0) == [Forward(None, asked)]
    assert error_of(session.on_request(request(2, "session.tools.set", tools=[]), 0)) == ["NotOwner"]


def test_destroy_by_one_who_owns_nothing_changes_nothing() -> None:
    session, asked = loaded(), request(2, "session.destroy")
    assert session.on_request(asked, 0) == [Answer(asked, Reply(result={"success": False}))]
    assert session.links == {1}


def test_an_idle_session_is_left_as_the_client_says_and_forgotten() -> None:
    session, asked = loaded(), request(1, "session.detach")
    assert session.on_request(asked, 0) == [Forward(1, asked)]
    success = Reply(result={"success": True})
    assert session.on_reply(asked, success, 0) == [Answer(asked, success)]
    assert session.forgotten


def test_a_resume_behind_a_detach_waits_for_it() -> None:
    session, detach, resume = loaded(), request(1, "session.detach"), request(1, "session.resume")
    session.on_request(detach, 0)
    assert session.on_request(resume, 0) == []
    actions = session.on_reply(detach, Reply(result={"success": True}), 0)
    assert actions[1:] == [Load(1, "session.resume", resume.params, by_client=True)]


# Clients that leave


def test_a_busy_session_lingers_until_its_idle_when_the_client_has_gone() -> None:
    session, _ = with_a_turn()
    assert session.on_client_gone(1, 1) == []
    assert (session.lingers, session.links, session.client_of(1)) == (True, frozenset({1}), None)
    assert event(session, "session.idle", 9) == [Release(1)]
    assert session.forgotten


def test_an_idle_session_is_let_go_at_once() -> None:
    session = loaded()
    assert session.on_client_gone(1, 1) == [Release(1)]
    assert session.forgotten


def test_detach_of_a_busy_session_is_answered_and_done_after_its_idle() -> None:
    for how in ("session.detach", "session.destroy"):
        session, _ = with_a_turn()
        asked = request(1, how)
        assert session.on_request(asked, 1) == [Answer(asked, Reply(result={"success": True}))]
        assert session.client_of(1) is None, "it hears nothing of it any more"
        assert event(session, "session.idle", 9) == [Release(1)]


def test_a_link_over_which_an_answer_is_to_come_is_kept_till_then() -> None:
    session, asked = loaded(), request(1, "session.getMessages")
    session.on_request(asked, 0)
    assert session.on_client_gone(1, 1) == []
    answer = Reply(result={})
    assert session.on_reply(asked, answer, 2) == [Answer(asked, answer), Release(1)]
    assert session.forgotten


def test_lingering_ends_at_its_bound() -> None:
    session, _ = with_a_turn()
    session.on_client_gone(1, 100)
    assert session.wake_at == min(100 + Bounds().linger_s, Bounds().silent_s)
    assert session.on_time(100 + Bounds().linger_s - 1) != [Release(1)]
    assert Release(1) in session.on_time(100 + Bounds().linger_s)
    assert session.forgotten


def test_hooks_are_refused_and_people_waited_for_while_nobody_is_there() -> None:
    session, _ = with_a_turn()
    before = Reverse(1, 5, "hooks.invoke", {})
    question = Reverse(1, 6, "userInput.request", {})
    assert session.on_reverse(before, 0) == [AskClient(1, before)]
    assert session.on_reverse(question, 0) == [AskClient(1, question)]
    assert session.on_client_gone(1, 1) == [AnswerServer(before, NO_METHOD)]
    later = Reverse(1, 7, "hooks.invoke", {})
    assert session.on_reverse(later, 2) == [AnswerServer(later, NO_METHOD)]
    later_question = Reverse(1, 8, "userInput.request", {})
    assert session.on_reverse(later_question, 2) == []
    assert session.on_reverse_reply(before, Reply(result={}), 3) == [], "it has its answer"


def test_a_client_that_comes_back_gets_its_link_and_is_told_what_is_open() -> None:
    session, _ = with_a_turn()
    event(session, "permission.requested", 0, requestId="p1")
    event(session, "external_tool.requested", 0, requestId="t1")
    event(session, "permission.requested", 0, requestId="p2")
    event(session, "permission.completed", 0, requestId="p2")
    question = Reverse(1, 6, "userInput.request", {})
    session.on_reverse(question, 0)
    session.on_client_gone(1, 1)
    resume = request(9, "session.resume", tools=TOOLS)
    assert session.on_request(resume, 2) == [Forward(1, resume)]
    assert session.client_of(1) == 9
    answer = Reply(result={})
    assert session.on_reply(resume, answer, 2) == [
        Answer(resume, answer),
        ShowAgain(9, b"frame of permission.requested"),
        ShowAgain(9, b"frame of external_tool.requested"),
        AskClient(9, question),
    ]
    later = send(9, "m2")
    assert session.on_request(later, 3) == [Forward(1, later)]


def test_a_returning_client_whose_resume_is_refused_leaves_the_turn_alone() -> None:
    session, _ = with_a_turn()
    session.on_client_gone(1, 1)
    resume = request(9, "session.resume")
    session.on_request(resume, 2)
    failed = Reply(failure=Failure(-32603, "bad model"))
    assert session.on_reply(resume, failed, 2) == [Answer(resume, failed)]
    assert (session.lingers, session.client_of(1)) == (True, None)


def test_a_send_that_was_held_is_sent_though_its_client_has_gone() -> None:
    session = loaded()
    session.on_server_lost(1)
    first, read = send(1, "m1", at=1), request(1, "session.getMessages", at=1)
    assert session.on_request(first, 1) == [Load(1, "session.resume", MADE_WITH)]
    session.on_request(read, 1)
    session.on_client_gone(1, 2)
    assert session.on_loaded("b", Reply(), 3) == [Forward(1, first)]
    assert session.lingers


# Sessions that are gone


def test_a_request_that_finds_the_session_unloaded_is_sent_again_once() -> None:
    session, asked = loaded(), send(1, "m1")
    session.on_request(asked, 1)
    assert session.on_reply(asked, NOT_LOADED, 1) == [Load(1, "session.resume", MADE_WITH)]
    held = request(1, "session.getMessages", at=1.5)
    assert session.on_request(held, 1.5) == []
    assert session.on_loaded("b", Reply(), 2) == [Forward(1, asked, again=True), Forward(1, held)]
    assert session.server == "b"
    assert session.on_reply(asked, NOT_LOADED, 3) == [Answer(asked, NOT_LOADED)]


def test_each_owner_is_attached_again_and_approve_all_said_again() -> None:
    session = loaded()
    joined(session, 2, tools=[{"name": "other"}])
    approve = request(1, "session.permissions.setApproveAll", enabled=True)
    session.on_request(approve, 0)
    session.on_reply(approve, Reply(result={}), 0)
    session.on_server_lost(1)
    session.on_request(request(2, "session.getMessages", at=1), 1)
    actions = session.on_loaded("b", Reply(), 2)
    assert actions[:2] == [
        Replay(1, "session.permissions.setApproveAll", approve.params),
        Attach(2, {"sessionId": "x", "model": "m", "tools": [{"name": "other"}]}),
    ]


def test_a_switched_model_is_not_put_back() -> None:
    session, switch = loaded(), request(1, "session.model.switchTo", modelId="n")
    session.on_request(switch, 0)
    session.on_reply(switch, Reply(result={}), 0)
    session.on_server_lost(1)
    (load,) = session.on_request(send(1, "m1", at=1), 1)
    assert isinstance(load, Load)
    assert "model" not in load.params


def test_what_was_never_stored_is_made_anew() -> None:
    session, asked = loaded(), send(1, "m1")
    session.on_server_lost(1)
    session.on_request(asked, 1)
    assert session.on_load_failed(NOT_STORED, False, 2) == [Load(1, "session.create", MADE_WITH)]
    assert session.on_loaded("b", Reply(), 3) == [Forward(1, asked)]


def test_what_was_stored_is_never_made_anew() -> None:
    session, _ = with_a_turn()
    event(session, "session.idle", 5)
    session.on_server_lost(6)
    asked = send(1, "m2", at=6)
    session.on_request(asked, 6)
    actions = session.on_load_failed(NOT_STORED, False, 7)
    assert actions[0] == Answer(asked, Reply(failure=NOT_STORED)), "its context would be empty"
    assert not any(isinstance(each, Load) for each in actions)


def test_loading_is_tried_again_until_the_request_has_waited_too_long() -> None:
    session = loaded()
    session.on_server_lost(1)
    asked = send(1, "m1", at=1)
    session.on_request(asked, 1)
    (again,) = session.on_load_failed(Failure(-1, "no server"), True, 2)
    assert isinstance(again, Load)
    assert 2 < again.not_before <= 3
    assert session.wake_at == 51
    assert error_of(session.on_time(51)) == ["HeldTooLong"]
    assert session.on_load_failed(Failure(-1, "no server"), True, 52) == []
    assert session.phase is Phase.UNLOADED


def test_a_create_that_nobody_can_serve_is_answered_too() -> None:
    session, create = Session("x"), request(1, "session.create")
    session.on_request(create, 0)
    session.on_load_failed(Failure(-1, "no server"), True, 1)
    assert error_of(session.on_time(50)) == ["HeldTooLong"]
    assert session.on_loaded("a", Reply(), 51) == [Release(1)], "its client was told that it failed"
    assert session.forgotten


def test_held_requests_are_bounded() -> None:
    session = loaded(Session("x", Bounds(held=2)))
    session.on_server_lost(1)
    assert [error_of(session.on_request(send(1, f"m{n}", at=1), 1)) for n in range(3)] == [[], [], ["TooManyHeld"]]


def test_a_refused_create_is_told_and_the_next_waiting_one_is_tried() -> None:
    session, create, other = Session("x"), request(1, "session.create", model="bad"), request(2, "session.create")
    session.on_request(create, 0)
    session.on_request(other, 0)
    failure = Failure(-32603, "no such model")
    assert session.on_load_failed(failure, False, 1) == [
        Answer(create, Reply(failure=failure)),
        Load(2, "session.create", other.params, by_client=True),
    ]


# Servers that die


def test_a_turn_that_died_with_its_server_is_ended_at_once() -> None:
    session, _ = with_a_turn(begun_at=0)
    actions = session.on_server_lost(10)
    assert told(actions) == [(1, "session.error"), (1, "session.idle")]
    assert (session.phase, session.busy) == (Phase.UNLOADED, False)


def test_a_turn_just_begun_may_not_be_stored_and_is_settled() -> None:
    session, asked = with_a_turn(begun_at=9.9)
    (load,) = session.on_server_lost(10)
    assert load == Load(1, "session.resume", MADE_WITH, not_before=10.5)
    assert session.on_loaded("b", Reply(), 11) == [Settle(1, 0.0)]
    assert session.on_settled([], Standing.IDLE, 12) == [Forward(1, asked, again=True)]
    assert session.on_reply(asked, Reply(result={"messageId": "id-9"}), 12) == [], "it was answered before"
    assert session.busy


def test_a_send_in_doubt_that_is_stored_is_answered_and_not_sent_again() -> None:
    session, asked = loaded(), send(1, "m1")
    session.on_request(asked, 0)
    session.on_server_lost(1)
    session.on_loaded("b", Reply(), 2)
    actions = session.on_settled([StoredMessage("other", "id-0"), StoredMessage("m1", "id-1")], Standing.IDLE, 3)
    assert actions[0] == Answer(asked, Reply(result={"messageId": "id-1"}))
    assert told(actions) == [(1, "session.error"), (1, "session.idle")], "nothing goes on with it"
    assert not session.busy


def test_a_doubt_that_an_event_ends_is_answered_by_it() -> None:
    session, asked = loaded(), send(1, "m1")
    joined(session, 2)
    session.on_request(asked, 0)
    session.on_link_lost(1, 1, "a")
    answer = Answer(asked, Reply(result={"messageId": "id-1"}))
    assert event(session, "user.message", 2, link=2, source="m1", messageId="id-1") == [answer]
    assert session.on_settled([StoredMessage("m1", "id-1")], Standing.BUSY, 3) == []
    assert session.turns == 1


def test_doubts_are_repeated_in_their_order_before_what_waited() -> None:
    session, first = with_a_turn(begun_at=None)
    second = send(1, "m2")
    session.on_request(second, 0)
    session.on_server_lost(1)
    third = send(1, "m3", at=1)
    session.on_request(third, 1)
    session.on_loaded("b", Reply(), 2)
    assert session.on_settled([], Standing.IDLE, 3) == [
        Forward(1, first, again=True),
        Forward(1, second, again=True),
        Forward(1, third),
    ]


def test_a_dead_turn_and_a_queued_one_that_is_repeated() -> None:
    session, _ = with_a_turn(begun_at=0)
    queued = send(1, "m2", at=5)
    session.on_request(queued, 5)
    session.on_reply(queued, Reply(result={"messageId": "id-2"}), 5)
    actions = session.on_server_lost(10)
    assert told(actions) == [(1, "session.error")], "it is not idle: the queued one is still to run"
    session.on_loaded("b", Reply(), 11)
    assert session.on_settled([StoredMessage("m1", "id-1")], Standing.IDLE, 12) == [Forward(1, queued, again=True)]
    event(session, "user.message", 12, source="m2", messageId="id-3")
    assert event(session, "session.idle", 13) == []


def test_what_cannot_be_settled_is_told_and_never_sent() -> None:
    session, _ = with_a_turn(begun_at=None)
    unanswered = send(1, "m2")
    session.on_request(unanswered, 0)
    session.on_server_lost(1)
    for _ in range(20):
        session.on_load_failed(Failure(-1, "no server"), True, 2)
    assert error_of(session.on_time(50)) == ["InDoubt"]
    actions = session.on_time(51)
    assert told(actions) == [(1, "session.error"), (1, "session.idle")]
    assert not any(isinstance(each, Forward) for each in session.on_loaded("b", Reply(), 52))


def test_a_session_closed_while_it_is_settled_is_loaded_once_more() -> None:
    session, asked = with_a_turn(begun_at=None)
    session.on_server_lost(1)
    session.on_loaded("b", Reply(), 2)
    (load,) = session.on_settle_failed(3)
    assert isinstance(load, Load)
    session.on_loaded("b", Reply(), 4)
    assert session.on_settled([], Standing.IDLE, 5) == [Forward(1, asked, again=True)]


def test_a_session_that_cannot_be_asked_is_given_up() -> None:
    session, _ = with_a_turn(begun_at=None)
    actions = session.on_server_lost(1)
    for _ in range(5):
        session.on_loaded("b", Reply(), 2)
        actions = session.on_settle_failed(3)
    assert told(actions) == [(1, "session.error"), (1, "session.idle")]
    assert session.phase is Phase.LOADED


def test_a_turn_that_waits_for_a_permission_outlives_its_server() -> None:
    session, _ = with_a_turn(begun_at=0)
    event(session, "permission.requested", 5, requestId="p1")
    actions = session.on_server_lost(10)
    assert [type(each) for each in actions] == [Load], "nobody is told of an end"
    assert session.on_loaded("b", Reply(), 11) == [Settle(1, 0.0)]
    decision = request(1, "session.permissions.handlePendingPermissionRequest", at=11, requestId="p1")
    assert session.on_request(decision, 11) == []
    assert session.on_settled([StoredMessage("m1", "id-1")], Standing.WAITING, 12) == [Forward(1, decision)]
    assert session.busy


def test_a_question_to_a_person_dies_with_its_server_and_is_not_shown_again() -> None:
    session, _ = with_a_turn(begun_at=0)
    event(session, "user_input.requested", 5, requestId="q1")
    assert told(session.on_server_lost(10)) == [(1, "session.error"), (1, "session.idle")]
    session.on_request(request(1, "session.getMessages", at=11), 11)
    session.on_loaded("b", Reply(), 12)
    assert [type(each) for each in joined(session, 2)] == [Answer, Attach]


def test_who_owned_it_before_is_attached_again_when_another_resumes_it() -> None:
    session = loaded()
    actions = joined(session, 2, tools=[{"name": "other"}])
    assert actions[1:] == [Attach(1, {"sessionId": "x", "tools": TOOLS})], "that resume may have loaded it anew"
    assert [tool["name"] for tool in session.tools] == ["get_weather", "other"]


def test_a_turn_that_waited_for_a_permission_and_did_not_come_back_is_ended() -> None:
    session, _ = with_a_turn(begun_at=0)
    event(session, "permission.requested", 5, requestId="p1")
    session.on_server_lost(10)
    session.on_loaded("b", Reply(), 11)
    actions = session.on_settled([StoredMessage("m1", "id-1")], Standing.IDLE, 12)
    assert told(actions) == [(1, "session.error"), (1, "session.idle")]


def test_requests_in_flight_are_repeated_if_that_is_safe_and_refused_if_not() -> None:
    session = loaded()
    read, write = request(1, "session.getMessages"), request(1, "session.history.rewind")
    session.on_request(read, 0)
    session.on_request(write, 0)
    actions = session.on_server_lost(1)
    assert error_of(actions) == ["ServerLost"]
    assert actions[0].request is write  # type: ignore[union-attr]
    assert session.on_loaded("b", Reply(), 2) == [Forward(1, read, again=True)]


def test_a_lingering_turn_that_died_is_forgotten() -> None:
    session, _ = with_a_turn(begun_at=0)
    session.on_client_gone(1, 5)
    session.on_server_lost(10)
    assert session.forgotten


def test_one_of_two_owners_loses_its_connection_and_the_turn_goes_on() -> None:
    session, _ = with_a_turn(begun_at=0)
    joined(session, 2)
    unanswered = send(1, "m2", at=4)
    session.on_request(unanswered, 4)
    actions = session.on_link_lost(1, 5, "a")
    assert [type(each) for each in actions] == [Attach, Settle]
    assert session.on_settled([StoredMessage("m2", "id-2")], Standing.BUSY, 6) == [
        Answer(unanswered, Reply(result={"messageId": "id-2"}))
    ]
    assert session.turns == 2


def test_a_connection_to_a_server_that_was_left_long_ago_is_no_loss() -> None:
    session, _ = with_a_turn()
    assert session.on_link_lost(1, 5, "z") == []
    assert session.on_server_lost(5, "z") == []
    assert session.phase is Phase.LOADED


def test_a_message_taken_in_and_not_begun_is_asked_after() -> None:
    session, _ = with_a_turn(begun_at=None)
    assert session.wake_at == Bounds().swallowed_s
    assert session.on_time(10) == [AskWork(1, 10.5)]
    assert told(session.on_work(Standing.IDLE, 10.6)) == [(1, "session.error"), (1, "session.idle")]


def test_a_session_closed_behind_our_back_is_noticed_though_no_one_asks_for_it() -> None:
    session, _ = with_a_turn(begun_at=0)
    assert session.wake_at == Bounds().silent_s
    assert session.on_time(60) == [AskWork(1, 60.5)]
    assert told(session.on_work(Standing.NOT_LOADED, 61)) == [(1, "session.error"), (1, "session.idle")]


def test_a_long_silent_turn_goes_on() -> None:
    session, _ = with_a_turn(begun_at=0)
    session.on_time(60)
    assert session.on_work(Standing.BUSY, 61) == []
    assert (session.busy, session.wake_at) == (True, 121)


# Moving


def test_an_idle_session_leaves_a_draining_server_and_comes_back_with_its_next_request() -> None:
    session = loaded()
    assert session.on_draining(1) == [Close("a")]
    asked = send(1, "m1", at=1)
    assert session.on_request(asked, 1) == []
    assert session.on_closed(True, 2) == [Load(1, "session.resume", MADE_WITH)]
    assert session.on_loaded("b", Reply(), 3) == [Forward(1, asked)]
    assert session.on_draining(3) == []
    assert session.phase is Phase.LOADED or session.busy


def test_a_busy_session_leaves_a_draining_server_when_it_is_idle() -> None:
    session, _ = with_a_turn()
    assert session.on_draining(1) == []
    assert session.close(1) == []
    assert event(session, "session.idle", 9) == [Close("a")]


def test_a_close_that_failed_leaves_all_as_it_was() -> None:
    session = loaded()
    session.on_draining(1)
    asked = request(1, "session.getMessages", at=1)
    session.on_request(asked, 1)
    assert session.on_closed(False, 2) == [Attach(1, MADE_WITH), Forward(1, asked)]


def test_an_unloaded_session_is_left_without_being_loaded() -> None:
    session = loaded()
    session.close(1)
    session.on_closed(True, 2)
    asked = request(1, "session.destroy")
    assert session.on_request(asked, 3) == [Answer(asked, Reply(result={"success": True}))]
    assert session.forgotten


def test_deleting_a_session_ends_the_turns_of_others_aloud() -> None:
    session, _ = with_a_turn()
    joined(session, 2)
    delete = request(2, "session.delete")
    assert session.on_request(delete, 1) == [Forward(2, delete)]
    actions = session.on_reply(delete, Reply(result={"success": True}), 2)
    assert told(actions) == [(1, "session.error"), (2, "session.error"), (1, "session.idle"), (2, "session.idle")]
    assert session.forgotten


def test_one_that_is_told_of_its_end_before_its_deletion_is_answered_does_not_come_back() -> None:
    """As copilot-runtime does; a turn that waits for a permission would have it loaded again."""
    session, _ = with_a_turn(begun_at=0)
    event(session, "permission.requested", 1, requestId="p1")
    delete = request(1, "session.delete")
    session.on_request(delete, 2)
    assert event(session, "session.shutdown", 3) == []
    actions = session.on_reply(delete, Reply(result={"success": True}), 4)
    assert not [each for each in actions if isinstance(each, Load)]
    assert told(actions) == [(1, "session.error"), (1, "session.idle")]
    assert session.forgotten


def test_a_delete_that_failed_changes_nothing() -> None:
    session, _ = with_a_turn()
    delete = request(1, "session.delete")
    session.on_request(delete, 1)
    session.on_reply(delete, Reply(result={"success": False, "error": "in use"}), 2)
    assert (session.busy, session.links) == (True, frozenset({1}))


# What is never shown


def test_no_parameter_and_no_frame_is_in_a_repr() -> None:
    secret = {"provider": {"apiKey": "sk-secret"}, "prompt": "sk-secret"}
    asked = Request(1, "session.create", secret, 0.0, handle="sk-secret")
    shown = [
        asked,
        Load(1, "session.create", secret),
        Attach(1, secret),
        Replay(1, "m", secret),
        ShowAgain(1, b"sk-secret"),
        Answer(asked, Reply(result=secret, raw=b"sk-secret")),
        act.AskClient(1, Reverse(1, 1, "m", secret)),
    ]
    assert "sk-secret" not in repr(shown)


# Turns that another gateway's client began


def resumed() -> Session:
    """A session that this gateway knew nothing of, and client 1 has resumed."""
    session = Session("x")
    session.on_request(request(1, "session.resume", tools=TOOLS), 0)
    session.on_loaded("a", Reply(result={}), 0)
    return session


def test_a_turn_found_in_a_resumed_session_outlives_the_client_that_resumed_it() -> None:
    session = resumed()
    assert session.wake_at == 0, "whether it works is asked at once"
    assert session.on_time(0) == [AskWork(1, 0.5)]
    assert session.on_work(Standing.BUSY, 1) == []
    assert session.on_client_gone(1, 2) == []
    assert session.lingers
    assert event(session, "session.idle", 9) == [Release(1)]


def test_a_client_that_leaves_before_it_is_known_whether_the_session_works_ends_no_turn() -> None:
    session, leave = resumed(), request(1, "session.detach")
    session.on_time(0)
    assert session.on_request(leave, 0.1) == [Answer(leave, Reply(result={"success": True}))]
    assert session.on_work(Standing.IDLE, 1) == [Release(1)]
    assert session.forgotten


def test_an_idle_that_was_heard_is_not_undone_by_an_older_answer() -> None:
    session = resumed()
    session.on_time(0)
    event(session, "session.idle", 0.2)
    session.on_work(Standing.BUSY, 0.6)
    assert not session.busy
