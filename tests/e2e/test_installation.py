"""Installations that can't work: the operator says why, touches nothing, and begins once it is mended."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from copilot_operator.cluster.storage import DEFAULT_CLASS
from copilot_operator.domain.kinds import STORAGE_CLASS
from tests.cluster.api import Cluster
from tests.cluster.layout import ROOT
from tests.support.eventually import eventually
from tests.support.installation import BASE, OPERATOR_NAMESPACE, install_api
from tests.support.kube import NAMESPACE, Kube
from tests.support.operator import LEADS_S, OperatorProcess
from tests.support.place import Place

POOLS: Final = ROOT / "crds" / "copilot-operator.io_copilotpools.yaml"


def with_spec_of_pools(kube: Kube, change: Callable[[dict[str, Any]], Any]) -> None:
    """Apply the CRD of pools with other fields in its spec."""
    crd = yaml.safe_load(POOLS.read_text())
    change(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-f=-", stdin=yaml.safe_dump(crd))


@pytest.fixture
def crds(kube: Kube) -> Iterator[Kube]:
    """What a test does to them is undone."""
    yield kube
    install_api(kube)


async def until_said(operator: OperatorProcess, message: str, since: int) -> None:
    await eventually(
        lambda: operator.has_ended() or operator.says(message, since), within_s=LEADS_S, what=message, every_s=0.1
    )
    assert operator.says(message, since), operator.said()


async def test_with_older_crds_the_operator_waits_for_its_own(crds: Kube, operator: OperatorProcess) -> None:
    operator.stop()
    with_spec_of_pools(crds, lambda fields: fields.pop("recycle"))
    since = operator.log_size()
    operator.start(wait=False)
    await until_said(operator, "is older than this operator, it lacks spec.recycle; apply crds/", since)
    assert not operator.says("leads", since)
    install_api(crds)
    await until_said(operator, "leads", since)


async def test_with_newer_crds_the_operator_works_and_says_what_it_does_not_know(
    crds: Kube, operator: OperatorProcess
) -> None:
    operator.stop()
    with_spec_of_pools(crds, lambda fields: fields.update(toCome={"type": "string", "description": "To come."}))
    since = operator.log_size()
    operator.start()
    assert operator.says("is newer than this operator, which does nothing for spec.toCome; upgrade", since)


@pytest.fixture
def second(cluster: Cluster, kube: Kube, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator of a second namespace, which has the right to a Lease there."""
    namespace = f"second-{uuid.uuid4().hex[:6]}"
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for document in yaml.safe_load_all((BASE / "rbac.yaml").read_text()):
        if document["kind"] in ("Role", "RoleBinding"):
            moved = document | {"metadata": {"name": "copilot-operator", "namespace": namespace}}
            kube.kubectl("apply", "-f=-", stdin=yaml.safe_dump(moved))
    process = OperatorProcess(cluster, kube, tmp_path, namespace=namespace)
    yield process
    process.stop()
    kube.delete(NAMESPACE, "", namespace)


async def test_a_second_installation_waits_for_the_end_of_the_first(
    operator: OperatorProcess, second: OperatorProcess
) -> None:
    second.start(wait=False)
    await until_said(second, f"another copilot-operator acts in this cluster, in namespace {OPERATOR_NAMESPACE}", 0)
    assert not second.says("leads")
    operator.stop()
    await until_said(second, "leads", 0)
    since = operator.log_size()
    operator.start(wait=False)
    await until_said(operator, f"another copilot-operator acts in this cluster, in namespace {second.namespace}", since)
    second.stop()
    await until_said(operator, "leads", since)


async def test_without_a_default_storage_class_the_tenant_says_so_until_there_is_one(
    place: Place, operator: OperatorProcess
) -> None:
    kube = place.kube
    classes = [each for each in kube.list(STORAGE_CLASS) if _is_default(each)]
    assert classes, "the cluster has a default class"
    operator.stop()  # what it knows of classes it remembers for a minute
    try:
        for each in classes:
            kube.merge(STORAGE_CLASS, "", each["metadata"]["name"], _default("false"))
        operator.start()
        place.pool()
        place.tenant("max")
        condition = await place.until_reason("max", "NoDefaultStorageClass")
        assert "storage.storageClassName" in condition["message"]
        assert place.claim("max") is None
    finally:
        for each in classes:
            kube.merge(STORAGE_CLASS, "", each["metadata"]["name"], _default("true"))
    await place.until_ready("max", within_s=120)


def _default(value: str) -> dict[str, Any]:
    return {"metadata": {"annotations": {DEFAULT_CLASS: value}}}


def _is_default(storage_class: dict[str, Any]) -> bool:
    return (storage_class["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
