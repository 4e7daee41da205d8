"""A release of the chart from its installation to its end: the real Helm, a cluster of its own, a tenant's server."""

import copy
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Final

import pytest
import yaml

from copilot_operator.domain.kinds import CLAIM, DEPLOYMENT, POOL, TENANT
from copilot_operator.domain.naming import server_of
from tests.chart.generate import CHART
from tests.cluster.api import Cluster, choose
from tests.cluster.layout import DEFAULT_NAME
from tests.cluster.process import wait_until
from tests.demo.dump import dump
from tests.support import model_pod
from tests.support.application import ConnectionData
from tests.support.helm import NAMESPACE, RELEASE, HelmError, helm, major
from tests.support.installation import bring_images, install_operator
from tests.support.kube import Kube, KubeError, pods_of
from tests.support.page_of_cluster import by_plugin, document, of_pod, pods_of_operator
from tests.support.place import CLI_IMAGE
from tests.support.talk import Application, Talk, talk

APPS: Final = "apps"
CRDS: Final = ("copilotpools.copilot-operator.io", "copilottenants.copilot-operator.io")
VALUES: Final[dict[str, Any]] = {"image": {"tag": "dev"}, "resources": {"requests": {"cpu": "20m"}}}
SERVED: Final[dict[str, Any]] = VALUES | {
    "networkPolicy": {"enabled": True},
    "objects": {"namespace": APPS},
    "pools": {
        "pool": {
            "isolation": "Dedicated",
            "server": {"image": CLI_IMAGE, "resources": {"requests": {"cpu": "20m", "memory": "256Mi"}}},
            "storage": {"size": "128Mi"},
            "gateway": {"enabled": False},
        }
    },
    "tenants": {"ann": {"poolRef": {"name": "pool"}}},
}


@dataclass(frozen=True)
class Site:
    """A cluster that nobody has installed anything in, but two namespaces."""

    cluster: Cluster
    kube: Kube

    def helm(self, *words: str, values: Any = None) -> str:
        return helm(*words, f"--namespace={NAMESPACE}", kubeconfig=self.cluster.kubeconfig, values=values)

    def install(self, values: Any, *more: str) -> str:
        return self.helm("install", RELEASE, str(CHART), "--wait", "--timeout=3m", *more, values=values)

    def upgrade(self, values: Any, chart: Path = CHART, *more: str) -> str:
        return self.helm("upgrade", RELEASE, str(chart), "--wait", "--timeout=3m", *more, values=values)

    def revision(self) -> int:
        return int(json.loads(self.helm("status", RELEASE, "--output=json"))["version"])

    def wait_ready(self) -> None:
        self.kube.kubectl("-n", APPS, "wait", "ctenant/ann", "--for=condition=Ready", "--timeout=90s")

    def server(self) -> list[tuple[str, int]]:
        """What must not change while operators come and go: the pods of the tenant's server, and their restarts."""
        return [
            (pod["metadata"]["uid"], sum(each["restartCount"] for each in pod["status"]["containerStatuses"]))
            for pod in pods_of(self.kube, APPS, "ann")
        ]

    def ping(self) -> None:
        """Connect as the application does, and be answered."""
        connection = ConnectionData.of(self.kube, APPS, "ann")
        talk(self.cluster, Talk(connection.address, connection.token))

    def crds(self) -> dict[str, dict[str, Any]]:
        """The spec of each CRD, by name."""
        listed = json.loads(self.kube.kubectl("get", "crds", "-o=json"))["items"]
        return {each["metadata"]["name"]: each["spec"] for each in listed}

    def workers(self) -> str:
        """A setting of the operators that run."""
        template = self.kube.get(DEPLOYMENT, NAMESPACE, "copilot-operator")["spec"]["template"]
        env = template["spec"]["containers"][0]["env"]
        return str(next(each["value"] for each in env if each["name"] == "COPILOT_OPERATOR_WORKERS"))


@pytest.fixture
def site() -> Iterator[Site]:
    """A cluster of the test's own: a release has CRDs and a ClusterRole, which the other tests have, too."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    name = "-".join(filter(None, (os.environ.get("COPILOT_TEST_CLUSTER", DEFAULT_NAME), worker, "chart")))
    cluster = choose(name)
    if cluster.kind == "given":
        pytest.skip("a release of the chart would take the given cluster's CRDs over")
    cluster.up()
    try:
        made = Site(cluster, Kube.of(cluster.kubeconfig))
        bring_images(cluster)
        for namespace, labels in ((NAMESPACE, {"pod-security.kubernetes.io/enforce": "restricted"}), (APPS, {})):
            made.kube.create(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
            )
        yield made
    finally:
        cluster.down()


def next_version(directory: Path) -> Path:
    """The chart of a version to come, whose pools have one field more."""
    chart = directory / "chart"
    shutil.copytree(CHART, chart)
    about = chart / "Chart.yaml"
    about.write_text(yaml.safe_dump(yaml.safe_load(about.read_text()) | {"version": "99.0.0"}))
    path = chart / "files" / "crds" / "copilot-operator.io_copilotpools.yaml"
    crd = yaml.safe_load(path.read_text())
    fields_of(crd["spec"])["toCome"] = {"type": "string", "description": "A field to come."}
    path.write_text(path.read_text().partition("\napiVersion")[0] + "\n" + yaml.safe_dump(crd, sort_keys=False))
    return chart


def fields_of(pool_crd: Any) -> Any:
    return pool_crd["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]


def test_life_of_a_release(site: Site, tmp_path: Path) -> None:
    try:
        pools_before_their_crds_are_refused(site)
        first_installation(site)
        a_second_release_is_refused(site)
        people_have_their_rights(site)
        tenants_from_values(site)
        people_look_at_its_page(site)
        wrong_values_change_nothing(site)
        with talking(site):
            upgrade_and_rollback(site, next_version(tmp_path))
        tenants_outlive_their_values_and_the_release(site)
        the_release_comes_back(site)
        what_kubectl_applied_is_taken_over(site)
    except BaseException:
        dump(site.kube, APPS)
        raise


def pools_before_their_crds_are_refused(site: Site) -> None:
    with pytest.raises(HelmError, match="install the chart without them first, then give them to `helm upgrade`"):
        site.install(SERVED)
    assert not site.crds()


def first_installation(site: Site) -> None:
    notes = site.install(VALUES)
    assert f"helm test {RELEASE} --namespace {NAMESPACE}" in notes
    assert site.crds().keys() == set(CRDS)
    assert "Succeeded" in site.helm("test", RELEASE, "--timeout=2m")


def a_second_release_is_refused(site: Site) -> None:
    words = ("install", "another", str(CHART), f"--namespace={APPS}")
    with pytest.raises(HelmError, match="cannot be imported into the current release"):
        helm(*words, kubeconfig=site.cluster.kubeconfig, values=VALUES)


def people_have_their_rights(site: Site) -> None:
    verbs = ("list", "create", "deletecollection")
    for role, rights in (("view", verbs[:1]), ("edit", verbs[:2]), ("admin", verbs)):
        site.kube.kubectl("-n", APPS, "create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}er")
        assert [verb for verb in verbs if may(site, f"{role}er", verb)] == list(rights), role


def may(site: Site, user: str, verb: str) -> bool:
    """Whether a person has this right over tenants."""
    try:
        site.kube.kubectl("-n", APPS, "auth", "can-i", verb, "ctenant", f"--as={user}")
    except KubeError:
        return False
    return True


def tenants_from_values(site: Site) -> None:
    added = {key: value for key, value in SERVED.items() if key not in VALUES}
    notes = site.upgrade(added, CHART, "--reset-then-reuse-values")
    assert f"kubectl -n {APPS} get cpool,ctenant" in notes
    site.wait_ready()
    site.ping()
    assert "Succeeded" in site.helm("test", RELEASE, "--timeout=2m"), "with a NetworkPolicy"


def people_look_at_its_page(site: Site) -> None:
    """Every replica has one, which tells what the API server tells, and which no pod can open."""
    with by_plugin(site.cluster.kubeconfig) as url:
        seen = wait_until(lambda: healthy(document(url)), timeout_s=60, what="the leader tells how the server fares")
    (tenant,) = seen["tenants"]
    assert seen["replica"]["leads"]
    status = site.kube.get(TENANT, APPS, "ann")["status"]
    assert [(each["type"], each["reason"], each["message"]) for each in tenant["conditions"]] == [
        (each["type"], each["reason"], each["message"]) for each in status["conditions"]
    ]
    pods = pods_of_operator(site.kube)
    for pod, address in pods.items():
        with of_pod(site.cluster.kubeconfig, pod) as url:
            found = document(url)
        assert found["replica"]["name"] == pod
        assert found["replica"]["leader"] == seen["replica"]["name"]
        assert [each["name"] for each in found["tenants"]] == ["ann"]
        assert connects(site, address, 8080) == 0
        assert connects(site, address, 8081) == errno.ECONNREFUSED
    assert len(pods) == 2


def healthy(found: Any) -> Any:
    """The document, once it tells of a server that answers."""
    return found if [each["health"] for each in found["live"].values()] == ["Healthy"] else None


def connects(site: Site, address: str, port: int) -> int:
    """The error number of a connection from within the cluster's network; 0 if there is one."""
    program = "import socket, sys; sys.exit(socket.socket().connect_ex((sys.argv[1], int(sys.argv[2]))))"
    process = site.cluster.start_in_network([sys.executable, "-c", program, address, str(port)])
    return process.wait(60)


def wrong_values_change_nothing(site: Site) -> None:
    revision, wrong = site.revision(), copy.deepcopy(SERVED)
    wrong["pools"]["pool"]["gateway"]["enabeld"] = True
    with pytest.raises(HelmError, match="at '/pools/pool/gateway': additional properties 'enabeld' not allowed"):
        site.upgrade(wrong | {"replcas": 3})
    assert site.revision() == revision


@contextmanager
def talking(site: Site) -> Iterator[None]:
    """Meanwhile ann has one turn after the other in one session; each must end, and the last know of the first."""
    model_pod.start(site.kube, APPS)
    site.kube.kubectl("-n", APPS, "wait", f"deploy/{model_pod.NAME}", "--for=condition=Available", "--timeout=90s")
    connection, provider, over = ConnectionData.of(site.kube, APPS, "ann"), model_pod.provider(site.kube, APPS), Event()

    def say(application: Application, prompt: str, *, resume: bool = True) -> list[str]:
        return application.talk(
            Talk(connection.address, connection.token, "upgrade", (prompt,), resume, provider=provider)
        )

    def converse(application: Application) -> list[str]:
        say(application, "remember NOTE=oak", resume=False)
        while not over.is_set():
            say(application, "SLEEP=3")
        return say(application, "RECALL")

    with Application(site.cluster) as application, ThreadPoolExecutor(1) as threads:
        turns = threads.submit(converse, application)
        try:
            yield
        finally:
            over.set()
        assert turns.result() == ["notes: oak"]


def upgrade_and_rollback(site: Site, chart: Path) -> None:
    server, revision = site.server(), site.revision()
    site.upgrade(SERVED | {"workers": 8}, chart)
    assert "toCome" in fields_of(site.crds()[CRDS[0]])
    assert site.workers() == "8"
    newer = "is newer than this operator, which does nothing for spec.toCome"
    wait_until(lambda: says(site, newer), timeout_s=60, what="it says so: its image is the one of before")
    site.helm("rollback", RELEASE, str(revision), "--wait", "--timeout=3m")
    assert "toCome" not in fields_of(site.crds()[CRDS[0]])
    assert site.workers() == "24"
    site.wait_ready()
    assert site.server() == server, "the server runs on, whatever becomes of operators"


def says(site: Site, words: str) -> bool:
    """Whether a pod of the operator has logged them."""
    try:
        return any(words in site.kube.kubectl("-n", NAMESPACE, "logs", pod) for pod in pods_of_operator(site.kube))
    except KubeError:  # one has gone meanwhile
        return False


def tenants_outlive_their_values_and_the_release(site: Site) -> None:
    server, claim = site.server(), site.kube.get(CLAIM, APPS, server_of("ann"))["metadata"]["uid"]
    site.upgrade(VALUES)
    site.helm("uninstall", RELEASE, "--wait", "--timeout=2m")
    assert site.kube.find(DEPLOYMENT, NAMESPACE, "copilot-operator") is None
    assert site.crds().keys() == set(CRDS)
    assert site.kube.find(POOL, APPS, "pool")
    assert site.kube.find(TENANT, APPS, "ann")
    assert site.kube.get(CLAIM, APPS, server_of("ann"))["metadata"]["uid"] == claim
    assert site.server() == server
    site.ping()


def the_release_comes_back(site: Site) -> None:
    server = site.server()
    site.install(SERVED)
    site.wait_ready()
    site.ping()
    assert site.server() == server


def what_kubectl_applied_is_taken_over(site: Site) -> None:
    server = site.server()
    site.helm("uninstall", RELEASE, "--wait", "--timeout=2m")
    for kind, namespace in (("crd", ""), ("cpool,ctenant", APPS)):
        where = [f"--namespace={namespace}"] if namespace else []
        site.kube.kubectl("annotate", kind, "--all", "meta.helm.sh/release-name-", *where)
    install_operator(site.kube, "of-kubectl")
    with pytest.raises(HelmError, match="cannot be imported into the current release"):
        site.install(SERVED)
    site.install(SERVED, "--take-ownership", *(["--force-conflicts"] if major() == "4" else []))
    site.wait_ready()
    site.ping()
    assert site.server() == server
    assert site.workers() == "24"
