"""Who there is in and around a cluster with three pools, and which ports each may reach of each other: the table that
what the operator and the chart render is held against (``tests/support/network.py`` reads it)."""

from collections.abc import Mapping, Sequence
from typing import Final

from copilot_operator.domain.desired.common import gateway_labels, pool_labels
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import MANAGED_BY, NAME_LABEL
from copilot_operator.domain.pool_plan import plan_pool
from copilot_operator.domain.snapshot import GatewayView
from copilot_operator.domain.steps import Apply
from tests.support.network import Party, reaches
from tests.support.snapshots import NAMESPACE, SETTINGS, a_pool_object, a_pool_snapshot

PROMETHEUS: Final = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
POOLS: Final[dict[str, dict[str, object]]] = {
    "dedicated": {"gateway": {"enabled": True}},
    "shared": {
        "isolation": "Shared",
        "shared": {"replicas": 2},
        "gateway": {"enabled": True, "tls": {"secretName": "shared-tls"}},
    },
    "direct": {},  # without a gateway
}

OPERATOR: Final = Party(
    "operator", "10.244.0.10", SETTINGS.operator_namespace, {NAME_LABEL: MANAGED_BY}, named_ports={"http": 8080}
)
HELM_TEST: Final = Party("helm test", "10.244.0.11", SETTINGS.operator_namespace, {NAME_LABEL: "copilot-operator-test"})
PARTIES: Final = (
    *(Party(f"{pool}'s server", f"10.244.1.{n}", NAMESPACE, pool_labels(pool)) for n, pool in enumerate(POOLS, 1)),
    Party("another server of dedicated", "10.244.1.9", NAMESPACE, pool_labels("dedicated")),
    *(
        Party(f"{pool}'s gateway", f"10.244.2.{n}", NAMESPACE, gateway_labels(pool))
        for n, pool in enumerate(("dedicated", "shared"), 1)
    ),
    OPERATOR,
    HELM_TEST,
    Party("poses as operator", "10.244.3.1", NAMESPACE, {NAME_LABEL: MANAGED_BY}),
    Party("application", "10.244.3.2", NAMESPACE, {"app": "web"}),
    Party("pod elsewhere", "10.244.3.3", "elsewhere", {"app": "web"}),
    Party("Prometheus", "10.244.3.4", "monitoring", {"app": "prometheus"}),
    Party("API server", "10.96.0.1"),
    Party("Internet", "203.0.113.7"),
    Party("Internet by IPv6", "2001:db8::7"),
    Party("EC2's metadata", "169.254.169.254"),
    Party("EC2's metadata by IPv6", "fd00:ec2::254"),
    Party("EKS's credentials", "169.254.170.23"),
    Party("EKS's credentials by IPv6", "fd00:ec2::23"),
    Party("GCE's metadata by IPv6", "fd20:ce::254"),
    Party("Azure's wire server", "168.63.129.16"),
    Party("Alibaba's metadata", "100.100.100.200"),
)
CLOUD: Final = tuple(each.name for each in PARTIES[-7:])
OUTSIDE: Final = ("API server", "Internet", "Internet by IPv6")
OPEN_PODS: Final = ("poses as operator", "application", "pod elsewhere", "Prometheus", "helm test")
"""No policy of ours is about them; nor about what anybody's pods may do who are not ours."""

PORTS: Final = (53, 80, 443, 3128, 4321, 4322, 4323, 4443, 6443, 8080)
ALL: Final = frozenset(PORTS)
DNS: Final = frozenset({53})

SERVERS: Final = ("dedicated's server", "shared's server", "direct's server", "another server of dedicated")
GATEWAYS: Final = ("dedicated's gateway", "shared's gateway")

Table = Mapping[tuple[str, str], frozenset[int]]


def rendered(fields: Mapping[str, object] | None = None) -> list[Manifest]:
    """The NetworkPolicies that the operator makes for the pools, as it plans them."""
    found = []
    for name, own in POOLS.items():
        said = {**own, "networkPolicy.allowMetricsFrom": [PROMETHEUS], **(fields or {})}
        raw = a_pool_object(name, said)
        steps = plan_pool(a_pool_snapshot(raw=raw, gateway=GatewayView(tenant_key="key", admin_key="key")))
        applied = [step.manifest for step in steps if isinstance(step, Apply)]
        found += [each for each in applied if each["kind"] == "NetworkPolicy"]
    return found


def reachable(policies: Sequence[Manifest]) -> Table:
    """What each party may reach of each other, without those pairs that may not at all."""
    found = {
        (source.name, target.name): frozenset(port for port in PORTS if reaches(policies, source, target, port))
        for source in PARTIES
        for target in PARTIES
        if source is not target and source.labels is not None
    }
    return {pair: ports for pair, ports in found.items() if ports}


def expected(*, operator_has_one: bool) -> Table:
    """What may be reached; whatever is not here may not. ``operator_has_one``: a NetworkPolicy of the chart's."""
    table: dict[tuple[str, str], set[int]] = {}

    def may(sources: Sequence[str], targets: Sequence[str], *ports: int) -> None:
        for source in sources:
            for target in targets:
                if source != target:
                    table.setdefault((source, target), set()).update(ports)

    mine: Sequence[str] = (*SERVERS, *GATEWAYS)
    # what servers come for: models, wherever they are; and they look names up, wherever that is done
    may(SERVERS, (*OUTSIDE, *OPEN_PODS), *PORTS)
    may(GATEWAYS, OUTSIDE, 443, 6443)
    may(GATEWAYS, OPEN_PODS, 443, 6443)
    may(mine, (*OUTSIDE, *OPEN_PODS, *CLOUD), 53)
    # a gateway comes to its own pool's servers, and what stands beside them
    may(["dedicated's gateway"], ["dedicated's server", "another server of dedicated"], 4321, 4322)
    may(["shared's gateway"], ["shared's server"], 4321, 4322)
    # applications come to gateways, or, where there is none, to servers; and so do all pods of the namespace
    may(("application", "poses as operator"), (*GATEWAYS, "direct's server"), 4321)
    may(
        ("application", "poses as operator"), ["shared's gateway"], 4443
    )  # and the one that has a certificate, with TLS
    # the operator pings servers, has agents drain, asks gateways; who may look does nothing else
    may(["operator"], SERVERS, 4321, 4322)
    may(["operator"], GATEWAYS, 4322)
    may(["Prometheus"], SERVERS, 4323)
    may(["Prometheus"], GATEWAYS, 4322)
    # what is not ours goes where it likes, and comes in where nothing is ours
    may(OPEN_PODS, (*OUTSIDE, *CLOUD, *OPEN_PODS), *PORTS)
    if operator_has_one:
        may(["operator"], (*OUTSIDE, *OPEN_PODS), 53, 443, 6443)
        may(["operator"], CLOUD, 53)
        may(["helm test", "Prometheus"], ["operator"], 8080)
    else:
        may(["operator"], (*OUTSIDE, *CLOUD, *OPEN_PODS), *PORTS)
        may(OPEN_PODS, ["operator"], *PORTS)
        may(SERVERS, ["operator"], *PORTS)
        may(GATEWAYS, ["operator"], 53, 443, 6443)
    return {pair: frozenset(ports) for pair, ports in table.items()}


def differences(found: Table, wanted: Table) -> list[str]:
    """What is open that must not be, and the other way round, a line for each pair."""
    pairs = sorted(found.keys() | wanted.keys())
    return [
        f"{source} -> {target}: may {sorted(found.get(pair, ()))}, should {sorted(wanted.get(pair, ()))}"
        for pair in pairs
        for source, target in [pair]
        if found.get(pair) != wanted.get(pair)
    ]
