"""What exists once per pool: the servers' ServiceAccount, NetworkPolicy and PodDisruptionBudget, and their tokens."""

import ipaddress
from collections.abc import Mapping
from typing import Final

from copilot_operator.api.network import NetworkPeer, NetworkPolicySpec, withheld_of
from copilot_operator.domain.desired.common import gateway_labels, pool_labels, stamped
from copilot_operator.domain.desired.connection import encoded
from copilot_operator.domain.desired.service import AGENT_PORT, CLI_PORT, METRICS_PORT
from copilot_operator.domain.kinds import DISRUPTION_BUDGET, NETWORK_POLICY, SECRET, SERVICE_ACCOUNT, Kind
from copilot_operator.domain.manifest import Manifest, owner_reference
from copilot_operator.domain.naming import (
    GATEWAY_NAME,
    MANAGED_BY,
    NAME_LABEL,
    PROTECTED_LABEL,
    SERVER_NAME,
    USABLE_LABEL,
    busy_servers,
    pool_object,
)
from copilot_operator.domain.snapshot import PoolSnapshot, Settings

NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"


def service_account(snapshot: PoolSnapshot) -> Manifest:
    """An account without rights, whose token no pod mounts."""
    return stamped(
        head(SERVICE_ACCOUNT, snapshot, pool_object(snapshot.name)) | {"automountServiceAccountToken": False}
    )


def token_shard(snapshot: PoolSnapshot, name: str, tokens: Mapping[str, str]) -> Manifest:
    """Secret with the tokens of some servers, by server; ``resourceVersion`` in it makes the write conditional."""
    manifest = head(SECRET, snapshot, name)
    manifest["metadata"]["labels"][USABLE_LABEL] = "false"
    if version := snapshot.versions.get(name):
        manifest["metadata"]["resourceVersion"] = version
    return manifest | {"type": "Opaque", "data": encoded(dict(sorted(tokens.items())))}


def network_policy(snapshot: PoolSnapshot) -> Manifest:
    """Who may talk to the servers, and whom they may talk to.

    In: the gateway, or without one applications, to the CLI's port; the operator to the CLI and the agent; who is in
    ``allowMetricsFrom`` to the metrics. Kubelet's probes come from the node and need no rule. Out: DNS and
    ``egressCIDRs``, never a cloud's metadata service.
    """
    assert snapshot.spec
    policy = snapshot.spec.network_policy
    clients = peers_of(policy)
    if snapshot.spec.gateway.enabled:
        clients = [{"podSelector": {"matchLabels": gateway_labels(snapshot.name)}}]
    operator = operator_peer(snapshot.settings)
    spec = {
        "podSelector": {"matchLabels": pool_labels(snapshot.name)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": clients, "ports": ports("TCP", CLI_PORT)},
            {"from": [operator], "ports": ports("TCP", CLI_PORT, AGENT_PORT)},
            *([{"from": clients, "ports": ports("TCP", AGENT_PORT)}] if snapshot.spec.gateway.enabled else []),
            *metrics_rule(policy, METRICS_PORT),
        ],
        "egress": [
            {"ports": ports("UDP", 53) + ports("TCP", 53)},
            *([{"to": [block(cidr) for cidr in policy.egress_cidrs]}] if policy.egress_cidrs else []),
        ],
    }
    return stamped(head(NETWORK_POLICY, snapshot, pool_object(snapshot.name)) | {"spec": spec})


def disruption_budget(snapshot: PoolSnapshot) -> Manifest:
    """Refuses every eviction of a server that works, which its label tells (nodes.py). Others may be evicted.

    A server being drained is not Ready, and would be free to evict under the policy AlwaysAllow.
    """
    spec = {
        "maxUnavailable": 0,
        "selector": {"matchLabels": pool_labels(snapshot.name) | {PROTECTED_LABEL: "true"}},
        "unhealthyPodEvictionPolicy": "IfHealthyBudget",
    }
    return stamped(head(DISRUPTION_BUDGET, snapshot, busy_servers(snapshot.name)) | {"spec": spec})


def head(kind: Kind, snapshot: PoolSnapshot, name: str) -> Manifest:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": name,
            "namespace": snapshot.namespace,
            "labels": pool_labels(snapshot.name),
            "ownerReferences": [owner_reference(snapshot.raw)],
        },
    }


def ports(protocol: str, *ports: int) -> list[Manifest]:
    return [{"protocol": protocol, "port": port} for port in ports]


def peers_of(policy: NetworkPolicySpec) -> list[Manifest]:
    """The applications: ``allowFrom``, by default the namespace's pods that are neither servers nor gateways."""
    others = {"key": NAME_LABEL, "operator": "NotIn", "values": [SERVER_NAME, GATEWAY_NAME]}
    return [_peer(peer) for peer in policy.allow_from] or [{"podSelector": {"matchExpressions": [others]}}]


def metrics_rule(policy: NetworkPolicySpec, port: int) -> list[Manifest]:
    """The rule that lets ``allowMetricsFrom`` in; none if it is empty, for a rule without peers lets everybody in."""
    peers = [_peer(peer) for peer in policy.allow_metrics_from]
    return [{"from": peers, "ports": ports("TCP", port)}] if peers else []


def operator_peer(settings: Settings) -> Manifest:
    return {
        "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: settings.operator_namespace}},
        "podSelector": {"matchLabels": {NAME_LABEL: MANAGED_BY}},
    }


def _peer(peer: NetworkPeer) -> Manifest:
    document: Manifest = peer.model_dump(by_alias=True, exclude_none=True, mode="json")
    return document


def block(cidr: str) -> Manifest:
    """A range, without the addresses at which clouds hand out credentials."""
    block: Manifest = {"cidr": str(ipaddress.ip_network(cidr, strict=False))}
    if withheld := withheld_of(cidr):
        block["except"] = withheld
    return {"ipBlock": block}
