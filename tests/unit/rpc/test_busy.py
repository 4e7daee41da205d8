"""Who is busy: one table, and the rule that unknown is busy."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.rpc.busy import Answer, Count, Evidence, Standing, Work, count, standing, work
from copilot_operator.rpc.errors import RpcError, ServerSilent

ACTIVE: Any = {"abortable": True, "hasActiveWork": True}
RESTING: Any = {"abortable": False, "hasActiveWork": False}
NO_TASKS: Any = {"tasks": []}
NO_QUEUE: Any = {"items": [], "steeringMessages": []}
PENDING: Any = {"items": [{"requestId": "r"}]}
NOT_LOADED = RpcError("m", -32603, "Request m failed with message: Session not found for sessionId: x")
BROKEN = RpcError("m", -32603, "Request m failed with message: something else")
SILENT = ServerSilent("m", 2)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        pytest.param(Evidence(NOT_LOADED), Standing.NOT_LOADED, id="not loaded"),
        pytest.param(Evidence(RESTING, NOT_LOADED), Standing.NOT_LOADED, id="unloaded between two questions"),
        pytest.param(Evidence(RESTING, NO_TASKS, NO_QUEUE), Standing.IDLE, id="nothing to do"),
        pytest.param(Evidence(ACTIVE), Standing.BUSY, id="a turn runs"),
        pytest.param(
            Evidence(RESTING, {"tasks": [{"status": "running"}]}, NO_QUEUE), Standing.BUSY, id="background shell"
        ),
        pytest.param(
            Evidence(RESTING, {"tasks": [{"status": "completed"}]}, NO_QUEUE), Standing.IDLE, id="shell has ended"
        ),
        pytest.param(Evidence(RESTING, {"tasks": [{}]}, NO_QUEUE), Standing.BUSY, id="task does not say"),
        pytest.param(
            Evidence(RESTING, NO_TASKS, {"items": [{}], "steeringMessages": []}), Standing.BUSY, id="message queued"
        ),
        pytest.param(
            Evidence(RESTING, NO_TASKS, {"items": [], "steeringMessages": ["x"]}), Standing.BUSY, id="steering queued"
        ),
        pytest.param(Evidence(ACTIVE, permissions=PENDING), Standing.WAITING, id="waits for a permission"),
        pytest.param(Evidence(ACTIVE, tools=PENDING), Standing.WAITING, id="waits for a client's tool"),
        pytest.param(Evidence(ACTIVE, permissions=SILENT, tools=SILENT), Standing.BUSY, id="waiting not known"),
        pytest.param(Evidence(SILENT), Standing.UNCOUNTED, id="silent"),
        pytest.param(Evidence(BROKEN), Standing.UNCOUNTED, id="another error"),
        pytest.param(Evidence({"hasActiveWork": "yes"}), Standing.UNCOUNTED, id="answer of another shape"),
        pytest.param(Evidence(RESTING, SILENT, NO_QUEUE), Standing.UNCOUNTED, id="tasks silent"),
        pytest.param(Evidence(RESTING, NO_TASKS, BROKEN), Standing.UNCOUNTED, id="queue broken"),
        pytest.param(Evidence(RESTING), Standing.UNCOUNTED, id="not asked"),
    ],
)
def test_standing(evidence: Evidence, expected: Standing) -> None:
    assert standing(evidence) is expected


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        pytest.param(Evidence(ACTIVE, {"tasks": [{"status": "running"}]}), Work.TURN, id="a turn and its tool"),
        pytest.param(Evidence(RESTING, {"tasks": [{}]}, NO_QUEUE), Work.TASK, id="background shell"),
        pytest.param(Evidence(RESTING, NO_TASKS, {"items": [{}]}), Work.QUEUED, id="message queued"),
        pytest.param(Evidence(ACTIVE, permissions=PENDING), Work.WAITING, id="waits"),
        pytest.param(Evidence(SILENT), Work.UNKNOWN, id="silent"),
    ],
)
def test_what_keeps_a_session_busy(evidence: Evidence, expected: Work) -> None:
    assert work(evidence) is expected


answers: st.SearchStrategy[Answer] = st.sampled_from(
    [None, ACTIVE, RESTING, NO_TASKS, NO_QUEUE, PENDING, BROKEN, SILENT, {"tasks": None}, {"hasActiveWork": None}]
)


@given(st.builds(Evidence, answers, answers, answers, answers, answers))
def test_idle_is_said_only_when_all_three_questions_were_answered(evidence: Evidence) -> None:
    if standing(evidence) is Standing.IDLE:
        assert (evidence.activity, evidence.tasks, evidence.queue) == (RESTING, NO_TASKS, NO_QUEUE)


@given(st.builds(Evidence, answers, answers, answers, answers, answers))
def test_each_busy_session_and_no_other_is_kept_so_by_something(evidence: Evidence) -> None:
    assert (work(evidence) is not None) == standing(evidence).is_busy


def test_busy_contains_waiting_and_uncounted() -> None:
    each_once = list(Standing)
    assert count(each_once) == Count(loaded=4, busy=3, waiting=1, uncounted=1)
    assert count([]) == Count(0, 0, 0, 0)
