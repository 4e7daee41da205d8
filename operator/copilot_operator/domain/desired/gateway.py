"""What a pool's gateway consists of: its pods and their rights, and the Secrets from which it knows what to do.

The gateway reads its Secrets and watches pods by itself (the operator may be away); what it must not do it can't: its
Role names the Secrets that were made for it, and has no verb that writes.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from copilot_operator.api.duration import duration_s
from copilot_operator.api.pool import GatewayTls
from copilot_operator.api.sessions import InfiniteSpec
from copilot_operator.domain.desired.common import gateway_labels, pool_labels, stamped
from copilot_operator.domain.desired.connection import encoded
from copilot_operator.domain.desired.deployment import LOCKED_DOWN
from copilot_operator.domain.desired.pool import block, head, metrics_rule, operator_peer, peers_of, ports
from copilot_operator.domain.desired.service import AGENT_PORT, CLI_PORT, TLS_PORT
from copilot_operator.domain.desired.tenant_entry import trouble_of
from copilot_operator.domain.kinds import (
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import (
    POOL_ANNOTATION,
    USABLE_LABEL,
    gateway_of,
    tenant_key,
)
from copilot_operator.domain.sharing import shared_sessions
from copilot_operator.domain.snapshot import PoolSnapshot
from copilot_operator.domain.tenant_tokens import shared_code

ADMIN_PORT: Final = 4322
TLS_PATH: Final = "/tls"
GATEWAY_UID: Final = 10003
LEAVE_S: Final = 5
END_S: Final = 30  # what the grace period has beyond gateway.drainTimeout
RESOURCES: Final[Manifest] = {"requests": {"cpu": "100m", "memory": "96Mi"}, "limits": {"memory": "1Gi"}}


def service(snapshot: PoolSnapshot) -> Manifest:
    """Where the endpoints of all tenants lead."""
    spec = {
        "type": "ClusterIP",
        "selector": gateway_labels(snapshot.name),
        "ports": [
            {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}
            for name, port in _client_ports(snapshot)
        ],
    }
    return stamped(_head(SERVICE, snapshot) | {"spec": spec})


def _client_ports(snapshot: PoolSnapshot) -> list[tuple[str, int]]:
    return [("copilot", CLI_PORT), *([("copilot-tls", TLS_PORT)] if _tls(snapshot) else [])]


def _tls(snapshot: PoolSnapshot) -> GatewayTls | None:
    assert snapshot.spec
    return snapshot.spec.gateway.tls


def service_account(snapshot: PoolSnapshot) -> Manifest:
    return stamped(_head(SERVICE_ACCOUNT, snapshot) | {"automountServiceAccountToken": False})


def role(snapshot: PoolSnapshot, secrets: tuple[str, ...]) -> Manifest:
    """``secrets``: names of those that it may read. A list or watch must name one of them by its fieldSelector."""
    rules = [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": list(secrets),
            "verbs": ["list", "watch"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": [*(["get"] if _shares(snapshot) else []), "list", "watch"]},
    ]
    return stamped(_head(ROLE, snapshot) | {"rules": rules})


def role_binding(snapshot: PoolSnapshot) -> Manifest:
    name = gateway_of(snapshot.name)
    manifest = _head(ROLE_BINDING, snapshot)
    manifest["roleRef"] = {"apiGroup": ROLE.group, "kind": ROLE.kind, "name": name}
    manifest["subjects"] = [{"kind": SERVICE_ACCOUNT.kind, "name": name, "namespace": snapshot.namespace}]
    return stamped(manifest)


def disruption_budget(snapshot: PoolSnapshot) -> Manifest:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": gateway_labels(snapshot.name)}}
    return stamped(_head(DISRUPTION_BUDGET, snapshot) | {"spec": spec})


def network_policy(snapshot: PoolSnapshot) -> Manifest:
    """In: applications; the operator and ``allowMetricsFrom`` to its admin port, which has its own key for what
    is private. Out: servers and their agents, DNS, and the API server, whose address no selector tells: any but a
    cloud's metadata service."""
    assert snapshot.spec
    spec = {
        "podSelector": {"matchLabels": gateway_labels(snapshot.name)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {
                "from": peers_of(snapshot.spec.network_policy),
                "ports": ports("TCP", *(port for _, port in _client_ports(snapshot))),
            },
            {"from": [operator_peer(snapshot.settings)], "ports": ports("TCP", ADMIN_PORT)},
            *metrics_rule(snapshot.spec.network_policy, ADMIN_PORT),
        ],
        "egress": [
            {"ports": ports("UDP", 53) + ports("TCP", 53)},
            {
                "to": [{"podSelector": {"matchLabels": pool_labels(snapshot.name)}}],
                "ports": ports("TCP", CLI_PORT, AGENT_PORT),
            },
            {"to": [block("0.0.0.0/0"), block("::/0")], "ports": ports("TCP", 443, 6443)},
        ],
    }
    return stamped(_head(NETWORK_POLICY, snapshot) | {"spec": spec})


def deployment(snapshot: PoolSnapshot) -> Manifest:
    """A new gateway is ready before an old one goes; that one has ``drainTimeout`` for the turns of its clients."""
    assert snapshot.spec
    name, labels = gateway_of(snapshot.name), gateway_labels(snapshot.name)
    drain_s = round(duration_s(snapshot.spec.gateway.drain_timeout))
    spec = {
        "replicas": snapshot.spec.gateway.replicas,
        "revisionHistoryLimit": 1,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels, "annotations": {POOL_ANNOTATION: snapshot.name}},
            "spec": {
                "serviceAccountName": name,
                "automountServiceAccountToken": True,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": drain_s + END_S,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": GATEWAY_UID,
                    "runAsGroup": GATEWAY_UID,
                    "fsGroup": GATEWAY_UID,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": labels},
                    }
                ],
                "containers": [_container(snapshot, drain_s)],
                "volumes": [
                    {"name": "cache", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
                    *([_certificate(tls)] if (tls := _tls(snapshot)) else []),
                ],
            },
        },
    }
    return stamped(_head(DEPLOYMENT, snapshot) | {"spec": spec})


def _certificate(tls: GatewayTls) -> Manifest:
    """Two keys of the Secret, whatever it is. Without it gateways serve all the same, without TLS, and say so."""
    items = [{"key": key, "path": key} for key in ("tls.crt", "tls.key")]
    return {"name": "tls", "secret": {"secretName": tls.secret_name, "items": items, "optional": True}}


def _container(snapshot: PoolSnapshot, drain_s: int) -> Manifest:
    return {
        "name": "gateway",
        "image": snapshot.settings.agent_image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "gateway",
            *("--settings", gateway_of(snapshot.name)),
            *("--cache", "/cache"),
            *("--drain-seconds", str(drain_s)),
            *(["--tls", TLS_PATH] if _tls(snapshot) else []),
        ],
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in (*_client_ports(snapshot), ("admin", ADMIN_PORT))
        ],
        "resources": RESOURCES,
        "securityContext": LOCKED_DOWN,
        # nodes lead new connections to it for a moment after it was told to end: it must take them until then
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_S}}},
        "startupProbe": _probe("/livez") | {"periodSeconds": 1, "failureThreshold": 60},
        "livenessProbe": _probe("/livez") | {"periodSeconds": 15, "failureThreshold": 3},
        "readinessProbe": _probe("/readyz") | {"periodSeconds": 2, "failureThreshold": 2},
        "volumeMounts": [
            {"name": "cache", "mountPath": "/cache"},
            *([{"name": "tls", "mountPath": TLS_PATH, "readOnly": True}] if _tls(snapshot) else []),
        ],
    }


def _probe(path: str) -> Manifest:
    return {"httpGet": {"path": path, "port": ADMIN_PORT}, "timeoutSeconds": 5}


def settings(snapshot: PoolSnapshot, shards: tuple[str, ...], tenant_shards: tuple[str, ...]) -> Manifest:
    """The Secret in which a gateway finds what holds for the whole pool, and the names of all else.

    ``shards`` are the Secrets with servers' tokens, ``tenant_shards`` those with tenants.
    """
    files = {
        "pool.json": pool_file(snapshot),
        "shards.json": {"serverTokens": list(shards), "tenants": list(tenant_shards)},
        "pods.json": {"servers": _selector(pool_labels(snapshot.name))},
    }
    values = {name: json.dumps(value, sort_keys=True, separators=(",", ":")) for name, value in files.items()}
    return _secret(snapshot, gateway_of(snapshot.name), values | {"admin.key": snapshot.gateway.admin_key})


def _trouble(snapshot: PoolSnapshot) -> str:
    """Of a server that tenants share; a server of its own is its tenant's matter."""
    found = (trouble_of(each.trouble) for each in snapshot.servers if each.running)
    return next(filter(None, found), "")


def pool_file(snapshot: PoolSnapshot) -> dict[str, Any]:
    """``pool.json`` of a gateway's configuration (gateway/config_files.py)."""
    assert snapshot.spec
    spec = snapshot.spec
    policy, limits = spec.sessions.policy, spec.gateway.limits
    return {
        "isolation": spec.isolation,
        "gateways": spec.gateway.replicas,
        **({"routing": spec.shared.routing} if spec.shared and spec.shared.routing else {}),
        "policy": {
            "models": list(policy.models) or None,
            "hostTools": policy.host_tools,
            "mcpServers": policy.mcp_servers,
            "maxAiCredits": policy.max_ai_credits,
            **({"infinite": _infinite(spec.sessions.infinite)} if spec.sessions.infinite else {}),
        },
        "limits": {
            "connections": limits.connections,
            "requestsPerSecond": limits.requests_per_second,
            "burst": limits.burst,
        },
        "idle": {"sessionS": duration_s(spec.sessions.idle_timeout)},
        "sessions": {
            "most": spec.sessions.max_concurrent,
            "evict": spec.sessions.when_full == "EvictOldestIdle",
            "ephemeral": spec.sessions.persistence == "Ephemeral",
            **({"shared": True} if _shares(snapshot) else {}),
        },
        "forgets": spec.storage.mode == "Ephemeral",
        **({"credential": dict(snapshot.gateway.credential)} if snapshot.gateway.credential else {}),
        **({"trouble": trouble} if (trouble := _trouble(snapshot)) else {}),
        **({"sharedSessions": _shared_sessions(snapshot)} if shared_sessions(snapshot) else {}),
    }


def _shared_sessions(snapshot: PoolSnapshot) -> list[dict[str, Any]]:
    key = snapshot.gateway.tenant_key
    return [
        {"name": each.name, "code": shared_code(key, each.name), "queues": each.when_busy == "Queue"}
        for each in shared_sessions(snapshot)
    ]


def _shares(snapshot: PoolSnapshot) -> bool:
    """Whether all servers have all sessions: gateways ask whether a pod that had one is gone."""
    return snapshot.spec is not None and snapshot.spec.storage.mode == "Shared"


def _infinite(spec: InfiniteSpec) -> dict[str, Any]:
    """As ``session.create`` takes it."""
    background, buffer = spec.background_compaction_threshold, spec.buffer_exhaustion_threshold
    said = {
        "enabled": spec.enabled,
        "backgroundCompactionThreshold": None if background is None else float(background),
        "bufferExhaustionThreshold": None if buffer is None else float(buffer),
    }
    return {name: value for name, value in said.items() if value is not None}


def tenants(snapshot: PoolSnapshot, name: str, entries: Mapping[str, str]) -> Manifest:
    """Secret with what the gateway knows of some tenants."""
    return _secret(snapshot, name, dict(sorted(entries.items())))


def key_secret(snapshot: PoolSnapshot) -> Manifest:
    """The key that tenants' tokens are made from; the gateway can't read it."""
    return _secret(snapshot, tenant_key(snapshot.name), {"key": snapshot.gateway.tenant_key})


def _secret(snapshot: PoolSnapshot, name: str, values: dict[str, str]) -> Manifest:
    manifest = head(SECRET, snapshot, name)
    manifest["metadata"]["labels"][USABLE_LABEL] = "false"
    if version := snapshot.versions.get(name):
        manifest["metadata"]["resourceVersion"] = version
    return manifest | {"type": "Opaque", "data": encoded(values)}


def _head(kind: Kind, snapshot: PoolSnapshot) -> Manifest:
    manifest = head(kind, snapshot, gateway_of(snapshot.name))
    manifest["metadata"]["labels"] = gateway_labels(snapshot.name)
    return manifest


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
