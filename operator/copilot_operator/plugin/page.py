"""``page``: a local port that leads to the operator's status page."""

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Final

import click

from copilot_operator.domain.kinds import DEPLOYMENT, LEASE
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import MANAGED_BY, NAME_LABEL
from copilot_operator.plugin.endpoint import Endpoint
from copilot_operator.plugin.errors import KubectlError, PluginError
from copilot_operator.plugin.forward import Relay, connected, forwarded, until_told
from copilot_operator.plugin.group import command
from copilot_operator.plugin.kube import Kubectl
from copilot_operator.plugin.options import kubectl_of

LABELS: Final = f"{NAME_LABEL}={MANAGED_BY}"
SETTING: Final = "COPILOT_OPERATOR_PAGE_PORT"


@command(
    click.option("--port", type=click.IntRange(0, 65535), default=8081, show_default=True, help="Local port; 0: any."),
    click.option("--open", "opens", is_flag=True, help="Open it in a browser."),
    click.option(
        "--operator-namespace", default="", help="Where the operator is; looked for in all namespaces if left out."
    ),
)
def page(ctx: click.Context, port: int, opens: bool, operator_namespace: str) -> None:
    """The operator's status page, on a local port."""
    kube = kubectl_of(ctx)
    deployment = operator_of(kube.list(DEPLOYMENT, operator_namespace, labels=LABELS))
    namespace = deployment["metadata"]["namespace"]
    leader = leader_of(_lease(kube, namespace))
    endpoint = Endpoint("", namespace, "", page_port(deployment), LABELS, "the operator", preferred=leader)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(kube, endpoint, port, opens))


def operator_of(found: Sequence[Manifest]) -> Manifest:
    """The operator's Deployment; raises PluginError unless there is one."""
    if len(found) != 1:
        places = ", ".join(each["metadata"]["namespace"] for each in found) or "nowhere"
        raise PluginError(f"an operator was found in: {places}; --operator-namespace says where it is")
    return found[0]


def page_port(deployment: Manifest) -> int:
    """The page's port in a pod; raises PluginError if the operator serves none."""
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        for each in container.get("env") or ():
            if each["name"] == SETTING and each.get("value", "").isdigit():
                return int(each["value"])
    where = f"deployment/{deployment['metadata']['name']} in namespace {deployment['metadata']['namespace']}"
    raise PluginError(f"the operator serves no page: set page.enabled of the chart, or {SETTING} of {where}")


def leader_of(lease: Manifest | None) -> str:
    """The pod that leads, which knows most; "" if that is not known. The Lease's holder is POD-SUFFIX."""
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "").rpartition("-")[0]


def _lease(kube: Kubectl, namespace: str) -> Manifest | None:
    try:
        return kube.seek(LEASE, namespace, MANAGED_BY)
    except KubectlError as error:
        if error.reason != "Forbidden":
            raise
        return None  # any replica will do


async def _serve(kube: Kubectl, endpoint: Endpoint, port: int, opens: bool) -> None:
    async with forwarded(kube, endpoint):
        pass  # what can't be reached is told at once, and not to the first who connects
    relay = Relay(partial(connected, kube, endpoint))
    address = f"http://{await relay.listen(port)}"
    print(f"{address} is the status page; Ctrl-C ends it", flush=True)
    if opens:
        await asyncio.to_thread(click.launch, address)
    await until_told()
    await relay.close()
