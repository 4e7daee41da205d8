"""The pinned table says what becomes of a method, and what a schema has that it has not."""

import json
from pathlib import Path

import msgspec
import pytest

from copilot_operator.gateway.rules import methods
from copilot_operator.gateway.rules.methods import (
    Difference,
    Isolation,
    Need,
    Row,
    Scope,
    Table,
    Verdict,
    difference,
    pin,
    reaches_client,
    rule,
    table,
    written,
)

BOTH = [Isolation.SHARED, Isolation.DEDICATED]


@pytest.mark.parametrize("isolation", BOTH)
@pytest.mark.parametrize("method", ["", "session.sendAndWait", "session.create ", "SESSION.SEND", "no.such", "rpc.x"])
def test_what_is_not_in_the_table_is_refused(method: str, isolation: Isolation) -> None:
    found = rule(method, isolation)
    assert found.verdict is Verdict.REFUSE
    assert methods.unhandled(found.method) == (-32601, f"Unhandled method {method}")


def test_isolation_may_be_given_as_the_pool_spells_it() -> None:
    assert rule("session.send", "Shared") == rule("session.send", Isolation.SHARED)
    with pytest.raises(ValueError, match="Private"):
        rule("session.send", "Private")


@pytest.mark.parametrize(
    "method",
    [
        "runtime.shutdown",
        "secrets.addFilterValues",
        "session.shutdown",
        "session.queue.setDrainPaused",
        "session.provider.getEndpoint",
        "session.gitHubAuth.setCredentials",
        "session.remote.enable",
        "session.model.setAllowedModels",
        "session.ui.handlePendingSessionLimitsExhausted",
        "sessions.pruneOld",
        "sessions.releaseLock",
        "sessions.fork",
        "sessions.open",
        "sessions.startRemoteControl",
        "account.getAllUsers",
        "persistence.writeRawJsonLocked",
        "sessionFs.setProvider",
        "llmInference.setProvider",
        "host.start",
    ],
)
def test_what_reaches_beyond_a_tenant_is_refused_everywhere(method: str) -> None:
    assert method in table().methods
    assert [rule(method, isolation).verdict for isolation in BOTH] == [Verdict.REFUSE, Verdict.REFUSE]


@pytest.mark.parametrize(
    ("method", "need"),
    [
        ("session.shell.exec", Need.HOST_TOOLS),
        ("session.tools.execute", Need.HOST_TOOLS),
        ("session.metadata.setWorkingDirectory", Need.HOST_TOOLS),
        ("session.workspaces.diff", Need.HOST_TOOLS),
        ("session.commands.invoke", Need.HOST_TOOLS),
        ("session.permissions.setApproveAll", Need.HOST_TOOLS),
        ("session.mcp.startServer", Need.MCP_SERVERS),
    ],
)
def test_what_reaches_the_host_is_for_dedicated_pools_that_open_it(method: str, need: Need) -> None:
    assert rule(method, "Shared").verdict is Verdict.REFUSE
    assert rule(method, "Dedicated").verdict is Verdict.FORWARD
    assert rule(method, "Dedicated").needs is need


def test_internal_methods_are_refused_unless_the_gateway_answers_them() -> None:
    schema = table().methods
    assert schema["connect"].shared is Verdict.ANSWER
    internal = ["sessions.delete", "session.schedule.add", "session.queue.process", "session.settings.snapshot"]
    for method in internal:
        assert (schema[method].shared, schema[method].dedicated) == (Verdict.REFUSE, Verdict.REFUSE), method


def going_on() -> dict[str, Row]:
    return {name: row for name, row in table().methods.items() if Verdict.FORWARD in (row.shared, row.dedicated)}


def test_a_session_method_that_goes_on_says_where_its_id_stands() -> None:
    assert [name for name, row in going_on().items() if row.scope is Scope.SESSION and "sessionId" not in row.ids] == []
    assert [name for name, row in going_on().items() if row.scope is not Scope.SESSION and "sessionId" in row.ids] == []


def test_every_parameter_that_names_a_session_is_a_place_of_ids() -> None:
    unplaced = {
        (method, name)
        for method, row in going_on().items()
        for name in row.fields or ()
        if "sessionid" in name.lower() and name not in {place.removesuffix("[]") for place in row.ids}
    }
    assert unplaced == set()


def test_a_dedicated_client_may_do_what_a_shared_one_may_and_that_needs_no_opening() -> None:
    shared = {name: row for name, row in going_on().items() if row.shared is Verdict.FORWARD}
    assert [name for name, row in shared.items() if row.needs or row.dedicated is not Verdict.FORWARD] == []


def test_of_the_servers_requests_only_those_about_a_session_reach_a_client() -> None:
    assert reaches_client("hooks.invoke", "Shared")
    assert reaches_client("userInput.request", "Dedicated")
    assert not reaches_client("gitHubToken.getToken", "Shared")
    assert not reaches_client("sessionFs.readFile", "Dedicated")
    assert not reaches_client("no.such", "Dedicated")


# The schema of a CLI against the table

SCHEMA = {
    "server": {"ping": {"rpcMethod": "ping", "params": {"$ref": "#/definitions/Ping"}, "result": None}},
    "session": {
        "plan": {
            "read": {
                "rpcMethod": "session.plan.read",
                "params": {"properties": {"sessionId": {"type": "string"}, "title": {"type": "string"}}},
                "result": {"anyOf": [{"$ref": "#/definitions/Plan"}, {"type": "null"}]},
            }
        }
    },
    "clientSession": {"hooks": {"rpcMethod": "hooks.run", "params": None, "result": None}},
    "definitions": {
        "Ping": {"properties": {"message": {"type": "string", "description": "What comes back."}}},
        "Plan": {"properties": {"content": {"type": "string"}, "next": {"$ref": "#/definitions/Plan"}}},
    },
}
EMPTY = Table("1.0.0", {}, {})


def altered(old: str, new: str) -> dict[str, object]:
    text = json.dumps(SCHEMA)
    assert old in text
    changed: dict[str, object] = json.loads(text.replace(old, new))
    return changed


def pinned() -> Table:
    by_hand = Row(shared=Verdict.FORWARD, dedicated=Verdict.FORWARD)
    known = Row(shared=Verdict.FORWARD, dedicated=Verdict.FORWARD, scope=Scope.SESSION, ids=("sessionId",))
    return pin(SCHEMA, Table("1.0.0", {"by.hand": by_hand, "session.plan.read": known}, {}), "1.0.1")


def test_a_table_pinned_to_a_schema_does_not_differ_from_it() -> None:
    assert not difference(SCHEMA, pinned())


def test_pinning_keeps_verdicts_and_refuses_what_is_new() -> None:
    methods = pinned().methods
    assert methods["by.hand"].shared is Verdict.FORWARD
    assert methods["session.plan.read"].shared is Verdict.FORWARD
    assert methods["session.plan.read"].fields == ("sessionId", "title")
    assert (methods["ping"].shared, methods["ping"].dedicated) == (Verdict.REFUSE, Verdict.REFUSE)
    assert pinned().cli == "1.0.1"


def test_new_and_gone_methods_are_named() -> None:
    renamed = altered('"session.plan.read"', '"session.plan.get"')
    assert difference(renamed, pinned()) == Difference(new=("session.plan.get",), gone=("session.plan.read",))
    assert difference(SCHEMA, EMPTY).new == ("hooks.run", "ping", "session.plan.read")
    assert difference(SCHEMA, EMPTY).lines() == ["new hooks.run", "new ping", "new session.plan.read"]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ('"message"', '"text"', ("ping",)),
        ('"content": {"type": "string"}', '"content": {"type": "integer"}', ("session.plan.read",)),
        ('"title": {"type": "string"}', '"title": {"type": "integer"}', ("session.plan.read",)),
        ("What comes back.", "Said again.", ()),
    ],
)
def test_a_changed_shape_is_named_and_changed_prose_is_not(old: str, new: str, changed: tuple[str, ...]) -> None:
    assert difference(altered(old, new), pinned()) == Difference(changed=changed)


def test_the_file_is_as_the_command_writes_it() -> None:
    assert methods.TABLE.read_bytes() == written(table())
    assert msgspec.json.decode(written(pinned()), type=Table) == pinned()


def test_the_command_fails_when_schema_and_table_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema = tmp_path / "api.schema.json"
    schema.write_text(json.dumps(SCHEMA))
    assert methods.main(["--schema", str(schema)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "new session.plan.read" not in said
    assert {"changed ping", "changed session.plan.read", "new hooks.run", "gone session.send"} <= set(said)
