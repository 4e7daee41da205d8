"""Who may connect to servers, and where servers may connect to."""

import ipaddress
import re
from typing import Annotated, Final

from pydantic import Field

from copilot_operator.api.model import Model
from copilot_operator.api.names import Labels
from copilot_operator.api.rules import ATOMIC_LIST, LIST_SET, Rule

_PREFIX_LENGTH = re.compile(r"[^/%]+/(0|[1-9][0-9]{0,2})\Z")  # CEL takes no netmask, no zone, no leading zero


def is_cidr(text: str) -> bool:
    """True for what CEL's ``isCIDR`` takes: ``10.0.0.0/8``, ``2001:db8::/32``; not IPv4 inside of IPv6."""
    if not _PREFIX_LENGTH.match(text):
        return False
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    address = ipaddress.ip_interface(text).ip
    return not (isinstance(network, ipaddress.IPv6Network) and getattr(address, "ipv4_mapped", None) is not None)


# Where clouds hand out the credentials of nodes and pods, so never for servers: link-local addresses (EC2, GCE, Azure,
# OpenStack, ECS, EKS), IPv6 twins of theirs (EC2, EKS, GCE), and those of clouds that chose others (Alibaba, Azure's
# wire server, Oracle).
CREDENTIAL_RANGES: Final = (
    "169.254.0.0/16",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "fd00:ec2::254/128",
    "fd00:ec2::23/128",
    "fd20:ce::254/128",
)


def is_withheld(text: str) -> bool:
    """Whether a range lies within one of ``CREDENTIAL_RANGES``, so that nothing would be left of it."""
    network = ipaddress.ip_network(text, strict=False)
    return any(_within(network, ipaddress.ip_network(withheld)) for withheld in CREDENTIAL_RANGES)


def withheld_of(text: str) -> list[str]:
    """Those of ``CREDENTIAL_RANGES`` that lie within a range."""
    network = ipaddress.ip_network(text, strict=False)
    return [withheld for withheld in CREDENTIAL_RANGES if _within(ipaddress.ip_network(withheld), network)]


def _within(
    part: ipaddress.IPv4Network | ipaddress.IPv6Network, whole: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    if isinstance(part, ipaddress.IPv4Network):
        return isinstance(whole, ipaddress.IPv4Network) and part.subnet_of(whole)
    return isinstance(whole, ipaddress.IPv6Network) and part.subnet_of(whole)


IS_CIDR: Final = Rule("isCIDR(self)", "write an address range such as 10.0.0.0/8 or 2001:db8::/32", is_cidr)
# Of what is no range at all the rule above tells; an exception of nearly everything would be refused by Kubernetes.
NOT_WITHHELD: Final = Rule(
    f"!isCIDR(self) || !{list(CREDENTIAL_RANGES)!r}.exists(r, cidr(r).containsCIDR(cidr(self)))",
    "leave it out: there clouds hand out credentials, so servers never get there; DNS they may ask anywhere",
    lambda text: not is_cidr(text) or not is_withheld(text),
)

Cidr = Annotated[str, Field(min_length=1, max_length=49), IS_CIDR, NOT_WITHHELD]


class LabelSelector(Model):
    """Objects that have all of these labels; every object if there is none."""

    match_labels: Labels = Field(default_factory=dict)
    """Labels that must all be there."""


class NetworkPeer(Model):
    """Pods that may connect. With both selectors: pods that match, in namespaces that match."""

    rules = (
        Rule(
            "has(self.namespaceSelector) || has(self.podSelector)",
            "write a namespaceSelector, a podSelector or both (podSelector: {} is every pod of the pool's namespace)",
            lambda peer: peer.namespace_selector is not None or peer.pod_selector is not None,
        ),
    )

    namespace_selector: LabelSelector | None = None
    """Namespaces of the pods; the pool's own namespace if absent."""
    pod_selector: LabelSelector | None = None
    """Labels of the pods; every pod if absent."""


class NetworkPolicySpec(Model):
    """NetworkPolicies around the pool's servers. They hold where the cluster's network plugin enforces them."""

    enabled: Annotated[bool, Field(strict=True)] = True
    """Whether the operator makes NetworkPolicies; turn it off to bring your own."""
    egress_cidrs: Annotated[tuple[Cidr, ...], Field(alias="egressCIDRs", max_length=64), LIST_SET] = (
        "0.0.0.0/0",
        "::/0",
    )
    """Address ranges that servers may connect to, besides DNS. An empty list leaves them DNS only. Addresses at which
    clouds hand out credentials (169.254.0.0/16 among them) are excepted from all of them."""
    allow_from: Annotated[tuple[NetworkPeer, ...], Field(max_length=32), ATOMIC_LIST] = ()
    """Pods that may connect to the servers, besides the operator. Empty: every pod of the pool's namespace that is no
    server."""
    allow_metrics_from: Annotated[tuple[NetworkPeer, ...], Field(max_length=32), ATOMIC_LIST] = ()
    """Pods, such as Prometheus, that may read the metrics of servers and gateways. Empty: none. They come to no other
    port than those of metrics. A change restarts no server."""
