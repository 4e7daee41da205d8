"""``doctor``: asks what the checks need to know, and prints them."""

import concurrent.futures
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import click

from copilot_operator.domain.kinds import CLAIM, CRD, DEPLOYMENT, POD, POOL, SECRET, STORAGE_CLASS, TENANT
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import MANAGED_BY, MANAGED_BY_LABEL, NAME_LABEL
from copilot_operator.plugin import checks, tables
from copilot_operator.plugin.checks import RIGHTS, Answer, Check, Level
from copilot_operator.plugin.errors import PluginError
from copilot_operator.plugin.group import command
from copilot_operator.plugin.kube import Kubectl
from copilot_operator.plugin.options import (
    everywhere_option,
    kubectl_of,
    output_option,
    scope_of,
)
from copilot_operator.plugin.output import document_text
from copilot_operator.plugin.view import status_document

SIDE_BY_SIDE: Final = 6


@command(
    everywhere_option,
    output_option("json", "yaml"),
    click.option(
        "--operator-namespace", default="", help="Where the operator is; looked for in all namespaces if left out."
    ),
)
def doctor(ctx: click.Context, output: str | None, operator_namespace: str) -> None:
    """Check the cluster, the installation, your rights, and what pools and tenants need. Exits 1 if a check fails."""
    kube = kubectl_of(ctx)
    found = examine(kube, scope_of(ctx, kube), operator_namespace)
    verdict = checks.worst(found)
    if output:
        document = {"kind": "CopilotDoctor", "verdict": verdict.value, "checks": [each.to_document() for each in found]}
        click.echo(document_text(document, output))
    else:
        tables.show([tables.Table("", ("LEVEL", "CHECK", "FOUND"), [(e.level.value, e.name, e.found) for e in found])])
        for each in found:
            if each.way_out and each.level is not Level.OK:
                tables.say(f"\n{each.name}: {each.found}", style=each.level.value)
                tables.say(f"  → {each.way_out}")
    if verdict is Level.FAIL:
        ctx.exit(1)


def examine(kube: Kubectl, scope: str, operator_namespace: str = "") -> list[Check]:
    """All checks, in the order in which one would mend what is wrong. ``scope``: a namespace, "" for all."""
    version = _try(lambda: kube.raw("/version"))
    found = [checks.version(version)]
    if isinstance(version, PluginError):
        return found
    ours = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
    questions: dict[str, Callable[[], Any]] = {
        "CopilotPool": lambda: kube.seek(CRD, "", "copilotpools.copilot-operator.io"),
        "CopilotTenant": lambda: kube.seek(CRD, "", "copilottenants.copilot-operator.io"),
        "operator": lambda: kube.list(DEPLOYMENT, operator_namespace, labels=f"{NAME_LABEL}=copilot-operator"),
        "rights": lambda: kube.review([right.review(scope) for right in RIGHTS]),
        "classes": lambda: kube.list(STORAGE_CLASS),
        "pools": lambda: kube.list(POOL, scope),
        "tenants": lambda: kube.list(TENANT, scope),
        "claims": lambda: kube.list(CLAIM, scope, labels=ours),
        "pods": lambda: kube.list(POD, scope, labels=ours),
    }
    answers = _ask(questions)
    found += checks.crds(answers)
    found += checks.operator(answers["operator"])
    found += checks.rights(answers["rights"], f"namespace {scope}" if scope else "all namespaces")
    pools: list[Manifest] = [] if isinstance(answers["pools"], PluginError) else answers["pools"]
    tenants: list[Manifest] = [] if isinstance(answers["tenants"], PluginError) else answers["tenants"]
    found += checks.storage(answers["classes"], pools)
    found += checks.claims(answers["claims"])
    named = checks.references([*pools, *tenants])
    places = {(owner["metadata"]["namespace"], secret) for owner, secret, _ in named}
    secrets = _ask({place: _asking(kube, place) for place in sorted(places)})
    found += checks.credentials(named, secrets)
    found += checks.images(answers["pods"])
    found += checks.gateways(pools)
    found += checks.objects(status_document(pools, tenants, [], datetime.now(UTC)))
    return found


def _asking(kube: Kubectl, place: tuple[str, str]) -> Callable[[], Manifest | None]:
    return lambda: kube.seek(SECRET, *place)


def _ask(questions: dict[Any, Callable[[], Any]]) -> dict[Any, Answer]:
    """Side by side; an answer may be the error that came instead."""
    with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return dict(zip(questions, pool.map(_try, questions.values()), strict=True))


def _try(ask: Callable[[], Any]) -> Answer:
    try:
        return ask()
    except PluginError as error:
        return error
