"""``make bench-wake``: how long a request waits for a server that was stopped as idle, beside what its pod takes alone.

Prints one JSON line; real CLI, warm image and volumes. In turn, ``n`` times each:

* the floor: a Deployment of the same template, without operator and gateway, is scaled from 0 to 1. ``pod_start`` is
  from there until its CLI's process runs, ``server_start`` from there until that answers a ping.
* a wake: a client that is connected to its gateway sends a message to a session of a suspended server. ``wake`` is
  from there until the turn's first event.

``ratio`` is a wake in proportion to the floor (pod and server start together), each at the same percentile.
"""

import argparse
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

from tests.cluster.api import Cluster, choose
from tests.cluster.layout import ROOT
from tests.cluster.process import wait_until
from tests.scale.bed import logs_in
from tests.support import model_pod
from tests.support.installation import bring_images, install_api, install_rights
from tests.support.kube import NAMESPACE, Kube
from tests.support.operator import OperatorProcess

CLUSTER: Final = "wake"
PLACE: Final = "wake"
WAKES: Final = 12


def measured(cluster: Cluster, wakes: int, logs: Path) -> dict[str, Any]:
    """In a cluster that runs."""
    with redirect_stdout(sys.stderr):  # what installs speaks there; here it is for figures
        kube = Kube.of(cluster.kubeconfig)
        bring_images(cluster)
        install_api(kube)
        install_rights(kube)
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLACE}})
        model_pod.start(kube, PLACE)
        wait_until(lambda: model_pod.answers(kube, PLACE), timeout_s=120, what="the model is ready")
        model = model_pod.provider(kube, PLACE)
        operator = OperatorProcess(cluster, kube, logs)
        operator.start()
    try:
        words = [sys.executable, "-m", "tests.scale.wake_subject", PLACE, str(wakes), model["base_url"]]
        done = cluster.run_in_network(words, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    finally:
        operator.stop()
    kube.delete(NAMESPACE, "", PLACE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.scale.wake", description=__doc__)
    parser.add_argument("--wakes", type=int, default=int(os.environ.get("WAKES") or WAKES))
    parser.add_argument("--logs", type=Path, help="keep the operator's log here")
    given = parser.parse_args()
    with logs_in(given.logs) as logs:
        cluster = choose(CLUSTER)
        try:
            with redirect_stdout(sys.stderr):
                cluster.up()
            found = measured(cluster, given.wakes, logs)
        finally:
            with redirect_stdout(sys.stderr):
                cluster.down()
    print(json.dumps({"bench": "wake", "runtime": "CLI"} | found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
