"""``copilot-operator export aci|manifests``: reads pools and tenants, prints servers. Nothing is written anywhere.

Values of Secrets are neither read nor printed: what comes out names Secrets, or asks for parameters.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Final

import yaml

from copilot_operator.domain.manifest import Manifest
from copilot_operator.export import aci, manifests
from copilot_operator.export.servers import ExportError, Server, servers
from copilot_operator.export.source import from_cluster, from_files

TIMEOUT_S: Final = 60.0
IMAGE_VARIABLE: Final = "COPILOT_OPERATOR_IMAGE"


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 1 with the reason on standard error."""
    given = _parser().parse_args(argv)
    try:
        pools, tenants = _found(given)
        chosen = _chosen(tenants, given)
        made = servers(pools, chosen, given.agent_image)
        print(_written(made, given), end="")
    except (ExportError, TimeoutError) as error:
        print(f"copilot-operator export: {error or 'the cluster does not answer'}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="copilot-operator export", description="Servers without the operator.")
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, text in (
        ("manifests", "plain Kubernetes: a Deployment, a Service and a claim for each tenant"),
        ("aci", "Azure Container Instances: a container group for each tenant"),
    ):
        kind = kinds.add_parser(name, help=text, description=text)
        kind.add_argument(
            "-f",
            "--file",
            action="append",
            default=[],
            metavar="FILE",
            help="with pools and tenants (- is standard input)",
        )
        kind.add_argument("--kubeconfig", metavar="FILE", help="without -f: of the cluster to read them from")
        kind.add_argument("-n", "--namespace", default="", help="only what is in it")
        kind.add_argument("--pool", default="", help="only its tenants")
        kind.add_argument("--tenant", default="", help="only this one")
        kind.add_argument("--agent-image", default=os.environ.get(IMAGE_VARIABLE, ""), metavar="IMAGE",
                          help=f"the operator's image, which agents run from (default: ${IMAGE_VARIABLE})")  # fmt: skip
    kinds.choices["aci"].add_argument("--format", choices=["arm", "yaml"], default="arm",
                                      help="an ARM template, or a file for az container create")  # fmt: skip
    return parser


def _found(given: argparse.Namespace) -> tuple[list[Manifest], list[Manifest]]:
    """Pools and tenants."""
    if not given.agent_image:
        raise ExportError(f"give the operator's image, which agents run from: --agent-image, or ${IMAGE_VARIABLE}")
    if given.file:
        return from_files(given.file)

    async def read() -> tuple[list[Manifest], list[Manifest]]:
        async with asyncio.timeout(TIMEOUT_S):
            return await from_cluster(given.kubeconfig, given.namespace)

    return asyncio.run(read())


def _chosen(tenants: Sequence[Manifest], given: argparse.Namespace) -> list[Manifest]:
    chosen = [
        tenant
        for tenant in tenants
        if given.namespace in ("", tenant["metadata"].get("namespace", ""))
        and given.pool in ("", ((tenant["spec"].get("poolRef") or {}).get("name")))
        and given.tenant in ("", tenant["metadata"]["name"])
    ]
    if not chosen:
        what = [
            f"{name} {value}"
            for name, value in vars(given).items()
            if name in ("namespace", "pool", "tenant") and value
        ]
        among = ", ".join(str(tenant["metadata"]["name"]) for tenant in tenants[:20]) or "none at all"
        raise ExportError(f"no such tenant ({', '.join(what) or 'any'}); there are: {among}")
    return chosen


def _written(made: Sequence[Server], given: argparse.Namespace) -> str:
    if given.what == "manifests":
        return _yaml(manifests.manifests(made), manifests.instructions(made))
    if given.format == "yaml":
        group, parameters = aci.document(made)
        return _yaml([group], aci.instructions(made, parameters, "FILE"))
    print("\n".join(aci.instructions(made, (), "FILE")), file=sys.stderr)  # JSON has no comments
    return aci.as_json(aci.template(made))


def _yaml(objects: Sequence[Manifest], lines: Sequence[str]) -> str:
    head = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    return head + "---\n" + "---\n".join(yaml.safe_dump(obj, sort_keys=False, width=118) for obj in objects)
