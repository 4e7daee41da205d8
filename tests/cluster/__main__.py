"""`python3 -m tests.cluster`: start, end and use the cluster that tests and the demo run on. Standard library only."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.api import KINDS, Cluster, choose, kubectl
from tests.cluster.layout import DEFAULT_NAME
from tests.cluster.process import ClusterError


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m tests.cluster", description=__doc__)
    default = os.environ.get("COPILOT_TEST_CLUSTER", DEFAULT_NAME)
    parser.add_argument("--name", default=default, help="clusters may stand side by side (default: %(default)s)")
    parser.add_argument("--kind", choices=KINDS, help="default: kind where Docker answers, else embedded")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="have the cluster running")
    up.add_argument(
        "--audit", action="store_true", help="keep a log of writes and of what service accounts do (embedded only)"
    )
    commands.add_parser("down", help="end it and remove all that it made")
    commands.add_parser("status", help="say what runs; exits 1 when the cluster is not up")
    commands.add_parser("env", help='settings of a shell: eval "$(python3 -m tests.cluster env)"')
    load = commands.add_parser("load", help="bring images into the cluster")
    load.add_argument("image", nargs="+", type=Path, help="a tar that `docker load` would take")
    inside = commands.add_parser("exec", help="run a command where pods and Services are reached")
    inside.add_argument("words", nargs=argparse.REMAINDER, help="the command and its arguments")
    commands.add_parser("build", help="only compile what an embedded cluster needs, if it will be one")
    api = commands.add_parser("api-server", help="take the API server away, or bring it back")
    api.add_argument("action", choices=["stop", "start"])
    return parser.parse_args(argv)


def _run(options: argparse.Namespace) -> int:
    if options.command == "build":
        from tests.cluster import packages, programs

        if choose(options.name, options.kind).kind == "embedded":
            packages.ensure()
            programs.ensure_kube()
        return 0
    cluster = choose(options.name, options.kind)
    match options.command:
        case "up":
            cluster.up(audit=options.audit)
            print(f"cluster: export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
        case "down":
            cluster.down()
        case "status":
            status = cluster.status()
            print(json.dumps(status, indent=1))
            return 0 if status["up"] else 1
        case "env":
            _print_environment(cluster)
        case "load":
            for tar in options.image:
                cluster.load_image(tar)
        case "exec":
            words = options.words[1:] if options.words[:1] == ["--"] else options.words
            if not words:
                raise ClusterError("exec: which command?")
            argv = cluster.in_network(words)
            os.execvpe(argv[0], argv, cluster.environment())
        case "api-server":
            cluster.stop_api_server() if options.action == "stop" else cluster.start_api_server()
    return 0


def _print_environment(cluster: Cluster) -> None:
    values = {"KUBECONFIG": cluster.kubeconfig, "COPILOT_TEST_CLUSTER": cluster.name, "KUBECTL": kubectl()}
    for key, value in values.items():
        print(f"export {key}={shlex.quote(str(value))}")


def main() -> int:
    try:
        return _run(_arguments(sys.argv[1:]))
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
