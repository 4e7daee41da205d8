"""What to do for a pool: its own objects, the revisions that its servers run, and a token for each of them."""

from dataclasses import replace

from copilot_operator.domain.desired.pool import disruption_budget, network_policy, service_account, token_shard
from copilot_operator.domain.kinds import DISRUPTION_BUDGET, NETWORK_POLICY, REVISION, SECRET, SERVICE_ACCOUNT
from copilot_operator.domain.naming import busy_servers, pool_object
from copilot_operator.domain.naming import token_shard as shard_name
from copilot_operator.domain.progress import progress_of
from copilot_operator.domain.revisions import as_manifest
from copilot_operator.domain.snapshot import PoolSnapshot
from copilot_operator.domain.steps import Apply, Delete, Step, converge
from copilot_operator.domain.subset import first_difference

TOKENS_PER_SHARD = 250  # ~35 KiB a Secret: each new server rewrites one, and a Secret holds 1 MiB at most


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
    return (*steps, *_token_steps(snapshot))


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


def _token_steps(snapshot: PoolSnapshot) -> list[Step]:
    """New tokens go to the first shard with room; a token never moves, nor comes back elsewhere after it was lost: pods
    name its shard."""
    shards = {name: {s: t for s, t in held.items() if s in snapshot.members} for name, held in snapshot.tokens.items()}
    number = 0
    for server, token in sorted(snapshot.new_tokens.items()):
        while len(shards.setdefault(shard_name(snapshot.name, number), {})) >= TOKENS_PER_SHARD:
            number += 1
        home = snapshot.shard_of.get(server, shard_name(snapshot.name, number))
        shards.setdefault(home, {})[server] = token
    return [
        Apply(SECRET, token_shard(snapshot, name, held), f"tokens of {len(held)} servers")
        for name, held in sorted(shards.items())
        if held != snapshot.tokens.get(name)
    ]
