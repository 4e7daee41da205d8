"""Builders of what decisions see: tenant, pool, pods, snapshots. Everything has a default; say what matters."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from copilot_operator.api.pool import PoolSpec, parse_pool
from copilot_operator.api.tenant import TenantSpec, parse_tenant
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import RESTARTED_AT_ANNOTATION, server_of
from copilot_operator.domain.revisions import as_manifest, wanted_revision
from copilot_operator.domain.snapshot import (
    Bundle,
    Children,
    Credential,
    Finding,
    Pod,
    PoolSnapshot,
    PoolView,
    Reading,
    ServerToken,
    Settings,
    TenantSnapshot,
)

NOW: Final = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NOW_TEXT: Final = "2026-03-01T12:00:00Z"
NAMESPACE: Final = "apps"
SETTINGS: Final = Settings(agent_image="registry.example.com/copilot-operator:1", operator_namespace="operators")
IMAGE: Final = "registry.example.com/copilot-cli:1.0.102"
TOKEN: Final = ServerToken("s3cret", "copilotpool-saas-server-tokens-0")
CREDENTIAL: Final = Credential("github", "token", digest="0123456789abcdef")
NO_SECRET: Final = Credential("github", "token", finding=Finding("SecretNotFound", "Secret github does not exist"))
BUNDLE: Final = Bundle("ca", "ca.crt", digest="0011223344556677", certificates=2)
NO_BUNDLE: Final = Bundle("ca", "ca.crt", finding=Finding("ConfigMapNotFound", "ConfigMap ca does not exist"))

Fields = Mapping[str, Any]
"""Dotted path below ``spec`` -> value."""


def a_tenant(name: str = "alice", fields: Fields | None = None, *, uid: str = "uid-alice", **more: Any) -> Manifest:
    """A CopilotTenant as stored, created a second ago; ``more`` are entries of metadata, or its ``status``."""
    raw = {
        "apiVersion": "copilot-operator.io/v1alpha1",
        "kind": "CopilotTenant",
        "metadata": _metadata(name, uid, more),
        "spec": _with({"poolRef": {"name": "saas"}}, fields),
    }
    return raw | ({"status": more["status"]} if more.get("status") else {})


def a_pool_object(name: str = "saas", fields: Fields | None = None, *, uid: str = "uid-saas", **more: Any) -> Manifest:
    """A CopilotPool as stored."""
    spec = {"isolation": "Dedicated", "server": {"image": IMAGE}, "gateway": {"enabled": False}}
    raw = {
        "apiVersion": "copilot-operator.io/v1alpha1",
        "kind": "CopilotPool",
        "metadata": _metadata(name, uid, more),
        "spec": _with(spec, fields),
    }
    return raw | ({"status": more["status"]} if more.get("status") else {})


def a_pool(fields: Fields | None = None, *, paused: bool = False, restarted_at: str = "") -> PoolView:
    """A pool as its tenants see it."""
    return PoolView(pool_spec(fields), paused, restarted_at)


def pool_spec(fields: Fields | None = None) -> PoolSpec:
    return parse_pool(a_pool_object(fields=fields)).spec


def tenant_spec(raw: Manifest) -> TenantSpec:
    return parse_tenant(raw).spec


def a_pod(name: str = "copilot-alice-1", *, ready: bool = True, ip: str | None = "10.0.0.1", **more: Any) -> Pod:
    """A running pod unless told otherwise; its UID is made from its name, and it has started if it is ready."""
    uid, started = more.pop("uid", f"uid-{name}"), more.pop("started", ready)
    return Pod(name=name, uid=uid, ip=ip, ready=ready, started=started, **more)


def a_snapshot(
    *,
    tenant: Manifest | None = None,
    pool: PoolView | None = None,
    token: ServerToken | None = TOKEN,
    children: Children | None = None,
    pods: tuple[Pod, ...] = (),
    reading: Reading | None = None,
    now: datetime = NOW,
    **more: Any,
) -> TenantSnapshot:
    """A tenant of an ordinary pool of which nothing exists yet."""
    raw = tenant or a_tenant()
    return TenantSnapshot(
        raw=raw,
        now=now,
        settings=SETTINGS,
        server=server_of(raw["metadata"]["name"]),
        spec=tenant_spec(raw),
        pool=pool or a_pool(),
        token=token,
        children=children or Children(),
        pods=pods,
        reading=reading or Reading(),
        **more,
    )


def a_pool_snapshot(*, raw: Manifest | None = None, fields: Fields | None = None, **more: Any) -> PoolSnapshot:
    """A pool that nobody uses, and of which nothing exists yet but what its servers would be made from."""
    found = raw or a_pool_object(fields=fields)
    return PoolSnapshot(
        found,
        more.pop("now", NOW),
        SETTINGS,
        spec=parse_pool(found).spec,
        revisions=more.pop("revisions", (a_revision(found),)),
        **more,
    )


def a_revision(pool: Manifest | None = None, *, number: int = 1, proven: bool = False) -> Manifest:
    """The ControllerRevision of what a pool says now."""
    raw = pool or a_pool_object()
    restarted_at = annotations_of(raw).get(RESTARTED_AT_ANNOTATION, "")
    revision = wanted_revision(raw["metadata"]["name"], parse_pool(raw).spec, restarted_at, number)
    manifest = as_manifest(raw, replace(revision, proven=proven))
    return manifest | {"metadata": manifest["metadata"] | {"uid": f"uid-{revision.name}", "resourceVersion": "7"}}


def _metadata(name: str, uid: str, more: Fields) -> Manifest:
    metadata = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": uid,
        "generation": 1,
        "resourceVersion": "7",
        "creationTimestamp": (NOW - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return metadata | {key: value for key, value in more.items() if key != "status"}


def _with(spec: Manifest, fields: Fields | None) -> Manifest:
    made = copy.deepcopy(spec)
    for path, value in (fields or {}).items():
        *parents, last = path.split(".")
        node = made
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return made
