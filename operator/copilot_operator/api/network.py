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


IS_CIDR: Final = Rule("isCIDR(self)", "write an address range such as 10.0.0.0/8 or 2001:db8::/32", is_cidr)

Cidr = Annotated[str, Field(min_length=1, max_length=49), IS_CIDR]


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
    """Address ranges that servers may connect to, besides DNS. An empty list leaves them DNS only."""
    allow_from: Annotated[tuple[NetworkPeer, ...], Field(max_length=32), ATOMIC_LIST] = ()
    """Pods that may connect to the servers, besides the operator. Empty: every pod of the pool's namespace that is no
    server."""
