"""What has to be there before anybody can try the project: cluster, images, CRDs, and the operator's manifests.

``python -m tests.support.installation`` installs it in the cluster that runs.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Final

import yaml

from tests.cluster import images
from tests.cluster.api import Cluster, choose
from tests.cluster.layout import DEFAULT_NAME, ROOT
from tests.support.kube import Kube

BASE: Final = ROOT / "manifests" / "base"
SAMPLES: Final = ROOT / "manifests" / "samples"
OPERATOR_NAMESPACE: Final = "copilot-operator"

log = logging.getLogger(__name__)


def build_images(cluster: Cluster) -> list[Path]:
    """Build both images where they are not built. Somebody's own cluster is expected to have them, from a registry."""
    return [] if cluster.kind == "given" else [images.cli_image(), images.operator_image()]


def bring_images(cluster: Cluster) -> str:
    """Build the images, load them where they are not loaded; returns a mark of their content."""
    archives = build_images(cluster)
    for archive in archives:
        cluster.load_image(archive)
    return "_".join(archive.stem for archive in archives) or cluster.kind


def install_api(kube: Kube) -> None:
    """The CRDs, ready to be used."""
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(ROOT / "crds"))
    wait_for_api(kube)


def install_rights(kube: Kube) -> None:
    """The operator's namespace, account and roles, without the operator."""
    for name in ("namespace.yaml", "rbac.yaml"):
        kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(BASE / name))


def install_operator(kube: Kube, mark: str) -> None:
    """All of manifests/base; ``mark`` makes pods new where an image of the same name has new content."""
    documents = [each for each in yaml.safe_load_all(kube.kubectl("kustomize", str(BASE))) if each]
    for document in documents:
        if document["kind"] == "Deployment":
            document["spec"]["template"]["metadata"]["annotations"] = {"images": mark}
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-f=-", stdin=yaml.safe_dump_all(documents))
    wait_for_api(kube)
    words = ["rollout", "status", "deployment/copilot-operator", "--timeout=90s"]
    kube.kubectl("-n", OPERATOR_NAMESPACE, *words)


def wait_for_api(kube: Kube) -> None:
    names = [f"crd/copilot{kind}s.copilot-operator.io" for kind in ("pool", "tenant")]
    kube.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)


def sample(name: str) -> Path:
    return SAMPLES / name


def main() -> int:
    cluster = choose(os.environ.get("COPILOT_TEST_CLUSTER", DEFAULT_NAME))
    kube = Kube.of(cluster.kubeconfig)
    install_operator(kube, bring_images(cluster))
    print(f"the operator runs: export KUBECONFIG={cluster.kubeconfig}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
