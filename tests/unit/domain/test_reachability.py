"""Who may connect to whom, evaluated over the NetworkPolicies that are made, for every pair of parties."""

import ipaddress
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.api.network import CREDENTIAL_RANGES, is_withheld
from copilot_operator.domain.desired.pool import block
from tests.support.network import Party, matches, reaches
from tests.support.parties import CLOUD, DNS, PARTIES, SERVERS, differences, expected, reachable, rendered

A, B = Party("a", "10.0.0.1", "one", {"app": "a"}), Party("b", "10.0.0.2", "two", {"app": "b"}, named_ports={"web": 80})


def test_everybody_reaches_what_they_should_and_nothing_else() -> None:
    assert differences(reachable(rendered()), expected(operator_has_one=False)) == []


def test_without_policies_nothing_would_be_refused() -> None:
    """The table is not one that any policies fit."""
    lines = differences(reachable([]), expected(operator_has_one=False))
    assert any(line.startswith("dedicated's server -> EC2's metadata: ") for line in lines)
    assert any(line.startswith("dedicated's server -> shared's server: ") for line in lines)


@pytest.mark.parametrize("policy", rendered(), ids=lambda each: each["metadata"]["name"])
def test_kubernetes_takes_them(policy: dict[str, Any]) -> None:
    kubernetes_validate.validate(policy, "1.37", strict=True)


def test_where_clouds_hand_out_credentials_servers_may_look_up_names_and_nothing_else() -> None:
    found = reachable(rendered())
    assert {found[source, target] for source in SERVERS for target in CLOUD} == {DNS}


def test_ranges_of_a_pools_own_are_all_its_servers_reach() -> None:
    found = reachable(rendered({"networkPolicy.egressCIDRs": ["203.0.113.0/24"]}))
    reached = {target for (source, target), ports in found.items() if source == "direct's server" and ports != DNS}
    assert reached == {"Internet"}


def test_addresses_of_credentials_are_those_of_the_parties() -> None:
    addresses = [ipaddress.ip_address(each.address) for each in PARTIES if each.name in CLOUD]
    for withheld in map(ipaddress.ip_network, CREDENTIAL_RANGES[:3] + CREDENTIAL_RANGES[4:]):
        assert any(address in withheld for address in addresses), withheld


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_no_range_leads_to_credentials(address: ipaddress.IPv4Address, length: int) -> None:
    _never_leads_there(f"{address}/{length}")


@given(st.ip_addresses(v=6), st.integers(0, 128))
def test_no_range_of_ipv6_leads_to_credentials(address: ipaddress.IPv6Address, length: int) -> None:
    _never_leads_there(f"{address}/{length}")


@pytest.mark.parametrize("withheld", CREDENTIAL_RANGES)
def test_the_ranges_around_credentials_leave_them_out(withheld: str) -> None:
    network = ipaddress.ip_network(withheld)
    for length in range(network.prefixlen):
        _never_leads_there(str(network.supernet(new_prefix=length)))


def _never_leads_there(cidr: str) -> None:
    """Every range is one that Kubernetes takes: exceptions lie within it, and are smaller."""
    if is_withheld(cidr):
        return
    made = block(cidr)["ipBlock"]
    whole = ipaddress.ip_network(made["cidr"])
    exceptions = [ipaddress.ip_network(each) for each in made.get("except", ())]
    for each in exceptions:
        assert each.version == whole.version
        assert each.prefixlen > whole.prefixlen
    for withheld in map(ipaddress.ip_network, CREDENTIAL_RANGES):
        assert not withheld.overlaps(whole) or withheld in exceptions


# --- the reading itself: what the API reference says of each part of a policy


def policy(spec: dict[str, Any], namespace: str = "two") -> dict[str, Any]:
    return {"metadata": {"name": "it", "namespace": namespace}, "spec": {"podSelector": {}} | spec}


@pytest.mark.parametrize(
    ("spec", "open_"),
    [
        ({}, False),  # isolates for ingress, and lets nobody in
        ({"policyTypes": ["Egress"]}, True),
        ({"podSelector": {"matchLabels": {"app": "x"}}}, True),  # is about others
        ({"ingress": [{}]}, True),  # a rule without peers and ports is about everybody
        ({"ingress": [{"from": []}]}, True),
        ({"ingress": [{"ports": [{"port": 80}]}]}, True),
        ({"ingress": [{"ports": [{"port": "web"}]}]}, True),
        ({"ingress": [{"ports": [{"port": "other"}]}]}, False),
        ({"ingress": [{"ports": [{"port": 70, "endPort": 80}]}]}, True),
        ({"ingress": [{"ports": [{"port": 70, "endPort": 79}]}]}, False),
        ({"ingress": [{"ports": [{"port": 80, "protocol": "UDP"}]}]}, False),
        ({"ingress": [{"from": [{"podSelector": {}}]}]}, False),  # of the policy's own namespace
        ({"ingress": [{"from": [{"namespaceSelector": {}}]}]}, True),
        ({"ingress": [{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "b"}}}]}]}, False),
        ({"ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": 81}]}]}, False),
        ({"ingress": [{"ports": [{"port": 81}]}, {"from": [{"namespaceSelector": {}}]}]}, True),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}, True),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/24"]}}]}]}, False),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "::/0"}}]}]}, False),
    ],
)
def test_reading_a_policy_of_the_target(spec: dict[str, Any], open_: bool) -> None:
    assert reaches([policy(spec)], A, B, 80) is open_


def test_both_ends_must_agree_and_one_policy_of_an_end_is_enough() -> None:
    out = policy({"policyTypes": ["Egress"], "egress": [{"ports": [{"port": 80}]}]}, "one")
    assert reaches([out], A, B, 80)
    assert not reaches([out], A, B, 81)
    assert not reaches([policy({"policyTypes": ["Egress"]}, "one")], A, B, 80)
    assert reaches([policy({"policyTypes": ["Egress"]}, "one"), out], A, B, 80)
    assert not reaches([out, policy({})], A, B, 80)
    assert not reaches([policy({"egress": []}, "one")], B, A, 80), "Ingress goes without saying"


@pytest.mark.parametrize(
    ("expression", "takes"),
    [
        ({"key": "app", "operator": "In", "values": ["a"]}, True),
        ({"key": "app", "operator": "NotIn", "values": ["a"]}, False),
        ({"key": "none", "operator": "NotIn", "values": ["a"]}, True),
        ({"key": "app", "operator": "Exists"}, True),
        ({"key": "app", "operator": "DoesNotExist"}, False),
    ],
)
def test_reading_a_selector(expression: dict[str, Any], takes: bool) -> None:
    assert matches({"matchExpressions": [expression]}, {"app": "a"}) is takes
