"""What to do for a pool: its own objects, the revisions that its servers run, a token for each of them, its gateway."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from copilot_operator.domain.desired import gateway
from copilot_operator.domain.desired.pool import disruption_budget, network_policy, service_account, token_shard
from copilot_operator.domain.kinds import (
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    REVISION,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import busy_servers, gateway_of, pool_object, tenant_shard
from copilot_operator.domain.naming import token_shard as shard_name
from copilot_operator.domain.progress import progress_of
from copilot_operator.domain.revisions import as_manifest
from copilot_operator.domain.server_tokens import parts_of
from copilot_operator.domain.snapshot import PoolSnapshot
from copilot_operator.domain.steps import Apply, Delete, Step, converge
from copilot_operator.domain.subset import first_difference

PER_SHARD = 250  # ~35 KiB a Secret: each new server rewrites one, and a Secret holds 1 MiB at most


def plan_pool(snapshot: PoolSnapshot) -> tuple[Step, ...]:
    """Bring a pool's own objects to what its spec says; its servers are its tenants' business."""
    if snapshot.unusable or snapshot.spec is None or snapshot.paused or snapshot.obstacle:
        return ()
    steps = _revision_steps(snapshot)  # first: there must be a way back before anybody goes
    wanted_objects = [(SERVICE_ACCOUNT, service_account(snapshot), snapshot.service_account)]
    budget = snapshot.disruption_budget
    if budget and "minAvailable" in budget["spec"]:  # of somebody else, and with it the API server takes no other limit
        name, uid = busy_servers(snapshot.name), budget["metadata"]["uid"]
        steps.append(Delete(DISRUPTION_BUDGET, snapshot.namespace, name, uid, "somebody gave it another limit"))
        budget = None
    wanted_objects.append((DISRUPTION_BUDGET, disruption_budget(snapshot), budget))
    if snapshot.spec.network_policy.enabled:
        wanted_objects.append((NETWORK_POLICY, network_policy(snapshot), snapshot.network_policy))
    elif live := snapshot.network_policy:
        name, uid = pool_object(snapshot.name), live["metadata"]["uid"]
        steps.append(Delete(NETWORK_POLICY, snapshot.namespace, name, uid, "networkPolicy.enabled is false"))
    for kind, wanted, live in wanted_objects:
        steps += converge(kind, wanted, live)
    tokens = _tokens(snapshot)
    steps += [
        Apply(SECRET, token_shard(snapshot, name, held), f"tokens of {len(held)} servers")
        for name, held in sorted(tokens.items())
        if held != snapshot.tokens.get(name)
    ]
    return (*steps, *(_gateway_steps(snapshot, tokens) if snapshot.spec.gateway.enabled else ()))


def _revision_steps(snapshot: PoolSnapshot) -> list[Step]:
    """Keep what servers run and what they are to run, and note that a server was Ready with the latter."""
    progress = progress_of(snapshot)
    update = replace(progress.course.update, proven=progress.proven)
    stored = {manifest["metadata"]["name"]: manifest for manifest in snapshot.revisions}
    wanted, live = as_manifest(snapshot.raw, update), stored.get(update.name)
    steps: list[Step] = []
    if live is None:
        steps.append(Apply(REVISION, wanted, "missing"))
    elif not progress.complete and (difference := first_difference(wanted | {"data": live["data"]}, live)):
        steps.append(Apply(REVISION, wanted | {"data": live["data"]}, f"differs in {difference}"))
    current = (snapshot.raw.get("status") or {}).get("currentRevision")
    kept = {*progress.kept} if progress.complete else {*progress.kept, current}
    return steps + [
        Delete(REVISION, snapshot.namespace, name, manifest["metadata"]["uid"], "no server runs it any more")
        for name, manifest in sorted(stored.items())
        if name not in kept
    ]


def _tokens(snapshot: PoolSnapshot) -> dict[str, dict[str, str]]:
    """A token never moves, nor comes back elsewhere after it was lost: pods name its shard and its key."""
    kept = {key: token for held in snapshot.tokens.values() for key, token in held.items()}
    wanted = {
        key: token
        for key, token in (kept | dict(snapshot.new_tokens)).items()
        if parts_of(key)[0] in snapshot.members and key not in snapshot.spent_tokens
    }
    return sharded(snapshot.tokens, wanted, partial(shard_name, snapshot.name), snapshot.shard_of)


def sharded(
    stored: Mapping[str, Mapping[str, str]],
    wanted: Mapping[str, str],
    name_of: Callable[[int], str],
    homes: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, dict[str, str]]:
    """What each of several Secrets shall hold: what is stored stays where it is, what is new goes to its home, or to
    the first with room."""
    found = {name: {key: wanted[key] for key in held if key in wanted} for name, held in stored.items()}
    placed = {key for held in found.values() for key in held}
    number = 0
    for key, value in sorted(wanted.items()):
        if key in placed:
            continue
        while len(found.setdefault(name_of(number), {})) >= PER_SHARD:
            number += 1
        found.setdefault(homes.get(key, name_of(number)), {})[key] = value
    return {name: held for name, held in found.items() if held or name in stored}


def _gateway_steps(snapshot: PoolSnapshot, tokens: Mapping[str, object]) -> Iterator[Step]:
    """Its Secrets first, then what lets it read them, then its pods."""
    view = snapshot.gateway
    shards = sharded(view.tenants, view.entries, partial(tenant_shard, snapshot.name), view.homes)
    for name, held in sorted(shards.items()):
        if held != view.tenants.get(name):
            yield Apply(SECRET, gateway.tenants(snapshot, name, held), f"{len(held)} tenants")
    if not view.key_stored:  # last: with the key stored, another code of a tenant's name is another tenant's
        yield Apply(SECRET, gateway.key_secret(snapshot), "missing")
    secrets = tuple(sorted(tokens)), tuple(sorted(shards))
    wanted: list[tuple[Kind, Manifest]] = [
        (SECRET, gateway.settings(snapshot, *secrets)),
        (SERVICE_ACCOUNT, gateway.service_account(snapshot)),
        (ROLE, gateway.role(snapshot, (gateway_of(snapshot.name), *secrets[0], *secrets[1]))),
        (ROLE_BINDING, gateway.role_binding(snapshot)),
        (DISRUPTION_BUDGET, gateway.disruption_budget(snapshot)),
        (SERVICE, gateway.service(snapshot)),
        (DEPLOYMENT, gateway.deployment(snapshot)),
    ]
    assert snapshot.spec
    if snapshot.spec.network_policy.enabled:
        wanted.insert(4, (NETWORK_POLICY, gateway.network_policy(snapshot)))
    elif live := view.objects.get(NETWORK_POLICY):
        name, uid = gateway_of(snapshot.name), live["metadata"]["uid"]
        yield Delete(NETWORK_POLICY, snapshot.namespace, name, uid, "networkPolicy.enabled is false")
    for kind, manifest in wanted:
        yield from converge(kind, manifest, view.objects.get(kind))
