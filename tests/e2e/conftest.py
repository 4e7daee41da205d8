"""One cluster and one operator for all e2e tests of a process; a namespace for each.

The operator is a process of the tests, so that they can kill it, but with a token of its real ServiceAccount: what
manifests/base does not allow fails here.
"""

import os
from collections.abc import Iterator

import pytest

from tests.cluster.api import Cluster, choose
from tests.cluster.layout import DEFAULT_NAME
from tests.support import model_pod
from tests.support.eventually import eventually
from tests.support.installation import bring_images, install_api, install_rights
from tests.support.kube import NAMESPACE, Kube
from tests.support.leaks import leaks
from tests.support.operator import OperatorProcess, rest_installed_operator, scale
from tests.support.place import Place
from tests.support.talk import Application

MODEL_PLACE = "e2e-model"
OPERATOR_PORT = 18_081


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster; one that ran before stays. Each process of a parallel run has one of its own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    name = os.environ.get("COPILOT_TEST_CLUSTER", DEFAULT_NAME)
    chosen = choose(f"{name}-{worker}" if worker else name)
    ran = chosen.is_up()
    chosen.up(audit=True)
    yield chosen
    if not ran:
        chosen.down()


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Kube:
    """An administrator's access to a cluster that has the CRDs."""
    found = Kube.of(cluster.kubeconfig)
    install_api(found)
    return found


@pytest.fixture(scope="session")
def application(cluster: Cluster) -> Iterator[Application]:
    """A client with the official SDK in the cluster's network."""
    with Application(cluster) as started:
        yield started


@pytest.fixture(scope="session")
def secrets() -> dict[str, str]:
    """Texts of the Secrets that there were in tests' namespaces, and where they are from."""
    return {}


@pytest.fixture(scope="session")
def running_operator(
    cluster: Cluster, kube: Kube, tmp_path_factory: pytest.TempPathFactory, secrets: dict[str, str]
) -> Iterator[OperatorProcess]:
    """The only operator of the cluster; one that was installed rests meanwhile. No secret of any test may be in what it
    has logged, at level debug."""
    bring_images(cluster)
    install_rights(kube)
    replicas = rest_installed_operator(kube)
    process = OperatorProcess(cluster, kube, tmp_path_factory.mktemp("operator"), port=OPERATOR_PORT)
    process.start()
    yield process
    process.stop()
    if replicas:
        scale(kube, replicas)
    found = leaks(secrets, iter([("the operator's log", process.log_since(0))]))
    assert found == [], "whoever may read logs reads secrets"


@pytest.fixture
def operator(running_operator: OperatorProcess) -> OperatorProcess:
    """The operator, running; a test may stop, kill and start it."""
    running_operator.ensure()
    return running_operator


@pytest.fixture
def place(
    kube: Kube, cluster: Cluster, operator: OperatorProcess, application: Application, secrets: dict[str, str]
) -> Iterator[Place]:
    """A namespace of the test's own, in which no secret may be but in Secrets when it ends."""
    made = Place.make(kube, cluster, operator, application)
    yield made
    try:
        found = made.leaks()  # before the assertion, which would show what it compares
        secrets.update({text: f"{origin} of {made.namespace}" for text, origin in made.brought.items()})
    finally:
        made.leave()
    assert found == [], "whoever may read objects and logs reads secrets"


@pytest.fixture(scope="session")
def model_place(kube: Kube, cluster: Cluster) -> Iterator[str]:
    """The namespace of a stand-in model that all tests share."""
    bring_images(cluster)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": MODEL_PLACE}})
    model_pod.start(kube, MODEL_PLACE)
    yield MODEL_PLACE
    kube.delete(NAMESPACE, "", MODEL_PLACE)


@pytest.fixture
async def provider(kube: Kube, model_place: str) -> dict[str, str]:
    """What sessions are created with, so that the stand-in model answers."""
    await eventually(lambda: model_pod.answers(kube, model_place), within_s=60, what="the model is ready", every_s=0.2)
    return model_pod.provider(kube, model_place)
