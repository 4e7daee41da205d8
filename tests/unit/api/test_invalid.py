"""Objects that were stored under other rules become an error with facts, and secrets stay out of it."""

import pytest

from copilot_operator.api.invalid import InvalidResource, Problem
from copilot_operator.api.pool import PoolStatus, parse_pool
from copilot_operator.api.tenant import parse_tenant
from tests.unit.api.examples import POOL, TENANT, Object, with_fields


def refusal(fields: Object) -> InvalidResource:
    with pytest.raises(InvalidResource) as refused:
        parse_pool(with_fields(POOL, fields) | {"metadata": {"name": "saas", "namespace": "apps"}})
    return refused.value


def test_the_error_says_which_object_where_what_and_what_instead() -> None:
    error = refusal({"storage.mode": "Pooled", "health.failureThreshold": 0})
    assert (error.kind, error.namespace, error.name) == ("CopilotPool", "apps", "saas")
    assert error.problems == (
        Problem("spec.storage.mode", "Pooled", "write 'PerServer', 'Shared' or 'Ephemeral'"),
        Problem("spec.health.failureThreshold", "0", "write 1 or more"),
    )
    assert (error.path, error.value, error.way_out) == (
        "spec.storage.mode",
        "Pooled",
        "write 'PerServer', 'Shared' or 'Ephemeral'",
    )
    assert str(error) == (
        "CopilotPool apps/saas is invalid: spec.storage.mode: 'Pooled': write 'PerServer', 'Shared' or 'Ephemeral'; "
        "spec.health.failureThreshold: '0': write 1 or more"
    )


def test_positions_in_lists_are_told() -> None:
    error = refusal({"server.env": [{"name": "A", "value": "1"}, {"name": "1A", "value": "1"}]})
    assert error.path == "spec.server.env[1].name"


@pytest.mark.parametrize(
    "fields",
    [
        {"server.env": [{"name": "KEY", "value": "hunter2" * 2000}]},
        {"server.env": [{"name": "KEY", "value": "hunter2", "valueFrom": {}}]},
        {"server.args": ["hunter2" * 200]},
        {"server.args": ["--port=hunter2"]},
        {"server.template.metadata.annotations": {"a": "hunter2" * 1000}},
    ],
)
def test_what_may_be_secret_is_not_told(fields: Object) -> None:
    error = refusal(fields)
    assert "hunter2" not in str(error)
    assert "hunter2" not in repr(error.problems)
    assert error.__cause__ is None


def test_long_values_are_cut() -> None:
    assert len(refusal({"storage.storageClassName": "A" * 200}).value) == 80


def test_fields_of_newer_versions_are_ignored() -> None:
    newer = with_fields(POOL, {"suspend": {"schedule": "0 9 * * *"}, "locking": {"redis": {}}})
    assert parse_pool(newer).spec == parse_pool(POOL).spec


def test_a_status_that_cannot_be_read_does_not_stop_the_object() -> None:
    assert parse_pool(POOL | {"status": {"replicas": "many"}}).status == PoolStatus()
    assert parse_tenant(TENANT | {"status": {"phase": "Sleepy"}}).status.phase is None


def test_a_bad_status_beside_a_bad_spec_is_not_the_users_problem() -> None:
    broken = with_fields(POOL, {"storage.mode": "Pooled"}) | {"status": {"replicas": "many"}}
    with pytest.raises(InvalidResource) as refused:
        parse_pool(broken)
    assert [problem.path for problem in refused.value.problems] == ["spec.storage.mode"]


@pytest.mark.parametrize("spec", [None, {}, [], "text"])
def test_an_object_without_a_spec_is_invalid(spec: object) -> None:
    with pytest.raises(InvalidResource):
        parse_tenant({"metadata": {"name": "alice"}, "spec": spec})
