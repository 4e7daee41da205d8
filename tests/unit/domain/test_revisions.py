"""Revisions: what people wrote about servers, kept and read again, and which of them a server gets."""

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.domain.desired.deployment import changed_intent, deployment
from copilot_operator.domain.drain import Intent, Why
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.revisions import (
    Course,
    Revision,
    as_manifest,
    course_of,
    data_of,
    read,
    revision_for,
    view_of,
    wanted_revision,
    was_ready,
)
from tests.support.snapshots import NOW, Fields, a_pool, a_pool_object, a_snapshot, pool_spec

NEW: Fields = {"server.image": "cli:2"}
NEWER: Fields = {"server.image": "cli:3"}


def a_revision(fields: Fields | None = None, *, number: int = 1, proven: bool = False, restarted: str = "") -> Revision:
    return replace(wanted_revision("saas", pool_spec(fields), restarted, number), proven=proven)


def course(fields: Fields | None, status: dict[str, Any], *stored: Revision) -> Course:
    return course_of("saas", pool_spec(fields), "", status, stored)


OLD = a_revision()
STATUS = {"currentRevision": OLD.name, "updateRevision": OLD.name}
IMAGES = st.sampled_from(["cli:1", "registry.example.com/cli@sha256:0"])
MORE: dict[str, Any] = {
    "logLevel": st.sampled_from(["info", "debug"]),
    "args": st.lists(st.sampled_from(["--x", "--y=1"]), max_size=2),
    "env": st.lists(st.just({"name": "A", "value": "b"}), max_size=1),
    "template": st.sampled_from(
        [
            {},
            {"metadata": {"labels": {"team": "a"}}, "spec": {"nodeSelector": {"disk": "fast"}}},
            {"spec": {"tolerations": [{"key": "gpu", "operator": "Exists"}], "priorityClassName": "high"}},
        ]
    ),
    "resources": st.sampled_from([{}, {"limits": {"memory": "3Gi"}}, {"requests": {"cpu": "0.5", "memory": "512Mi"}}]),
}


@given(st.fixed_dictionaries({"image": IMAGES}, optional=MORE), st.sampled_from(["30m", "1h"]), st.booleans())
def test_what_is_kept_is_read_again_and_renders_the_same(server: dict[str, Any], idle: str, restarted: bool) -> None:
    fields = {"server": server, "sessions.idleTimeout": idle}
    pool = a_pool_object(fields=fields)
    made = a_revision(fields, restarted="now" if restarted else "")
    found = read(json.loads(json.dumps(as_manifest(pool, made))))
    assert found == made
    before = a_snapshot(pool=a_pool(fields, restarted_at=made.restarted_at))
    after = replace(before, pool=view_of(pool_spec(fields), False, Course(found, found), found))
    wanted = deployment(after)
    assert wanted["spec"] == deployment(before)["spec"]
    assert annotations_of(wanted)["copilot-operator.io/pool-revision"] == made.name


def test_only_what_servers_are_made_from_counts() -> None:
    fields: Fields
    for fields in ({"drain.timeout": "1m"}, {"update.maxUnavailable": "3"}, {"storage.size": "20Gi"}):
        assert a_revision(fields).name == OLD.name
    for fields in (NEW, {"server.logLevel": "debug"}, {"sessions.idleTimeout": "1h"}):
        assert a_revision(fields).name != OLD.name
    assert a_revision(restarted="now").name != OLD.name


def test_the_name_of_a_revision_does_not_restart_servers() -> None:
    """A newer operator may name them otherwise."""
    snapshot = a_snapshot(pool=view_of(pool_spec(), False, Course(OLD, OLD), OLD))
    other = a_snapshot(pool=view_of(pool_spec(), False, Course(OLD, OLD), replace(OLD, name="copilotpool-saas-x")))
    before, after = deployment(snapshot), deployment(other)
    assert changed_intent(before, after) == []
    applied = "copilot-operator.io/applied-hash"
    assert annotations_of(before)[applied] == annotations_of(after)[applied]


def test_a_revision_of_another_operator_is_recognised_by_what_it_says() -> None:
    """With its own name, and with fields and defaults of its time left out."""
    manifest = as_manifest(a_pool_object(), OLD)
    manifest["metadata"]["name"] = "copilotpool-saas-named-otherwise"
    manifest["data"] = {"server": {"image": OLD.server.image, "future": 1}, "sessions": {}}
    stored = read(manifest)
    assert stored
    found = course(None, {"currentRevision": stored.name}, stored)
    assert (found.update, found.rolling) == (stored, False)


@pytest.mark.parametrize("data", [None, {}, {"server": {}}, {"server": {"image": ""}, "sessions": {}}, {"server": 1}])
def test_a_revision_that_cannot_be_read_is_none(data: Any) -> None:
    assert read(as_manifest(a_pool_object(), OLD) | {"data": data}) is None


def test_a_new_pool_is_where_it_wants_to_be() -> None:
    found = course(None, {})
    assert (found.update, found.current, found.rolling) == (OLD, OLD, False)


def test_a_changed_pool_is_on_its_way_with_a_way_back() -> None:
    found = course(NEW, STATUS, OLD)
    assert (found.current, found.target.server.image, found.rolling) == (OLD, "cli:2", True)
    assert found.update.number == 2


def test_a_failed_revision_is_not_tried_again_until_people_want_something_else() -> None:
    bad = a_revision(NEW, number=2)
    status = STATUS | {"updateRevision": bad.name, "failedRevision": {"revision": bad.name}}
    assert course(NEW, status, OLD, bad).target == OLD
    assert not course(NEW, status, OLD, bad).rolling
    assert course(NEWER, status, OLD, bad).target.server.image == "cli:3"
    assert course(NEW, status, bad).target == bad, "there is nothing to go back to"
    again = course_of("saas", pool_spec(NEW), "now", status, (OLD, bad))
    assert (again.target.server.image, again.rolling) == ("cli:2", True), "restarted-at is a new wish"


def test_wishes_that_change_on_the_way_go_back_no_further_than_what_worked() -> None:
    first = a_revision(NEW, number=2)
    status = STATUS | {"updateRevision": first.name}
    assert course(NEWER, status, OLD, first).current == OLD
    proven = replace(first, proven=True)
    assert course(NEWER, status, OLD, proven).current == proven
    back = course(None, status, OLD, proven)
    assert (back.update, back.current, back.rolling) == (OLD, proven, True)


def running(replicas: int = 1, intent: Why | None = None) -> Manifest:
    annotations = Intent(intent, NOW, NOW).annotations() if intent else {}
    return {"metadata": {"annotations": annotations}, "spec": {"replicas": replicas}}


def test_what_a_server_starts_from_while_nobody_knows_whether_the_new_revision_works() -> None:
    found = course(NEW, STATUS, OLD)
    for live, admitted, image in (
        (None, False, OLD.server.image),
        (running(0), False, OLD.server.image),
        (running(0), True, "cli:2"),
        (None, True, "cli:2"),
        (running(0, Why.UPDATE), False, "cli:2"),
        (running(0, Why.SUSPENSION), False, OLD.server.image),
        (running(1), False, "cli:2"),  # compared with it: it wants a turn
    ):
        assert revision_for(found, live, admitted).server.image == image, (live, admitted)
    proven = replace(found, update=replace(found.update, proven=True))
    assert revision_for(proven, None, False) == proven.update
    assert revision_for(replace(found, rolling=False, failed=True), running(1), True) == OLD


def test_a_deployment_remembers_that_its_server_was_ready() -> None:
    def a(replicas: int = 1, seen: int = 2, reason: str = "NewReplicaSetAvailable", ready: int = 0) -> Manifest:
        message = 'ReplicaSet "copilot-ann-2" has successfully progressed.'
        conditions = [{"type": "Progressing", "status": "True", "reason": reason, "message": message}]
        status = {"observedGeneration": seen, "readyReplicas": ready, "conditions": conditions}
        return {"metadata": {"generation": 2}, "spec": {"replicas": replicas}, "status": status}

    def of(*names: str) -> Callable[[], Collection[str]]:
        return lambda: names

    own = of("copilot-ann-2")
    assert was_ready(a(), own)
    assert was_ready(a(reason="ReplicaSetUpdated", ready=1), own)
    assert not was_ready(a(reason="ReplicaSetUpdated"), own)
    assert not was_ready(a(seen=1), own), "the controller speaks of another template"
    assert not was_ready(a(replicas=0), own), "none of none is available"
    assert not was_ready(a(), of("copilot-ann-3")), "it still speaks of the ReplicaSet before this one"
    assert not was_ready(a(), of()), "of which one is not known"


def test_data_is_in_the_words_of_the_pool() -> None:
    assert data_of(a_revision({"sessions.idleTimeout": "1h"}, restarted="now")) == {
        "server": data_of(OLD)["server"],
        "sessions": {"idleTimeout": "1h"},
        "restartedAt": "now",
    }
    assert data_of(OLD)["server"]["image"] == OLD.server.image
