"""What manifests/base asks for: nothing that the operator does not use, and pods that any cluster takes."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from copilot_operator.cluster.observe import SELECTORS
from copilot_operator.domain.kinds import POOL, TENANT

BASE = Path(__file__).parents[2] / "manifests" / "base"
DOCUMENTS = [
    document
    for name in ("namespace.yaml", "rbac.yaml", "deployment.yaml")
    for document in yaml.safe_load_all((BASE / name).read_text())
]


def rules(kind: str) -> list[dict[str, Any]]:
    return [rule for document in DOCUMENTS if document["kind"] == kind for rule in document["rules"]]


def verbs(group: str, resource: str) -> set[str]:
    found = [rule for rule in rules("ClusterRole") if group in rule["apiGroups"] and resource in rule["resources"]]
    return {verb for rule in found for verb in rule["verbs"]}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_valid_for_kubernetes(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.37", strict=True)


def test_no_wildcards() -> None:
    for rule in [*rules("ClusterRole"), *rules("Role")]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], rule


def test_everything_that_is_watched_may_be_watched() -> None:
    for kind in SELECTORS:
        assert {"list", "watch"} <= verbs(kind.group, kind.plural), kind


def test_what_holds_peoples_data_cannot_be_deleted() -> None:
    for group, resource in (("", "persistentvolumeclaims"), ("", "secrets"), ("apps", "deployments")):
        assert not {"delete", "deletecollection"} & verbs(group, resource)


def test_only_the_status_of_users_objects_is_written() -> None:
    for kind in (POOL, TENANT):
        assert verbs(kind.group, kind.plural) == {"get", "list", "watch"}
        assert verbs(kind.group, f"{kind.plural}/status") == {"patch"}


def test_agents_run_from_the_operators_own_image() -> None:
    deployment = next(document for document in DOCUMENTS if document["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert env["COPILOT_OPERATOR_IMAGE"] == container["image"]
