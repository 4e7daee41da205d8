"""Commands as a whole, with a kubectl that answers from a table."""

import json

import pytest
import yaml

from copilot_operator.plugin.completion import answer
from copilot_operator.plugin.kube import complaint, json_documents
from tests.unit.plugin.conftest import FakeKubectl
from tests.unit.plugin.documents import Object, condition, pool, ready, tenant

GROUP = "/apis/copilot-operator.io/v1alpha1"
POOLS, TENANTS = f"{GROUP}/namespaces/team/copilotpools", f"{GROUP}/namespaces/team/copilottenants"
ENDPOINT = {"host": "copilot-ann.team.svc", "port": 4321, "secretName": "copilot-ann"}


def fill(kubectl: FakeKubectl, *objects: Object) -> None:
    kubectl.answers |= {POOLS: {"items": []}, TENANTS: {"items": []}, "/api/v1/namespaces/team/events": {"items": []}}
    for each in objects:
        path = POOLS if each["kind"] == "CopilotPool" else TENANTS
        bare = {key: each[key] for key in ("metadata", "spec", "status")}
        kubectl.answers[path]["items"].append(bare)
        kubectl.answers[f"{path}/{each['metadata']['name']}"] = each


def test_status_in_columns_and_as_documents(kubectl: FakeKubectl) -> None:
    fill(kubectl, pool("saas", ready("PoolReady")), tenant("ann", ready(), phase="Ready"))
    told = kubectl.run("status", "--context=c", "-n", "team")
    assert told.exit_code == 0, told.output
    assert "ann" in told.output
    assert "\x1b" not in told.output
    assert all("--context=c" in words for words in kubectl.asked)
    as_json = json.loads(kubectl.run("status", "-o", "json").output)
    assert as_json == yaml.safe_load(kubectl.run("-n", "team", "status", "-o", "yaml").output)
    assert [each["name"] for each in as_json["tenants"]] == ["ann"]


def test_what_is_wrong_with_a_pool_is_told_with_the_command_for_a_pool(kubectl: FakeKubectl) -> None:
    held = pool("saas", ready("PoolReady"), condition("Paused", "True", "PausedByAnnotation"))
    fill(kubectl, held)
    assert "→ kubectl copilot unpause pool/saas -n team" in kubectl.run("status").output


def test_all_namespaces_are_one_question_for_each_kind(kubectl: FakeKubectl) -> None:
    kubectl.answers = {f"{GROUP}/copilotpools": {"items": []}, f"{GROUP}/copilottenants": {"items": []}}
    assert "No pools and no tenants in the cluster" in kubectl.run("status", "-A").output
    assert len(kubectl.asked) == 2


def test_what_kubectl_complains_of_is_an_error_with_a_way_out(kubectl: FakeKubectl) -> None:
    kubectl.answers = {POOLS: "Error from server (Forbidden): you may not list"}
    told = kubectl.run("status")
    assert told.exit_code == 1
    assert "you may not list" in told.output
    assert "kubectl copilot doctor" in told.output


def test_explain_finds_a_tenant_or_pool_by_its_name(kubectl: FakeKubectl) -> None:
    fill(kubectl, pool("saas", ready("PoolReady")), tenant("ann", ready()), pool("ann", ready("PoolReady")))
    assert kubectl.run("explain", "ann").output.startswith("CopilotTenant team/ann")
    assert kubectl.run("explain", "pool/ann").output.startswith("CopilotPool team/ann")
    assert kubectl.run("explain", "saas").output.startswith("CopilotPool team/saas")
    nobody = kubectl.run("explain", "nobody")
    assert nobody.exit_code == 1
    assert "no CopilotTenant or CopilotPool nobody in namespace team" in nobody.output
    assert "write tenant/NAME or pool/NAME" in kubectl.run("explain", "pod/ann").output


def test_a_suspension_is_one_patch_of_the_spec(kubectl: FakeKubectl) -> None:
    fill(kubectl, pool("saas", ready("PoolReady")), tenant("ann", ready()))
    kubectl.answers["patch"] = {}
    assert kubectl.run("suspend", "ann").exit_code == 0
    (words,) = [words for words in kubectl.asked if words[0] == "patch"]
    assert words[1:3] == ["copilottenants.v1alpha1.copilot-operator.io", "ann"]
    assert '--patch={"spec": {"suspended": true}}' in words
    assert "already" in kubectl.run("wake", "ann").output


def test_what_cannot_be_restarted_is_refused_before_anything_is_written(kubectl: FakeKubectl) -> None:
    fill(
        kubectl, pool("saas", ready("PoolReady"), isolation="Shared"), tenant("ann", ready()),
        tenant("bob", ready("Suspended", "..."), spec={"suspended": True}),
    )  # fmt: skip
    assert "kubectl copilot restart pool/saas" in kubectl.run("restart", "ann").output
    assert "kubectl copilot wake bob" in kubectl.run("restart", "bob").output
    paused = pool("saas", ready("PoolReady"))
    paused["metadata"]["annotations"] = {"copilot-operator.io/paused": "true"}
    fill(kubectl, paused, tenant("ann", ready()))
    assert kubectl.run("restart", "ann", "--wait").exit_code == 1
    assert not [words for words in kubectl.asked if words[0] == "patch"]


def test_a_wait_has_a_deadline_and_says_how_it_stands(kubectl: FakeKubectl) -> None:
    fill(kubectl, pool("saas", ready("PoolReady")), tenant("ann", ready("Draining", "2 sessions left")))
    kubectl.answers["patch"] = {}
    told = kubectl.run("suspend", "ann", "--wait", "--timeout", "0.2s")
    assert told.exit_code == 1
    assert "Draining: 2 sessions left" in told.output
    assert "kubectl copilot explain tenant/ann -n team" in told.output


def test_nothing_is_connected_to_without_an_endpoint_or_a_pod(kubectl: FakeKubectl) -> None:
    fill(kubectl, pool("saas", ready("PoolReady")), tenant("ann", ready("PoolInvalid", "spec.server: ...")))
    assert "has no endpoint yet (PoolInvalid" in kubectl.run("connect", "ann").output
    fill(kubectl, pool("saas", ready("PoolReady")), tenant("ann", ready("GatewayNotReady", "none"), endpoint=ENDPOINT))
    kubectl.answers["/api/v1/namespaces/team/pods"] = {"items": []}
    told = kubectl.run("connect", "ann")
    assert told.exit_code == 1
    assert "no pod of it is ready (GatewayNotReady: none)" in told.output


def test_doctor_fails_where_nothing_is_installed(kubectl: FakeKubectl) -> None:
    kubectl.answers = {
        "/version": {"gitVersion": "v1.36.0"},
        "create": "error: no",
        "/apis/apps/v1/deployments": {"items": []},
    }
    told = kubectl.run("doctor", "-o", "json")
    assert told.exit_code == 1
    levels = {each["check"]: each["level"] for each in json.loads(told.output)["checks"]}
    assert levels["CRD CopilotPool"] == levels["operator"] == "FAIL"
    assert levels["API server"] == "OK"


@pytest.mark.parametrize("bad", ["0", "x", "5d", "-3s"])
def test_times_that_are_none_are_refused(kubectl: FakeKubectl, bad: str) -> None:
    told = kubectl.run("restart", "ann", f"--timeout={bad}")
    assert told.exit_code == 2
    assert "write a time such as" in told.output


# Completion


def test_kubectl_is_told_commands_and_names_of_tenants(kubectl: FakeKubectl) -> None:
    fill(kubectl, tenant("ann", ready()), tenant("bob", ready()), pool("saas", ready("PoolReady")))
    kubectl.run("status")
    assert answer(["sus"]).splitlines()[0].startswith("suspend\t")
    assert answer(["suspend", "a"]) == "ann\n:4"
    assert answer(["restart", ""]).splitlines() == ["ann", "bob", "pool/saas", ":4"]
    assert answer([]).splitlines()[-1] == ":4"


def test_a_cluster_that_does_not_answer_completes_nothing(kubectl: FakeKubectl) -> None:
    kubectl.run("status")
    assert answer(["suspend", ""]) == ":4"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_script_for_the_shell(kubectl: FakeKubectl, shell: str) -> None:
    assert "_KUBECTL_COPILOT_COMPLETE" in kubectl.run("completion", shell).output


# kubectl


def test_complaints_are_told_apart() -> None:
    missing = complaint("kubectl get x", 'Error from server (NotFound): pods "x" not found\n')
    assert (missing.reason, missing.message) == ("NotFound", 'pods "x" not found')
    no_kind = complaint(
        "kubectl get x", "Error from server (NotFound): the server could not find the requested resource"
    )
    assert "Is the operator installed there" in str(no_kind)
    log = "E1126 14:00:00.000 1 memcache.go:265] couldn't get\nThe connection to the server x was refused"
    away = complaint("kubectl get x", log, "prod")
    assert away.message == "The connection to the server x was refused"
    assert "Is the cluster of context prod up?" in str(away)


def test_several_documents_of_kubectl_are_read_one_after_the_other() -> None:
    assert json_documents('{"a": 1}\n{"a": 2}\n') == [{"a": 1}, {"a": 2}]
    assert json_documents('{"kind": "List", "items": [{"a": 1}]}') == [{"a": 1}]
    assert json_documents("") == []
