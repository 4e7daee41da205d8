"""Who may connect to whom, as NetworkPolicies say it (networking.k8s.io/v1): not every cluster enforces them, so that a
test can only tell what is meant by reading them as a network plugin does.

A connection needs both ends: the source's policies must let it out, the target's must let it in. A pod that no policy
of a direction selects is open in it. What policies say is united: one that allows is enough.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

Object: TypeAlias = dict[str, Any]

NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Party:
    """One end of a connection: a pod, or, without ``labels``, an address that is nobody's pod."""

    name: str
    address: str
    namespace: str = ""
    labels: Mapping[str, str] | None = None
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    """Besides the one with its name, which every namespace has."""
    named_ports: Mapping[str, int] = field(default_factory=dict)


def reaches(policies: Sequence[Object], source: Party, target: Party, port: int, protocol: str = "TCP") -> bool:
    """Whether ``source`` may connect to ``port`` of ``target``."""
    return _open(policies, "Egress", source, target, target, port, protocol) and _open(
        policies, "Ingress", target, source, target, port, protocol
    )


def _open(
    policies: Sequence[Object], direction: str, own: Party, other: Party, listener: Party, port: int, protocol: str
) -> bool:
    """Whether the policies that select ``own`` let it deal with ``other`` in this direction."""
    if own.labels is None:
        return True
    ruling = [each for each in policies if direction in _types(each) and _selects(each, own)]
    rules, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    return not ruling or any(
        _any_peer(rule.get(peers), other, policy["metadata"]["namespace"])
        and _any_port(rule.get("ports"), listener, port, protocol)
        for policy in ruling
        for rule in policy["spec"].get(rules) or ()
    )


def _types(policy: Object) -> Iterable[str]:
    """Where nothing is said: Ingress, and Egress if there is a rule for it."""
    spec = policy["spec"]
    said: list[str] | None = spec.get("policyTypes")
    return said or ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def _selects(policy: Object, pod: Party) -> bool:
    return policy["metadata"]["namespace"] == pod.namespace and matches(policy["spec"]["podSelector"], pod.labels or {})


def _any_peer(peers: list[Object] | None, party: Party, namespace: str) -> bool:
    """No peers, or none said: everybody."""
    return not peers or any(_is_peer(peer, party, namespace) for peer in peers)


def _is_peer(peer: Object, party: Party, namespace: str) -> bool:
    if block := peer.get("ipBlock"):
        # meant for what is outside of the cluster; whether it holds for pods, too, plugins decide: they do here
        return _within(party.address, block["cidr"]) and not any(
            _within(party.address, each) for each in block.get("except") or ()
        )
    if party.labels is None:
        return False
    spaces, pods = peer.get("namespaceSelector"), peer.get("podSelector")
    if spaces is None:
        here = party.namespace == namespace
    else:
        here = matches(spaces, {NAMESPACE_LABEL: party.namespace, **party.namespace_labels})
    return here and (pods is None or matches(pods, party.labels))


def _any_port(ports: list[Object] | None, listener: Party, port: int, protocol: str) -> bool:
    return not ports or any(_is_port(each, listener, port, protocol) for each in ports)


def _is_port(said: Object, listener: Party, port: int, protocol: str) -> bool:
    if said.get("protocol", "TCP") != protocol:
        return False
    number: int | str | None = said.get("port")
    if isinstance(number, str):
        return listener.named_ports.get(number) == port
    last: int | None = said.get("endPort", number)
    return number is None or last is None or number <= port <= last


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (meta/v1) takes these labels; an empty one takes all."""
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(each, labels) for each in selector.get("matchExpressions") or ()
    )


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    has, values = labels.get(expression["key"]), expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return has in values
        case "NotIn":
            return has not in values
        case "Exists":
            return has is not None
        case "DoesNotExist":
            return has is None
    raise ValueError(f"no such operator: {expression['operator']}")


def _within(address: str, cidr: str) -> bool:
    network = ipaddress.ip_network(cidr)
    found = ipaddress.ip_address(address)
    return found.version == network.version and found in network
