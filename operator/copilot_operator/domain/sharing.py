"""Which tenants share which sessions."""

from collections.abc import Collection, Iterable, Mapping

from copilot_operator.api.sharing import SharedSession
from copilot_operator.domain.manifest import Manifest, labels_of
from copilot_operator.domain.naming import server_of
from copilot_operator.domain.snapshot import Finding, PoolSnapshot

MOST_NAMED = 10


def shares(sessions: Iterable[SharedSession], tenant: Manifest) -> tuple[str, ...]:
    """Names of the sessions that a tenant of the pool is a member of; ``tenant`` as stored."""
    name, labels = tenant["metadata"]["name"], labels_of(tenant)
    return tuple(each.name for each in sessions if _is_member(each, name, labels))


def _is_member(session: SharedSession, name: str, labels: Mapping[str, str]) -> bool:
    if session.tenant_selector is None:
        return name in session.tenants
    return session.tenant_selector.match_labels.items() <= labels.items()


def shared_sessions(snapshot: PoolSnapshot) -> tuple[SharedSession, ...]:
    """Those of a pool; it may have none."""
    return snapshot.spec.shared.shared_sessions if snapshot.spec and snapshot.spec.shared else ()


def missing(snapshot: PoolSnapshot) -> Finding | None:
    """Members that are named and do not exist."""
    known = snapshot.gateway.entries.keys()
    told = [
        f"{each.name}: {_named(absent)}"
        for each in shared_sessions(snapshot)
        if (absent := [name for name in each.tenants if server_of(name) not in known])
    ]
    if not told:
        return None
    return Finding("MembersMissing", f"No tenants of this pool, but members of shared sessions: {'; '.join(told)}")


def _named(names: Collection[str]) -> str:
    first = sorted(names)[:MOST_NAMED]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")
