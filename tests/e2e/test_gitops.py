"""What is in Git is applied again and again: nothing changes, and nobody's field is taken.

And what is seen from outside of such a cluster: metrics, and what an export of it makes.
"""

import asyncio
import json
import sys
from typing import Any, Final

import pytest
import yaml

from copilot_operator.domain.kinds import NETWORK_POLICY, POOL, TENANT, Kind
from copilot_operator.domain.naming import pool_object
from copilot_operator.export.main import main as export
from tests.support.kube import Object
from tests.support.place import CLI_IMAGE, POOL_NAME, Place

SCRAPER: Final = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
OBJECTS: Final = ((POOL, POOL_NAME), (TENANT, "ann"))


def in_git(place: Place) -> str:
    """The manifests; little is said, so that defaults have much to fill in."""
    pool = {
        "isolation": "Dedicated",
        "server": {"image": CLI_IMAGE, "resources": {"requests": {"cpu": "20m", "memory": "256Mi"}}},
        "storage": {"size": "128Mi"},
        "gateway": {"enabled": False},
        "networkPolicy": {"allowMetricsFrom": [SCRAPER]},
    }
    return yaml.safe_dump_all(
        {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": name, "namespace": place.namespace},
            "spec": spec,
        }
        for kind, name, spec in ((POOL, POOL_NAME, pool), (TENANT, "ann", {"poolRef": {"name": POOL_NAME}}))
    )


def people_wrote(obj: Object) -> Object:
    """All that is not of the status."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("resourceVersion", "managedFields")}
    fields = [each for each in obj["metadata"]["managedFields"] if each.get("subresource") != "status"]
    return {"metadata": metadata, "managedFields": fields, "spec": obj["spec"]}


def live(place: Place, kind: Kind, name: str) -> Object:
    return place.kube.get(kind, place.namespace, name)


def nothing_changes(place: Place, *words: str) -> None:
    """Apply it again: of all that happens to the objects then, nothing is about more than their status."""
    before = {name: live(place, kind, name) for kind, name in OBJECTS}
    for _ in range(2):
        place.kube.kubectl("apply", *words, "-f", "-", stdin=in_git(place))
    place.kube.kubectl("diff", *words, "-f", "-", stdin=in_git(place))  # fails if there is a difference
    for kind, name in OBJECTS:
        since = before[name]["metadata"]["resourceVersion"]
        seen = [obj for _, obj in place.kube.history(kind, place.namespace, since) if obj["metadata"]["name"] == name]
        for obj in [*seen, live(place, kind, name)]:
            assert people_wrote(obj) == people_wrote(before[name])


async def test_what_is_applied_again_changes_nothing(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.kube.kubectl("apply", "-f", "-", stdin=in_git(place))
    assert live(place, TENANT, "ann")["status"].get("observedGeneration") is not None, "seen, or told that it is not"
    await place.until_ready("ann")
    running = place.running("ann")
    nothing_changes(place)
    place.kube.kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=gitops", "-f", "-",
                       stdin=in_git(place))  # fmt: skip
    nothing_changes(place, "--server-side", "--force-conflicts", "--field-manager=gitops")
    for kind, name in OBJECTS:
        for fields in live(place, kind, name)["metadata"]["managedFields"]:
            assert fields["manager"] in ("kubectl-client-side-apply", "gitops") or fields["subresource"] == "status"

    assert_metrics_and_nothing_else(place)
    await asyncio.to_thread(exported_is_taken, place, capsys)
    assert place.running("ann") == running


def assert_metrics_and_nothing_else(place: Place) -> None:
    """What Prometheus comes to, by the pool's leave."""
    ingress = place.kube.get(NETWORK_POLICY, place.namespace, pool_object(POOL_NAME))["spec"]["ingress"]
    opened = [rule["ports"] for rule in ingress if SCRAPER in rule["from"]]
    assert opened == [[{"protocol": "TCP", "port": 4323}]]
    address = place.pods("ann")[0]["status"]["podIP"]
    assert "copilot_cli_up 1" in page(place, f"http://{address}:4323/metrics")
    assert "404" in page(place, f"http://{address}:4323/drain")
    state: Any = place.agent_state("ann")
    assert state["draining"] is None


def page(place: Place, url: str) -> str:
    """A page as it is seen in the cluster's network, or the error."""
    program = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
    words = [sys.executable, "-c", program, url]
    done = place.cluster.run_in_network(words, capture_output=True, text=True, timeout=15, check=False)
    return str(done.stdout + done.stderr)


def exported_is_taken(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """By a real API server, which is asked what it would do in another namespace."""
    given = ["-n", place.namespace, f"--kubeconfig={place.kube.kubeconfig}", "--agent-image=copilot-operator:dev"]
    assert export(["manifests", *given]) == 0
    text = capsys.readouterr().out
    elsewhere = text.replace(f"namespace: {place.namespace}", "namespace: default")
    said = place.kube.kubectl("apply", "--server-side", "--dry-run=server", "-o=json", "-f", "-", stdin=elsewhere)
    kinds = [item["kind"] for item in json.loads(said)["items"]]
    assert sorted(kinds) == ["Deployment", "NetworkPolicy", "PersistentVolumeClaim", "Service", "ServiceAccount"]
