"""``restart``, ``suspend``, ``wake``, ``pause``, ``unpause``: what people decide, written where the operator reads it.

There is no ``drain``: every stop is a drain, and the API knows no drain that is not the beginning of one.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import click

from copilot_operator.api.conditions import timestamp
from copilot_operator.domain.kinds import POD, POOL, TENANT, Kind
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import PAUSED_ANNOTATION, RESTARTED_AT_ANNOTATION
from copilot_operator.plugin import waits
from copilot_operator.plugin.endpoint import is_shared, pool_labels, server_labels
from copilot_operator.plugin.errors import PluginError
from copilot_operator.plugin.follow import follow
from copilot_operator.plugin.group import command
from copilot_operator.plugin.kube import Kubectl
from copilot_operator.plugin.options import (
    find_object,
    kubectl_of,
    name_argument,
    namespace_of,
    wait_options,
)
from copilot_operator.plugin.reasons import condition

EITHER = "TENANT|POOL|KIND/NAME"


@command(name_argument(TENANT, POOL, metavar=EITHER), wait_options)
def restart(ctx: click.Context, name: str, wait: bool, timeout: float) -> None:
    """Restart the server of a tenant, or those of a pool, each once its turns are done."""
    kube = kubectl_of(ctx)
    namespace = namespace_of(ctx, kube)
    kind, obj = find_object(kube, namespace, name, TENANT, POOL)
    name = obj["metadata"]["name"]
    if kind is TENANT:
        _refuse_what_has_no_server(kube, obj)
    labels = server_labels(name) if kind is TENANT else pool_labels(name)
    _warn_if_paused(kube, kind, obj, wait)
    running = kube.list(POD, namespace, labels=labels) if wait else []
    before = {pod["metadata"]["uid"]: waits.server_of_pod(pod) for pod in running}
    told_before = condition(obj, "Progressing").get("message", "")
    _annotate(kube, kind, obj, RESTARTED_AT_ANNOTATION, timestamp(datetime.now(UTC)))
    click.echo(f"{_named(kind, name)}: restart asked for; servers stop once their turns are done")

    def look() -> waits.Progress:
        live, pods = kube.get(kind, namespace, name), kube.list(POD, namespace, labels=labels)
        if kind is TENANT:
            return waits.tenant_restarted(live, pods, before.keys())
        return waits.pool_restarted(live, pods, before, told_before)

    _wait(wait, look, kind, obj, "restart", timeout)


@command(name_argument(TENANT, metavar="TENANT"), wait_options)
def suspend(ctx: click.Context, name: str, wait: bool, timeout: float) -> None:
    """Stop a tenant's server once its turns are done, and keep everything else."""
    _suspend(ctx, name, True, wait, timeout)


@command(name_argument(TENANT, metavar="TENANT"), wait_options)
def wake(ctx: click.Context, name: str, wait: bool, timeout: float) -> None:
    """Start the server of a suspended tenant again, with its sessions."""
    _suspend(ctx, name, False, wait, timeout)


@command(name_argument(TENANT, POOL, metavar=EITHER), wait_options)
def pause(ctx: click.Context, name: str, wait: bool, timeout: float) -> None:
    """Have the operator keep its hands off a tenant or pool."""
    _pause(ctx, name, True, wait, timeout)


@command(name_argument(TENANT, POOL, metavar=EITHER), wait_options)
def unpause(ctx: click.Context, name: str, wait: bool, timeout: float) -> None:
    """Let the operator act on a tenant or pool again."""
    _pause(ctx, name, False, wait, timeout)


def _suspend(ctx: click.Context, name: str, wanted: bool, wait: bool, timeout_s: float) -> None:
    kube = kubectl_of(ctx)
    namespace = namespace_of(ctx, kube)
    _, obj = find_object(kube, namespace, name, TENANT)
    name, done = obj["metadata"]["name"], "suspended" if wanted else "awake"
    _warn_if_paused(kube, TENANT, obj, wait)
    if bool((obj.get("spec") or {}).get("suspended")) == wanted:
        click.echo(f"tenant {name}: spec.suspended is {str(wanted).lower()} already")
    else:
        kube.merge(TENANT, namespace, name, {"spec": {"suspended": wanted}})
        click.echo(f"tenant {name}: spec.suspended set to {str(wanted).lower()}")
    judge = waits.suspended if wanted else waits.awake
    _wait(wait, lambda: judge(kube.get(TENANT, namespace, name)), TENANT, obj, done, timeout_s)


def _pause(ctx: click.Context, name: str, wanted: bool, wait: bool, timeout_s: float) -> None:
    kube = kubectl_of(ctx)
    namespace = namespace_of(ctx, kube)
    kind, obj = find_object(kube, namespace, name, TENANT, POOL)
    name, done = obj["metadata"]["name"], "paused" if wanted else "unpaused"
    _annotate(kube, kind, obj, PAUSED_ANNOTATION, "true" if wanted else None)
    click.echo(f"{_named(kind, name)}: {done}")
    if not wanted and kind is TENANT and (pool := _pool_of(kube, obj)) and _is_paused(pool):
        click.echo(f"warning: its pool is paused, and so is the tenant: {_unpause(POOL, pool)}", err=True)
        return
    _wait(wait, lambda: waits.paused(kube.get(kind, namespace, name), wanted), kind, obj, done, timeout_s)


def _wait(
    wanted: bool, look: Callable[[], waits.Progress], kind: Kind, obj: Manifest, what: str, timeout_s: float
) -> None:
    if wanted:
        metadata = obj["metadata"]
        about = f"{_word(kind)}/{metadata['name']} -n {metadata['namespace']}"
        way_out = f"It goes on without being waited for; see: kubectl copilot explain {about}"
        follow(look, f"{_named(kind, metadata['name'])}: {what}", timeout_s, way_out=way_out)


def _refuse_what_has_no_server(kube: Kubectl, tenant: Manifest) -> None:
    name = tenant["metadata"]["name"]
    if (tenant.get("spec") or {}).get("suspended"):
        raise PluginError(f"tenant {name} is suspended: no server of it runs. To start it: kubectl copilot wake {name}")
    pool = _pool_of(kube, tenant)
    if pool and is_shared(pool):
        shared = pool["metadata"]["name"]
        raise PluginError(
            f"tenant {name} has no server of its own: pool {shared} is Shared. "
            f"To restart all its servers: kubectl copilot restart pool/{shared}"
        )


def _warn_if_paused(kube: Kubectl, kind: Kind, obj: Manifest, wait: bool) -> None:
    """What is written now is read later; nobody waits for that."""
    holder, held_by = obj, kind
    if not _is_paused(obj):
        pool = _pool_of(kube, obj) if kind is TENANT else None
        if pool is None or not _is_paused(pool):
            return
        holder, held_by = pool, POOL
    message = (
        f"{_named(held_by, holder['metadata']['name'])} is paused: the operator acts after {_unpause(held_by, holder)}"
    )
    if wait:
        raise PluginError(message)
    click.echo(f"warning: {message}", err=True)


def _unpause(kind: Kind, obj: Manifest) -> str:
    return f"kubectl copilot unpause {_word(kind)}/{obj['metadata']['name']} -n {obj['metadata']['namespace']}"


def _pool_of(kube: Kubectl, tenant: Manifest) -> Manifest | None:
    name = ((tenant.get("spec") or {}).get("poolRef") or {}).get("name", "")
    return kube.seek(POOL, tenant["metadata"]["namespace"], name) if name else None


def _annotate(kube: Kubectl, kind: Kind, obj: Manifest, key: str, value: str | None) -> None:
    metadata = obj["metadata"]
    kube.merge(kind, metadata["namespace"], metadata["name"], {"metadata": {"annotations": {key: value}}})


def _is_paused(obj: Manifest) -> bool:
    return annotations_of(obj).get(PAUSED_ANNOTATION) == "true"


def _word(kind: Kind) -> str:
    return "pool" if kind is POOL else "tenant"


def _named(kind: Kind, name: str) -> str:
    return f"{_word(kind)} {name}"
