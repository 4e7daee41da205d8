"""The status page of an operator that runs in a cluster, as people come to it: through the API server."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from copilot_operator.domain.kinds import POD
from tests.cluster.api import kubectl
from tests.support.installation import OPERATOR_NAMESPACE

ADDRESS: Final = re.compile(r"127\.0\.0\.1:\d+")
PORT: Final = 8081
END_S: Final = 20.0
ANSWER_S: Final = 30.0


@contextmanager
def by_plugin(kubeconfig: Path) -> Iterator[str]:
    """Its URL, by ``kubectl copilot page``: of the replica that leads."""
    words = ["-m", "copilot_operator.plugin.entry", "page", "--port=0", f"--kubeconfig={kubeconfig}"]
    with _led_on([sys.executable, *words, f"--operator-namespace={OPERATOR_NAMESPACE}"]) as url:
        yield url


@contextmanager
def of_pod(kubeconfig: Path, pod: str) -> Iterator[str]:
    """Its URL, by ``kubectl port-forward`` to one replica."""
    words = [f"--namespace={OPERATOR_NAMESPACE}", "port-forward", f"pod/{pod}", f":{PORT}"]
    with _led_on([kubectl(), f"--kubeconfig={kubeconfig}", *words]) as url:
        yield url


def document(url: str) -> Any:
    """What the page shows."""
    return httpx.get(f"{url}/status.json", timeout=ANSWER_S).raise_for_status().json()


def pods_of_operator(kube: Any) -> dict[str, str]:
    """Their addresses, by name."""
    found = kube.list(POD, OPERATOR_NAMESPACE, "app.kubernetes.io/name=copilot-operator")
    return {each["metadata"]["name"]: each["status"]["podIP"] for each in found if each["status"].get("podIP")}


@contextmanager
def _led_on(argv: list[str]) -> Iterator[str]:
    """What the first line of a program's output names, until the block ends."""
    environment = os.environ | {"KUBECTL": kubectl()}
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = ADDRESS.search(line)
        assert found, f"{argv}: {line or 'ended without a word'}"
        yield f"http://{found[0]}"
    finally:
        process.terminate()
        process.communicate(timeout=END_S)
