"""What the last event of a session tells of the GitHub token, and whom it is told of."""

from typing import Any

import pytest

from copilot_operator.agent.paid import latest, verdict
from copilot_operator.agent.settings import Settings

AT = "2026-11-26T22:49:05.522Z"


def event(type: str, **data: Any) -> dict[str, Any]:
    return {"type": type, "timestamp": AT, "data": data}


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        (event("session.error", statusCode=401, errorType="authorization", remediation="sign_in"), True),
        (event("session.error", statusCode=401), True),
        (event("session.error", statusCode=401, errorType="authentication"), None),  # of a client's own provider
        (event("session.error", statusCode=403, errorType="authorization"), None),
        (event("session.error", errorType="query"), None),
        (event("assistant.message", providerId="copilot", content="hi"), False),
        (event("assistant.message", content="hi"), None),  # by a client's own provider
        (event("user.message", statusCode=401), None),
        ({"type": "session.error", "data": "401"}, None),
        ("nonsense", None),
        (None, None),
    ],
)
def test_who_was_refused_what(given: Any, refused: bool | None) -> None:
    assert verdict(given) == (None if refused is None else (AT, refused))


def test_behind_a_gateway_the_agent_leaves_it_to_that() -> None:
    assert not Settings.from_environment({}).behind_gateway
    assert Settings.from_environment({"COPILOT_AGENT_PERSISTENCE": "Persistent"}).behind_gateway


def test_the_latest_counts_whichever_way_round_they_come() -> None:
    before = event("session.error", statusCode=401) | {"timestamp": "2026-11-26T22:49:04.999Z"}
    after, nothing = event("assistant.message", providerId="copilot"), event("session.shutdown")
    assert latest([before, after, nothing]) == latest([nothing, after, before]) == (AT, False)
    assert latest([nothing]) is latest([]) is latest(None) is None
