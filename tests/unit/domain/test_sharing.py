"""Who shares which session, what gateways are told of it, and what people are told of members that do not exist."""

import json
from typing import Any

import msgspec

from copilot_operator.api.sharing import SharedSession
from copilot_operator.domain.desired import gateway
from copilot_operator.domain.desired.tenant_entry import gateway_entry
from copilot_operator.domain.pool_status import pool_report
from copilot_operator.domain.sharing import shares
from copilot_operator.domain.snapshot import GatewayView
from copilot_operator.domain.tenant_tokens import code_of, shared_code
from copilot_operator.gateway.config_files import PoolFile, TenantFile
from tests.support.snapshots import a_pool_snapshot, a_tenant

KEY = "the-pools-key"
PAYS = {"gitHub": {"tokenSecretRef": {"name": "gh", "key": "token"}}}


def sessions(*made: dict[str, Any]) -> list[SharedSession]:
    return [SharedSession.model_validate(each) for each in made]


def test_members_are_named_or_found_by_their_labels() -> None:
    known = sessions(
        {"name": "named", "tenants": ["alice", "bob"]},
        {"name": "labelled", "tenantSelector": {"matchLabels": {"team": "a", "tier": "x"}}},
        {"name": "all", "tenantSelector": {}},
    )
    assert shares(known, a_tenant(labels={"team": "a", "tier": "x"})) == ("named", "labelled", "all")
    assert shares(known, a_tenant(labels={"team": "a"})) == ("named", "all")
    assert shares(known, a_tenant(name="carol")) == ("all",)


def test_a_tenants_entry_says_what_it_shares_and_the_pools_file_says_how() -> None:
    entry = json.loads(gateway_entry(a_tenant(), KEY, shared=True, shares=("team",)))
    del entry["tokens"]
    assert msgspec.convert(entry, TenantFile).shares == ["team"]
    team = [{"name": "team", "tenants": ["alice"], "whenBusy": "Queue"}]
    snapshot = a_pool_snapshot(fields=shared(team), gateway=GatewayView(tenant_key=KEY))
    (told,) = msgspec.convert(gateway.pool_file(snapshot), PoolFile).shared_sessions
    assert (told.name, told.code, told.queues) == ("team", shared_code(KEY, "team"), True)
    assert len(told.code) == len(code_of(KEY, "uid"))
    assert shared_code(KEY, "team") != code_of(KEY, "team")
    assert shared_code(KEY, "other") != told.code


def shared(made: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "isolation": "Shared",
        "shared": {"replicas": 1, "sharedSessions": made},
        "gateway": {"enabled": True},
        "auth": PAYS,
    }


def test_members_that_do_not_exist_are_told_of_and_no_error() -> None:
    team = [{"name": "team", "tenants": ["alice", "carl"]}, {"name": "all", "tenantSelector": {}}]
    view = GatewayView(tenant_key=KEY, entries={"copilot-alice": "{}"})
    assert members(team, view) == (
        "False", "MembersMissing", "No tenants of this pool, but members of shared sessions: team: carl",
    )  # fmt: skip
    view = GatewayView(tenant_key=KEY, entries={"copilot-alice": "{}", "copilot-carl": "{}"})
    assert members(team, view)[:2] == ("True", "AllFound")
    many = [{"name": "team", "tenants": [f"t{number:02}" for number in range(40)]}]
    assert members(many, view)[2].endswith("t09 and 30 more")


def members(made: Any, view: GatewayView) -> tuple[str, ...]:
    found = pool_report(a_pool_snapshot(fields=shared(made), gateway=view)).status
    assert found is not None
    (row,) = [each for each in found["conditions"] if each["type"] == "MembersFound"]
    return row["status"], row["reason"], row["message"]
