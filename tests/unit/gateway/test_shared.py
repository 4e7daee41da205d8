"""What a tenant may do in a session that it shares with others, by rule; and what its gateway is told of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.gateway.config import NO_CREDENTIAL, Config, ConfigError
from copilot_operator.gateway.locks import Busy
from copilot_operator.gateway.rules.methods import Isolation, served
from copilot_operator.gateway.rules.policy import Refused
from copilot_operator.gateway.rules.shared import Manner, decided, joining, manner, why_refused
from copilot_operator.gateway.speakers import refusal
from tests.support.gateway import sha256


def test_every_method_of_a_session_has_a_manner() -> None:
    of_sessions = {method for method, rule in served(Isolation.SHARED).items() if rule.is_of_session}
    assert decided() == of_sessions


def test_what_asks_a_model_needs_the_lock_and_what_is_not_known_is_refused() -> None:
    for method, rule in served(Isolation.SHARED).items():
        assert not rule.counts_as_turn or manner(method) is Manner.SPEAKS, method
    assert manner("session.new") is Manner.REFUSED
    assert manner("session.abort") is Manner.TENDS
    assert manner("session.getMessages") is Manner.READS
    assert "spec.shared.sharedSessions" in why_refused("session.delete", "team")


def test_to_join_changes_nothing_for_the_others_and_who_makes_it_chooses_its_model() -> None:
    given = {
        "sessionId": "team", "model": "m", "reasoningEffort": "high", "streaming": False, "requestPermission": True,
        "tools": [], "hooks": False, "systemMessage": None, "availableTools": ["x"], "clientName": "app",
    }  # fmt: skip
    joins, first = joining(given)
    said = {"sessionId": "team", "streaming": True, "requestPermission": True}
    assert joins == said | {"disableResume": True, "continuePendingWork": True}
    assert first == said | {"model": "m", "reasoningEffort": "high"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tools": [{"name": "x"}]}, "tools: is of one client, and the session is shared by several; leave it out"),
        ({"requestUserInput": True}, "requestUserInput true: is of one client"),
        ({"provider": {"apiKey": "k"}}, "provider: shared sessions run on the pool's credential; leave it out"),
        ({"gitHubToken": "gho_secret"}, "gitHubToken: shared sessions run on the pool's credential; leave it out"),
        ({"model": 7}, "model 7: expected a string"),
    ],
)
def test_what_is_of_one_client_is_refused_by_its_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as refused:
        joining({"sessionId": "team"} | given)
    assert said in refused.value.message
    assert "secret" not in refused.value.message


def test_who_may_not_speak_is_told_who_does_and_when_to_try_again() -> None:
    failure = refusal("team", Busy("alice", 3.0, False), "SessionBusy").failure
    assert failure is not None
    assert failure.message == f"alice speaks in session team since {failure.data['since']}; try again in 5 s"
    assert failure.data | {"since": ""} == {
        "reason": "SessionBusy", "holder": "alice", "since": "", "retryAfterSeconds": 5,
    }  # fmt: skip
    unknown = refusal("team", Busy("", 3.0, False), "QueuedTooLong").failure
    assert unknown is not None
    assert unknown.message.startswith("somebody speaks in session team since ")
    assert "this has waited for 40 s" in unknown.message
    assert unknown.data["holder"] is None


def files(directory: Path, pool: dict[str, Any], **tenant: Any) -> Path:
    contents = {
        "pool.json": {"isolation": "Shared"} | pool,
        "servers.json": {"b": {"state": "Stopped", "token": None}, "a": {"state": "Stopped", "token": None}},
        "tenants.json": {sha256("alice"): {"name": "alice", "code": "code-a-"} | tenant},
    }
    for name, content in contents.items():
        (directory / name).write_text(json.dumps(content))
    return directory


TEAM = {"name": "team", "code": "code-s-", "queues": True}


def test_a_shared_session_is_a_tenant_on_the_pools_credential_whose_homes_may_be_any(tmp_path: Path) -> None:
    pool = {"sharedSessions": [TEAM], "credential": {"gitHubToken": "gho_x"}}
    config = Config.read(files(tmp_path, pool, shares=["team", "one-that-is-not-known-yet"]))
    (session,) = config.shared
    room = config.room(session)
    assert (room.name, room.code, room.homes, room.refusal) == ("shared/team", "code-s-", ("a", "b"), "")
    assert room.credential is not None
    assert config.tenants[sha256("alice")].shares == ("team", "one-that-is-not-known-yet")


def test_without_a_credential_of_the_pool_it_is_refused(tmp_path: Path) -> None:
    config = Config.read(files(tmp_path, {"sharedSessions": [TEAM]}))
    assert config.room(config.shared[0]).refusal == NO_CREDENTIAL


@pytest.mark.parametrize(
    ("sessions", "said"),
    [
        ([TEAM, TEAM], "a name occurs twice"),
        ([TEAM, TEAM | {"name": "other"}], "two have one code"),
        ([TEAM | {"code": "code-a-"}], "its code is also that of tenant (shared session team)"),
        ([TEAM | {"code": "code-"}], "the code of the one begins with the code of the other"),
        ([TEAM | {"name": "a/b"}], "sharedSessions[0].name"),
    ],
)
def test_a_wrong_configuration_is_told(tmp_path: Path, sessions: list[Any], said: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        Config.read(files(tmp_path, {"sharedSessions": sessions}))
    assert said in str(wrong.value)
