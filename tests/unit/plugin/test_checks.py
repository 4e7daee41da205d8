"""What ``doctor`` finds in documents."""

import base64
from typing import Any

import pytest

from copilot_operator.api.crd import RESOURCES, definition
from copilot_operator.plugin import checks
from copilot_operator.plugin.checks import RIGHTS, Check, Level
from copilot_operator.plugin.errors import KubectlError
from tests.unit.plugin.documents import NOW, pool, ready, tenant

FORBIDDEN = KubectlError("kubectl get", "Forbidden", "you may not")


def levels(found: Any) -> list[Level]:
    return [each.level for each in found]


@pytest.mark.parametrize(
    ("version", "level"), [("v1.36.3", Level.OK), ("v1.30.0", Level.OK), ("v1.29.9-eks", Level.FAIL)]
)
def test_the_api_server_must_be_new_enough(version: str, level: Level) -> None:
    assert checks.version({"gitVersion": version}).level is level


def test_an_api_server_that_does_not_answer_is_a_failure_with_a_way_out() -> None:
    found = checks.version(KubectlError("kubectl get --raw /version", "", "connection refused"))
    assert found.level is Level.FAIL
    assert "cluster-info" in found.way_out


def crd(place: int) -> dict[str, Any]:
    return definition(RESOURCES[place]) | {"status": {"conditions": [{"type": "Established", "status": "True"}]}}


def test_crds_are_there_established_and_of_this_version() -> None:
    good = {"CopilotPool": crd(0), "CopilotTenant": crd(1)}
    assert levels(checks.crds(good)) == [Level.OK, Level.OK]
    other = crd(1)
    del other["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["suspended"]
    assert levels(checks.crds({"CopilotPool": None, "CopilotTenant": other})) == [Level.FAIL, Level.WARN]
    old, starting = crd(0), crd(1)
    old["spec"]["versions"][0]["name"] = "v1alpha0"
    starting["status"] = {}
    assert levels(checks.crds({"CopilotPool": old, "CopilotTenant": starting})) == [Level.FAIL, Level.FAIL]
    assert levels(checks.crds({"CopilotPool": FORBIDDEN, "CopilotTenant": crd(1)})) == [Level.WARN, Level.OK]


def operator(ready: int, replicas: int = 2) -> dict[str, Any]:
    containers = [{"image": "operator:1"}]
    return {
        "metadata": {"namespace": "system", "name": "copilot-operator"},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": containers}}},
        "status": {"readyReplicas": ready},
    }


def test_the_operator_runs_once_and_from_which_image() -> None:
    (good,) = checks.operator([operator(2)])
    assert good == Check("operator", Level.OK, "system/copilot-operator: 2 of 2 ready, image operator:1")
    assert levels(checks.operator([operator(1)])) == [Level.WARN]
    assert levels(checks.operator([operator(0)])) == [Level.FAIL]
    (resting,) = checks.operator([operator(0, 0)])
    assert "scale deploy" in resting.way_out
    assert levels(checks.operator([])) == [Level.FAIL]
    assert levels(checks.operator([operator(2), operator(2)]))[-1] is Level.WARN


def serving(namespaces: str) -> dict[str, Any]:
    found = operator(2)
    (container,) = found["spec"]["template"]["spec"]["containers"]
    container["env"] = [{"name": "COPILOT_OPERATOR_WATCH_NAMESPACES", "value": namespaces}]
    return found


@pytest.mark.parametrize(
    ("lists", "meet"), [(("a,b", "c"), ""), (("a,b", "b,c"), "namespace b"), (("a", ""), "all namespaces")]
)
def test_installations_with_namespaces_of_their_own_are_no_trouble(lists: tuple[str, str], meet: str) -> None:
    found = list(checks.operator([serving(each) for each in lists]))
    assert levels(found[:2]) == [Level.OK, Level.OK]
    assert [each.found for each in found[2:]] == ([f"2 installations serve {meet}"] if meet else [])


def test_a_right_that_is_missing_is_named_with_what_needs_it() -> None:
    reviews = [{"status": {"allowed": True}} for _ in RIGHTS]
    assert levels(checks.rights(reviews, "namespace team")) == [Level.OK]
    reviews[next(place for place, right in enumerate(RIGHTS) if right.subresource == "portforward")] = {"status": {}}
    (found,) = checks.rights(reviews, "namespace team")
    assert (found.level, found.found) == (Level.WARN, "you may not create pods/portforward in namespace team")
    assert found.way_out == "Needed for: connect, chat, sessions"
    asked = RIGHTS[0].review("team")["spec"]["resourceAttributes"]
    assert asked == {"verb": "get", "group": "copilot-operator.io", "resource": "copilotpools", "namespace": "team"}


def storage_class(name: str, *, default: bool = False) -> dict[str, Any]:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {"metadata": {"name": name, "annotations": annotations}}


def test_there_is_a_class_for_every_pool() -> None:
    assert levels(checks.storage([storage_class("a", default=True)], [pool()])) == [Level.OK]
    assert levels(checks.storage([], [pool()])) == [Level.FAIL]
    named = pool()
    named["spec"]["storage"] = {"storageClassName": "fast"}
    assert levels(checks.storage([storage_class("fast")], [named])) == [Level.WARN]
    without = pool() | {"spec": {"storage": {"mode": "Ephemeral"}}}
    assert levels(checks.storage([], [without])) == [Level.WARN], "its servers need no class"
    assert levels(checks.storage([storage_class("a", default=True)], [named])) == [Level.FAIL, Level.OK]
    both = [storage_class("a", default=True), storage_class("b", default=True)]
    assert levels(checks.storage(both, [])) == [Level.WARN]


def test_volumes_that_are_not_bound_are_named() -> None:
    def claim(phase: str) -> dict[str, Any]:
        spec = {"accessModes": ["ReadWriteOnce"]}
        return {"metadata": {"namespace": "team", "name": "copilot-a"}, "spec": spec, "status": {"phase": phase}}

    assert levels(checks.claims([claim("Bound")])) == [Level.OK, Level.OK]
    assert levels(checks.claims([claim("Pending"), claim("Lost")])) == [Level.WARN, Level.FAIL]
    assert levels(checks.claims([])) == []


def test_secrets_are_there_labelled_and_have_the_key_and_no_value_is_told() -> None:
    named = checks.references(
        [tenant("ann", ready(), spec={"auth": {"gitHub": {"tokenSecretRef": {"name": "s", "key": "k"}}}})]
    )
    assert [(secret, key) for _, secret, key in named] == [("s", "k")]
    person = checks.references(
        [tenant("ann", ready(), spec={"auth": {"gitHub": {"userToken": {"secretRef": {"name": "s"}}}}})]
    )
    assert [(secret, key) for _, secret, key in person] == [("s", "refreshToken"), ("s", "clientId")]
    value = base64.b64encode(b"very-secret").decode()

    def found(secret: Any) -> Check:
        (check,) = checks.credentials(named, {("team", "s"): secret})
        assert "very-secret" not in str(check)
        assert value not in str(check)
        return check

    labels = {"copilot-operator.io/tenant-usable": "true"}
    good = {"metadata": {"labels": labels}, "data": {"k": value}}
    assert found(good).level is Level.OK
    assert found(None).found == "tenant team/ann: SecretNotFound"
    assert found({"metadata": {}, "data": {"k": value}}).found == "tenant team/ann: SecretNotUsable"
    assert found({"metadata": {"labels": labels}, "data": {"x": value}}).found == "tenant team/ann: SecretKeyNotFound"
    assert found({"metadata": {"labels": labels}, "data": {"k": ""}}).found == "tenant team/ann: SecretEmpty"
    assert found(FORBIDDEN).level is Level.WARN


def test_images_that_cannot_be_pulled_are_named_once() -> None:
    def pod(name: str, reason: str) -> dict[str, Any]:
        state = {"waiting": {"reason": reason, "message": "not found"}} if reason else {"running": {}}
        statuses = [{"image": "cli:9", "state": state}]
        return {"metadata": {"namespace": "team", "name": name}, "status": {"containerStatuses": statuses}}

    found = list(checks.images([pod("a", "ImagePullBackOff"), pod("b", "ErrImagePull")]))
    assert [(each.level, each.found) for each in found] == [(Level.FAIL, "pod team/a can't pull cli:9: not found")]
    assert levels(checks.images([pod("a", "")])) == [Level.OK]


def test_gateways_are_judged_by_what_the_operator_counts() -> None:
    counted = [pool("a", ready("PoolReady"), gateway={"replicas": 2, "readyReplicas": number}) for number in (2, 1, 0)]
    assert levels(checks.gateways(counted)) == [Level.OK, Level.WARN, Level.FAIL]


def test_the_verdict_is_the_worst() -> None:
    some = [Check("a", Level.OK, ""), Check("b", Level.WARN, "")]
    assert checks.worst(some) is Level.WARN
    assert checks.worst([*some, Check("c", Level.FAIL, "")]) is Level.FAIL
    assert checks.worst([]) is Level.OK
    assert NOW
