"""Who of a gateway's members speaks, as an agent answers: with a clock of the test, and no agent."""

import asyncio
from typing import Any

import pytest

from copilot_operator.gateway.locks import Busy, Lease, Told
from copilot_operator.gateway.session.actions import Reply, Request
from copilot_operator.gateway.speakers import MOST_WAITING, QUEUE_S, Speakers, Wish

BUSY = Busy("bob", 3.0, False)


class Agent:
    """A server's agent: asks are answered when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Lease, Told, bool]] = []
        self.released: list[str] = []
        self.renewed: list[str] = []
        self.good_until: float | None = 100.0

    def ask(self, lease: Lease, told: Told, *, waits: bool) -> None:
        self.asked.append((lease, told, waits))

    def release(self, lease: Lease) -> None:
        self.released.append(lease.token)

    async def renew(self, lease: Lease) -> float | None:
        self.renewed.append(lease.token)
        return self.good_until

    def answers(self, answer: float | Busy) -> bool:
        return self.asked[-1][1](answer)


class Server:
    def __init__(self, name: str) -> None:
        self.name, self.locks = name, Agent()


class Stage:
    name, server_id = "team", "code-team"

    def __init__(self) -> None:
        self.queues, self.here, self.busy = True, True, False
        self.server: Any = Server("a")
        self.waits: list[tuple[float, str]] = []

    def home(self) -> Any:
        return self.server

    def works(self) -> bool:
        return self.busy

    def is_here(self, member: str) -> bool:
        return self.here

    def waited(self, seconds: float, refused: str) -> None:
        self.waits.append((seconds, refused))


class Subject:
    def __init__(self) -> None:
        self.now, self.stage = 0.0, Stage()
        self.speakers = Speakers(self.stage, lambda: self.now, lambda work: self.errands.append(work))
        self.errands: list[Any] = []
        self.went: list[Request] = []
        self.refused: list[tuple[Request, Any]] = []

    @property
    def agent(self) -> Agent:
        return self.stage.server.locks  # type: ignore[no-any-return]

    def says(self, member: str = "alice", client: int = 1) -> Request:
        request = Request(client, "session.send", {}, self.now)

        def goes() -> None:
            self.stage.busy = True
            self.went.append(request)

        def refuse(reply: Reply) -> None:
            assert reply.failure
            self.refused.append((request, reply.failure.data["reason"]))

        self.speakers.speak(member, Wish(request, goes, refuse))
        return request


@pytest.fixture
def subject() -> Subject:
    return Subject()


def test_what_is_said_while_one_asks_goes_in_order_and_then_at_once(subject: Subject) -> None:
    said = [subject.says(), subject.says()]
    assert (subject.went, len(subject.agent.asked), subject.speakers.waiting) == ([], 1, 2)
    subject.now = 2.0
    assert not subject.agent.answers(8.0), "it need not ask on"
    assert subject.went == said
    said.append(subject.says())
    assert subject.went == said
    assert subject.stage.waits == [(2.0, ""), (2.0, ""), (0.0, "")]
    subject.now = 8.0
    assert not subject.speakers.may_speak("alice", "a"), "by its own clock it is over"


def test_the_lease_is_given_back_when_the_session_is_idle_and_not_sooner(subject: Subject) -> None:
    subject.says()
    subject.agent.answers(8.0)
    subject.speakers.rested()
    assert subject.agent.released == []
    subject.stage.busy = False
    subject.speakers.rested()
    assert subject.agent.released == [subject.agent.asked[0][0].token]
    subject.says()
    assert subject.agent.asked[1][0].token != subject.agent.asked[0][0].token, "a new one each time"


@pytest.mark.parametrize(
    ("queues", "answer", "reason"),
    [(False, BUSY, "SessionBusy"), (True, Busy("bob", 3.0, True), "QueueFull")],
)
def test_who_is_refused_asks_no_more(subject: Subject, queues: bool, answer: Busy, reason: str) -> None:
    subject.stage.queues = queues
    said = [subject.says(), subject.says()]
    assert not subject.agent.answers(answer)
    assert subject.refused == [(each, reason) for each in said]
    assert subject.speakers.waiting == 0


@pytest.mark.parametrize(("answer", "reason"), [(BUSY, "QueuedTooLong"), (None, "NoServer")])
def test_who_waits_does_so_for_so_long_and_leaves_the_queue(subject: Subject, answer: Busy | None, reason: str) -> None:
    first = subject.says()
    assert answer is None or subject.agent.answers(answer), "it asks on"
    subject.now = 1.0
    second = subject.says()
    subject.now = QUEUE_S
    subject.speakers.sweep()
    assert (subject.refused, subject.agent.released) == ([(first, reason)], [])
    subject.now = QUEUE_S + 1
    subject.speakers.sweep()
    assert subject.refused == [(first, reason), (second, reason)]
    assert subject.agent.released == [subject.agent.asked[0][0].token]


def test_a_client_that_leaves_takes_its_place_in_the_queue_with_it(subject: Subject) -> None:
    subject.says(client=1)
    other = subject.says(client=2)
    subject.speakers.client_gone(1)
    assert subject.agent.released == []
    subject.agent.answers(8.0)
    assert subject.went == [other]
    subject = Subject()
    subject.says(client=1)
    subject.speakers.client_gone(1)
    assert subject.agent.released == [subject.agent.asked[0][0].token]
    assert not subject.agent.answers(8.0), "what comes too late is not for it"
    assert subject.went == []


def test_so_many_requests_of_one_member_wait(subject: Subject) -> None:
    for _ in range(MOST_WAITING):
        subject.says()
    assert subject.refused == []
    late = subject.says()
    assert subject.refused == [(late, "QueueFull")]


async def renewals(subject: Subject) -> None:
    subject.speakers.sweep()
    errands, subject.errands[:] = list(subject.errands), []
    await asyncio.gather(*errands)


async def test_it_is_renewed_while_its_member_is_here_and_a_lost_one_is_no_good(subject: Subject) -> None:
    subject.says()
    subject.agent.answers(8.0)
    await renewals(subject)
    assert len(subject.agent.renewed) == 1
    subject.now = 50.0
    assert subject.speakers.may_speak("alice", "a")
    subject.stage.here = False
    await renewals(subject)
    assert len(subject.agent.renewed) == 1, "it ends by itself, and is not given back while its turn runs"
    assert subject.agent.released == []
    subject.stage.here, subject.agent.good_until = True, None
    await renewals(subject)
    assert not subject.speakers.may_speak("alice", "a")


def test_another_server_has_another_agent(subject: Subject) -> None:
    subject.says()
    subject.stage.server = None
    subject.speakers.sweep()
    assert subject.went == []
    subject.stage.server = Server("b")
    subject.speakers.sweep()
    subject.agent.answers(8.0)
    assert len(subject.went) == 1
    assert subject.speakers.may_speak("alice", "b")
    assert not subject.speakers.may_speak("alice", "a")
