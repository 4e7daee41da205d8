"""The operator and its gateways use every right that they have, and ask for none that they have not: so says the API
server's audit log, of a pool that goes through all that there is."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from copilot_operator.domain.kinds import DISRUPTION_BUDGET, NETWORK_POLICY, NODE, REVISION, ROLE, STORAGE_CLASS
from copilot_operator.domain.naming import PROTECTED_LABEL, busy_servers, gateway_of, pool_object
from tests.e2e.test_node_drain import node_of, uncordoned_after
from tests.support.installation import BASE, OPERATOR_NAMESPACE
from tests.support.kube import Object
from tests.support.operator import ACCOUNT
from tests.support.place import CLI_IMAGE, POOL_NAME, Place
from tests.support.rights import Right, granted, lines, used

CORE: Final = ""
UNUSED: Final = {
    Right(CORE, "pods", "get"): "when a watch may have missed a pod's end; and gateways may not have what it has not",
    Right("copilot-operator.io", "copilotpools", "get"): "when a watch may have missed that one is gone",
    Right("copilot-operator.io", "copilottenants", "get"): "likewise",
}
"""What the operator needs on a day that no test can make."""


def rules() -> list[dict[str, Any]]:
    documents = yaml.safe_load_all((BASE / "rbac.yaml").read_text())
    return [rule for each in documents if each["kind"] in ("ClusterRole", "Role") for rule in each["rules"]]


def a_class(name: str) -> Object:
    return {
        "apiVersion": STORAGE_CLASS.api_version,
        "kind": STORAGE_CLASS.kind,
        "metadata": {"name": name},
        "provisioner": "csi.example.com",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def audit_log(place: Place) -> Path:
    found = place.cluster.audit_log()
    if found is None:
        pytest.skip("the cluster keeps no audit log")
    return found


async def test_there_is_no_right_that_is_not_used_and_none_is_missing(place: Place, provider: Any) -> None:
    log = audit_log(place)
    kube, namespace = place.kube, place.namespace
    began = log.stat().st_size
    place.operator.restart()  # a day of its own: also what is asked at the start
    place.secret("model", {"key": "none"})
    key = {"apiKeySecretRef": {"name": "model", "key": "key"}}
    paid = {"provider": {"type": "openai", "baseUrl": provider["base_url"], "wireApi": "completions"} | key}
    behind: dict[str, Any] = {"gateway": {"enabled": True, "replicas": 1, "drainTimeout": "5s"}, "auth": paid}
    place.pool(**behind)
    place.tenant("ann")
    await place.until_ready("ann", within_s=120)

    # a class whose name may be a CSI driver's; its claim waits for a volume that nobody makes. And certificates
    trusts = {"image": CLI_IMAGE, "caBundleConfigMapRef": {"name": "kube-root-ca.crt"}}
    kube.request("POST", STORAGE_CLASS.path(), body=a_class(namespace))
    try:
        place.pool("elsewhere", server=trusts, storage={"size": "128Mi", "storageClassName": namespace})
        place.tenant("bea", "elsewhere")
        await place.until(lambda: place.claim("bea"), within_s=60, what="there is a claim", about="bea")
    finally:
        kube.delete(STORAGE_CLASS, "", namespace)

    # a turn, of which evictions are kept away; an empty node; all that a pool makes, and takes back
    await place.say("ann", None, "remember NOTE=first SLEEP=2")
    await place.until(
        lambda: any(PROTECTED_LABEL in pod["metadata"]["labels"] for pod in place.pods("ann")),
        within_s=60,
        what="its pod is protected",
        about="ann",
    )
    (pod,) = place.pods("ann")
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    with uncordoned_after(kube, node_of(place, "ann")):
        kube.merge(NODE, "", node_of(place, "ann"), {"spec": {"unschedulable": True}})
        await place.until(
            lambda: all(each["metadata"]["uid"] != uid for each in place.pods("ann")),
            within_s=120,
            what=f"{name} has gone",
            about="ann",
        )
    budget = busy_servers(POOL_NAME)
    before = kube.get(DISRUPTION_BUDGET, namespace, budget)["metadata"]["uid"]
    kube.merge(DISRUPTION_BUDGET, namespace, budget, {"spec": {"maxUnavailable": None, "minAvailable": 1}})
    await place.until(
        lambda: (
            (kube.find(DISRUPTION_BUDGET, namespace, budget) or {}).get("metadata", {}).get("uid", before) != before
        ),
        within_s=30,
        what="the budget is ours again",
    )
    own = f"{pool_object(POOL_NAME)}-"
    revisions = (each["metadata"]["name"] for each in kube.list(REVISION, namespace))
    first = {name for name in revisions if name.startswith(own)}
    server = {"image": CLI_IMAGE, "logLevel": "warning", "resources": {"requests": {"cpu": "20m", "memory": "256Mi"}}}
    place.pool(**behind, server=server, networkPolicy={"enabled": False})
    await place.until(
        lambda: kube.find(NETWORK_POLICY, namespace, pool_object(POOL_NAME)) is None,
        within_s=30,
        what="the NetworkPolicy is taken back",
    )
    await place.until(
        lambda: not first & {each["metadata"]["name"] for each in kube.list(REVISION, namespace)},
        within_s=120,
        what="the former revision is forgotten",
        about="ann",
    )
    await place.until_ready("ann")

    account = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{ACCOUNT}"
    allowed, _ = used(log, account)
    may = granted(rules())
    assert lines(may - allowed - UNUSED.keys()) == [], "rights that nothing needs"
    _, refused = used(log, account, since=began)
    assert lines(refused) == [], "asked for without the right"

    role = kube.get(ROLE, namespace, gateway_of(POOL_NAME))
    account = f"system:serviceaccount:{namespace}:{gateway_of(POOL_NAME)}"
    allowed, refused = used(log, account)
    assert lines(granted(role["rules"]) - allowed) == []
    assert lines(refused) == []
