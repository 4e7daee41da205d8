"""``status`` and ``explain``: what is read, and what is printed."""

import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, TypeVar

import click

from copilot_operator.domain.kinds import DEPLOYMENT, EVENT, POOL, TENANT
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import NAME_LABEL, SERVER_NAME
from copilot_operator.plugin import tables
from copilot_operator.plugin.errors import KubectlError
from copilot_operator.plugin.explain import explanation, explanation_lines
from copilot_operator.plugin.group import command
from copilot_operator.plugin.kube import Kubectl
from copilot_operator.plugin.options import (
    everywhere_option,
    find_object,
    kubectl_of,
    name_argument,
    namespace_of,
    output_option,
    scope_of,
)
from copilot_operator.plugin.output import document_text
from copilot_operator.plugin.view import status_document

T = TypeVar("T")
NOTHING: Final = (
    "No pools and no tenants in {place}. A first pool: manifests/samples, or see: kubectl explain copilotpool.spec"
)


@command(everywhere_option, output_option("json", "yaml", "wide"))
def status(ctx: click.Context, output: str | None) -> None:
    """Pools and tenants at a glance, and what is wrong."""
    kube = kubectl_of(ctx)
    scope = scope_of(ctx, kube)
    now = datetime.now(UTC)
    pools, tenants = kube.list(POOL, scope), kube.list(TENANT, scope)
    document = status_document(pools, tenants, _servers(kube, scope) if _any_shared(pools) else [], now)
    if output in ("json", "yaml"):
        click.echo(document_text(document, output))
        return
    if not pools and not tenants:
        click.echo(NOTHING.format(place=f"namespace {scope}" if scope else "the cluster"), err=True)
        return
    tables.show(tables.status_tables(document, now, wide=output == "wide", everywhere=not scope))
    problems = tables.problem_lines(document, everywhere=not scope)
    if problems:
        click.echo()
    for severity, line in problems:
        tables.say(line, style=severity)


@command(name_argument(TENANT, POOL, metavar="TENANT|POOL|KIND/NAME"), output_option("json", "yaml"))
def explain(ctx: click.Context, name: str, output: str | None) -> None:
    """Why a tenant or pool is as it is, in the operator's own words."""
    kube = kubectl_of(ctx)
    namespace = namespace_of(ctx, kube)
    kind, obj = find_object(kube, namespace, name, TENANT, POOL)
    now = datetime.now(UTC)
    pool = deployment = None
    deployments: list[Manifest] = []
    if kind is TENANT:
        pool = kube.seek(POOL, namespace, ((obj.get("spec") or {}).get("poolRef") or {}).get("name", ""))
        if server := (obj.get("status") or {}).get("server"):
            deployment = _optional(lambda: kube.seek(DEPLOYMENT, namespace, server))
    elif _any_shared([obj]):
        deployments = _servers(kube, namespace)
    selector = f"involvedObject.kind={kind.kind},involvedObject.name={obj['metadata']['name']}"
    events = _optional(lambda: kube.list(EVENT, namespace, fields=selector)) or []
    found = explanation(obj, now, pool=pool, deployment=deployment, servers=deployments, events=events)
    if output:
        click.echo(document_text(found, output))
        return
    for style, line in explanation_lines(found, now):
        tables.say(line, style=style)


def _any_shared(pools: Iterable[Manifest]) -> bool:
    return any((pool.get("spec") or {}).get("isolation") == "Shared" for pool in pools)


def _servers(kube: Kubectl, namespace: str) -> list[Manifest]:
    """Deployments of servers."""
    return _optional(lambda: kube.list(DEPLOYMENT, namespace, labels=f"{NAME_LABEL}={SERVER_NAME}")) or []


def _optional(ask: Callable[[], T]) -> T | None:
    """What adds to an answer, and is left out, with a word about it, for who may not read it."""
    try:
        return ask()
    except KubectlError as error:
        if error.reason != "Forbidden":
            raise
        print(f"warning: left out, because it may not be read: {error.message}", file=sys.stderr)
        return None
