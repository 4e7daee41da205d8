"""``python3 -m tests.stress``: servers are stopped for every cause there is, under turns, and no turn may be lost.

Prints one line of JSON; everything else goes to stderr. The exit code is 1 when a turn was lost or a stop got stuck;
with ``--drain off``, when none was lost, for then the test would be blind.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tests.cluster.api import choose
from tests.cluster.layout import ROOT
from tests.cluster.process import wait_until
from tests.scale.bed import logs_in, simulated_cluster
from tests.scale.client import say
from tests.stress.run import NAMESPACE, Plan
from tests.support import model_pod
from tests.support.installation import OPERATOR_NAMESPACE, bring_images, install_api, install_rights
from tests.support.kube import Kube, write_kubeconfig
from tests.support.operator import ACCOUNT

CLUSTER: Final = "stress"
MOST_POOLS, SERVERS = 12, 5
OPERATOR: Final = str(Path(sys.executable).with_name("copilot-operator"))


def simulated(stops: int, seed: int, *, drains: bool, logs: Path) -> dict[str, Any]:
    """A run against stand-ins with real agents."""
    with simulated_cluster(CLUSTER, served=False) as cluster:
        pools = max(1, min(MOST_POOLS, stops // (2 * SERVERS)))
        plan = Plan(stops, seed, pools, SERVERS, drains, None, str(logs / "operator.log"), [OPERATOR])
        words = [sys.executable, "-m", "tests.stress.run", json.dumps(asdict(plan))]
        return cluster.measured(words)


def real(stops: int, seed: int, *, logs: Path) -> dict[str, Any]:
    """A run against real CLI servers: one pool, since there is one node to drain."""
    cluster = choose(CLUSTER)
    with redirect_stdout(sys.stderr):
        cluster.up()
        try:
            kube = Kube.of(cluster.kubeconfig)
            bring_images(cluster)
            install_api(kube)
            install_rights(kube)
            kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            model_pod.start(kube, NAMESPACE)
            wait_until(lambda: model_pod.answers(kube, NAMESPACE), timeout_s=60, what="the model is ready")
            provider = model_pod.provider(kube, NAMESPACE)
            named = {"type": "openai", "baseUrl": provider["base_url"], "apiKey": "none", "wireApi": "completions"}
            options = {"model": "fake-model", "provider": named, "streaming": True}
            plan = Plan(stops, seed, 1, SERVERS, True, options, str(logs / "operator.log"), [OPERATOR])
            token = kube.token_of(OPERATOR_NAMESPACE, ACCOUNT)
            kubeconfig = write_kubeconfig(logs / "operator.kubeconfig", cluster.kubeconfig_inside, token)
            done = cluster.run_in_network(
                [sys.executable, "-m", "tests.stress.run", json.dumps(asdict(plan))],
                env=os.environ | {"COPILOT_BENCH_OPERATOR_KUBECONFIG": str(kubeconfig)},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                check=True,
            )
        finally:
            cluster.down()
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.stress", description=__doc__)
    parser.add_argument("--stops", type=int, default=int(os.environ.get("STOPS") or 100))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or random.randrange(10**6)))
    parser.add_argument("--drain", choices=("on", "off"), default=os.environ.get("DRAIN") or "on")
    parser.add_argument("--cli", choices=("simulated", "real"), default=os.environ.get("CLI") or "simulated")
    parser.add_argument("--logs", type=Path, help="keep the operator's log here")
    options = parser.parse_args()
    if options.cli == "real" and options.drain == "off":
        parser.error("real agents always drain")
    say(f"stress: {options.stops} stops, seed {options.seed}, drain {options.drain}")
    with logs_in(options.logs) as logs:
        if options.cli == "real":
            figures = real(options.stops, options.seed, logs=logs)
        else:
            figures = simulated(options.stops, options.seed, drains=options.drain == "on", logs=logs)
    line = {"bench": "stress-drain", "cli": options.cli, "drain": options.drain} | figures | {"seed": options.seed}
    print(json.dumps(line), flush=True)
    if options.drain == "off":
        return 0 if line["lost"] else 1
    return 1 if line["lost"] or line["stuck"] or not line["stops"] else 0


if __name__ == "__main__":
    sys.exit(main())
