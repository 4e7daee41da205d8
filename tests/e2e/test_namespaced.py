"""An operator of two namespaces, installed by the real Helm and somebody who has no rights beyond them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from copilot_operator.cluster.rivals import MARK
from copilot_operator.domain.kinds import CLAIM, DEPLOYMENT, LEASE, ROLE_BINDING
from copilot_operator.domain.naming import gateway_of, server_of
from tests.chart.generate import CHART
from tests.cluster.api import Cluster
from tests.support.helm import RELEASE, HelmError, helm
from tests.support.installation import bring_images
from tests.support.kube import Kube, KubeError, write_kubeconfig
from tests.support.operator import OperatorProcess
from tests.support.place import POOL_NAME, Place
from tests.support.rights import lines, used
from tests.support.talk import Application

ACCOUNT: Final = "copilot-operator"
INSTALLER: Final = "installer"
BEGINS_ANEW_S: Final = 240.0  # it looks once a minute, and kubelet takes its time with what ended just before


@dataclass(frozen=True)
class Site:
    """Two namespaces and who may do everything in them; a third that is nobody's business."""

    one: Place
    two: Place
    third: Place
    kubeconfig: Path

    @property
    def kube(self) -> Kube:
        return self.one.kube

    def helm(self, *words: str, values: Any = None, namespace: str = "") -> str:
        where = f"--namespace={namespace or self.one.namespace}"
        return helm(*words, where, kubeconfig=self.kubeconfig, values=values)

    def install(self, name: str = RELEASE, namespace: str = "", **values: Any) -> str:
        image = {"image": {"tag": "dev"}, "resources": {"requests": {"cpu": "20m"}}}
        words = ("install", name, str(CHART), "--wait", "--timeout=3m")
        return self.helm(*words, values=image | values, namespace=namespace)

    def operators(self) -> list[str]:
        """Names of its pods."""
        words = ("-n", self.one.namespace, "get", "pods", "-l=app.kubernetes.io/name=copilot-operator", "-o=name")
        return self.kube.kubectl(*words).split()

    def says(self, words: str) -> bool:
        """Whether a pod of the operator, or the one before it in the same place, has logged them."""
        logs = partial(self.kube.kubectl, "-n", self.one.namespace, "logs", "--all-containers", "--ignore-errors")
        return any(words in logs(pod) for pod in self.operators())


ALONE: Final[dict[str, Any]] = {"crds": {"install": False}, "rbac": {"aggregate": False}}


@pytest.fixture
def site(
    kube: Kube, cluster: Cluster, operator: OperatorProcess, application: Application, tmp_path: Path
) -> Iterator[Site]:
    """The operator of all other tests, which serves every namespace, rests meanwhile."""
    bring_images(cluster)
    one, two, third = places = [Place.make(kube, cluster, operator, application) for _ in range(3)]
    operator.stop()
    kube.kubectl("-n", one.namespace, "create", "serviceaccount", INSTALLER)
    subject = f"--serviceaccount={one.namespace}:{INSTALLER}"
    for place in (one, two):
        kube.kubectl("-n", place.namespace, "create", "rolebinding", INSTALLER, "--clusterrole=cluster-admin", subject)
    token = kube.token_of(one.namespace, INSTALLER)
    yield Site(one, two, third, write_kubeconfig(tmp_path / "kubeconfig", cluster.kubeconfig, token))
    try:
        kube.delete(DEPLOYMENT, one.namespace, ACCOUNT)
        words = ("wait", "pods", "-l=app.kubernetes.io/name=copilot-operator", "--for=delete", "--timeout=90s")
        kube.kubectl("-n", one.namespace, *words)
    finally:
        for place in places:
            for lease in (ACCOUNT, MARK):  # else the next operator waits until they expire
                kube.delete(LEASE, place.namespace, lease)
            place.leave()
        operator.start()


@pytest.mark.timeout(1500)  # two restarts of an operator, each after a minute's look at its rights
async def test_two_namespaces_are_served_by_who_has_rights_in_them_alone(site: Site, provider: Any) -> None:
    one, two = site.one, site.two
    log = one.cluster.audit_log()
    began = log.stat().st_size if log else 0
    the_role_admin_is_not_enough(site)
    with pytest.raises(HelmError, match="at the cluster scope"):
        site.install(watchNamespaces=[one.namespace, two.namespace])
    site.helm("uninstall", RELEASE, "--ignore-not-found")
    site.install(watchNamespaces=[one.namespace, two.namespace], **ALONE)
    assert site.says("serves single namespaces, and reads nothing of the cluster itself")
    with pytest.raises(HelmError, match="cannot be imported into the current release"):
        site.install("another", two.namespace, watchNamespaces=[two.namespace], **ALONE)

    await serves_its_own_and_no_others(site)
    await suspends_and_wakes(one, provider)
    assert "Succeeded" in site.helm("test", RELEASE, "--timeout=2m")
    if log:
        for account in (f"{one.namespace}:{ACCOUNT}", f"{one.namespace}:{gateway_of(POOL_NAME)}"):
            allowed, refused = used(log, f"system:serviceaccount:{account}", since=began)
            assert lines(allowed)
            assert lines(refused) == [], "asked for without the right"
    await a_namespace_without_its_role_is_left_alone_until_it_has_one(site)
    server = two.running("bob")
    site.helm("uninstall", RELEASE, "--wait", "--timeout=2m")
    assert two.running("bob") == server
    await two.ping("bob")


def the_role_admin_is_not_enough(site: Site) -> None:
    """As the chart says: it gives nobody the right to give these rights."""
    kube, namespace = site.kube, site.one.namespace
    kube.kubectl("-n", namespace, "create", "rolebinding", "admin", "--clusterrole=admin", "--user=owner")
    kube.kubectl("-n", namespace, "auth", "can-i", "create", "roles", "--as=owner")
    for verb, what in (("create", "controllerrevisions"), ("patch", "copilottenants/status")):
        with pytest.raises(KubeError):
            kube.kubectl("-n", namespace, "auth", "can-i", verb, what, "--as=owner")


async def serves_its_own_and_no_others(site: Site) -> None:
    site.third.pool()
    site.third.tenant("eve")
    site.one.pool(gateway={"enabled": True, "replicas": 1, "drainTimeout": "5s"})
    site.one.tenant("ann")
    site.two.pool()
    site.two.tenant("bob")
    await site.two.until_ready("bob", within_s=120)
    await site.one.until_ready("ann", within_s=120)
    await site.two.ping("bob")
    eve = site.third.get("eve")
    assert (eve["status"], site.third.deployment("eve")) == ({"observedGeneration": 0}, None)
    claim = site.kube.get(CLAIM, site.one.namespace, server_of("ann"))
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    for place in (site.one, site.two):
        mark = site.kube.get(LEASE, place.namespace, MARK)
        assert mark["spec"]["holderIdentity"] == site.one.namespace
    assert site.kube.find(LEASE, site.third.namespace, MARK) is None


async def suspends_and_wakes(place: Place, provider: Any) -> None:
    await place.say("ann", provider, "remember NOTE=walnut")
    place.tenant("ann", suspended=True)
    await place.until_reason("ann", "Suspended", within_s=60)
    assert place.pods("ann") == []
    place.tenant("ann", suspended=False)
    await place.until_ready("ann", within_s=120)
    assert await place.say("ann", provider, "RECALL", resume=True) == ["notes: walnut"]


async def a_namespace_without_its_role_is_left_alone_until_it_has_one(site: Site) -> None:
    kube, two = site.kube, site.two
    binding = kube.get(ROLE_BINDING, two.namespace, ACCOUNT)
    server = two.running("bob")
    kube.delete(ROLE_BINDING, two.namespace, ACCOUNT)
    await until_it_leads(site, lambda: site.says("a namespace is left out"), "the namespace is left out")
    two.tenant("dan")
    site.one.tenant("cleo")
    await site.one.until_ready("cleo", within_s=120)
    assert (two.running("bob"), two.deployment("dan")) == (server, None)
    again = {key: binding["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    kube.kubectl("apply", "--server-side", "-f=-", stdin=json.dumps(binding | {"metadata": again}))
    await until_it_leads(site, lambda: two.deployment("dan"), "what came meanwhile is served")
    await two.until_ready("dan", within_s=120)
    assert two.running("bob") == server


async def until_it_leads(site: Site, condition: Callable[[], Any], what: str) -> None:
    """Wait for an operator that begins anew."""
    await site.one.until(condition, within_s=BEGINS_ANEW_S, what=what, about="ann")
