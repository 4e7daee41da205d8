"""The real Helm, compiled into the cache: its current major version, or the one that $COPILOT_TEST_HELM names."""

import os
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from tests.chart.generate import CHART
from tests.cluster.process import ClusterError
from tests.cluster.programs import ensure_program

PACKAGES: Final = {
    "4": "helm.sh/helm/v4/cmd/helm@v4.3.1",
    "3": "helm.sh/helm/v3/cmd/helm@v3.22.0",
}
RELEASE: Final = "copilot-operator"
NAMESPACE: Final = "copilot-operator"
KUBERNETES: Final = "1.36.3"  # what charts are rendered for where there is no cluster


class HelmError(Exception):
    """Helm said no, with what it complained of."""


def major() -> str:
    """Of the version that is used."""
    chosen = os.environ.get("COPILOT_TEST_HELM", next(iter(PACKAGES)))
    if chosen not in PACKAGES:
        raise ClusterError(f"COPILOT_TEST_HELM is {chosen!r}; there are: {', '.join(PACKAGES)}")
    return chosen


def program() -> Path:
    """Compiled when it is not in the cache (one to two minutes)."""
    return ensure_program("helm", PACKAGES[major()])


def helm(*words: str, kubeconfig: Path | None = None, values: Any = None, timeout_s: float = 240.0) -> str:
    """Run Helm and return what it printed. ``values`` are given as a file, ``-f -``. Raises HelmError."""
    access = [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
    given = ["--values=-"] if values is not None else []
    done = subprocess.run(
        [program(), *words, *given, *access],
        input=yaml.safe_dump(values) if values is not None else "",
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode != 0:
        raise HelmError(f"helm {' '.join(words[:3])}: {done.stderr.strip()[-4000:]}\n{done.stdout.strip()[-2000:]}")
    return done.stdout


def rendered(values: Any = None, chart: Path = CHART) -> list[dict[str, Any]]:
    """The objects of the chart, as Helm makes them of these values without a cluster."""
    words = ("template", RELEASE, str(chart), f"--namespace={NAMESPACE}", f"--kube-version={KUBERNETES}")
    return [each for each in yaml.safe_load_all(helm(*words, values=values or {})) if each]


if __name__ == "__main__":
    print(program())
