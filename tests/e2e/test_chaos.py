"""The operator is killed at random moments while tenants come and go: in the end everything is as its spec says.

``COPILOT_CHAOS_SEED`` repeats a run; its number is in the output of a failure.
"""

import asyncio
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from copilot_operator.app import LEASE_NAME
from copilot_operator.domain.kinds import CLAIM, DEPLOYMENT, LEASE, SECRET, SERVICE, TENANT, Kind
from copilot_operator.domain.naming import TENANT_LABEL, server_of
from tests.support.installation import OPERATOR_NAMESPACE
from tests.support.kube import is_ready, ready_reason
from tests.support.operator import OperatorProcess
from tests.support.place import POOL_NAME, Place

CHILDREN: Final[tuple[Kind, ...]] = (DEPLOYMENT, SERVICE, SECRET, CLAIM)
NAMES: Final = tuple(f"t{number}" for number in range(10))
KILLS: Final = 7
MOST_AWAKE: Final = 3  # a CLI takes 260 MB
MEMORY: Final = ("768Mi", "1Gi", "1280Mi")
SETTLED_S: Final = 120.0
STANDBY_PORT: Final = 18_091
TAKEN_OVER_S: Final = 15.0


@dataclass
class Wishes:
    """What somebody wants of ten tenants, changing all the time; ``specs`` is what has to be true in the end."""

    place: Place
    chance: random.Random
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    def one(self) -> None:
        """Create, edit, suspend, wake or delete one of them."""
        name = self.chance.choice(NAMES)
        spec = self.specs.get(name)
        if spec is None:
            self._write(name, "create", suspended=self._sleeps(0.5))
            return
        match self.chance.choice(("edit", "edit", "turn", "turn", "delete")):
            case "edit":
                self._write(name, "edit", memory=self.chance.choice(MEMORY))
            case "turn":
                self._write(name, "turn", suspended=not spec["suspended"] or self._sleeps(0.0))
            case "delete":
                self.place.kube.delete(TENANT, self.place.namespace, name)
                del self.specs[name]
                self.done.append(f"delete {name}")

    def _sleeps(self, at_least: float) -> bool:
        awake = sum(not spec["suspended"] for spec in self.specs.values())
        return awake >= MOST_AWAKE or self.chance.random() < at_least

    def _write(self, name: str, what: str, **change: Any) -> None:
        self.specs[name] = spec = {"suspended": True, "memory": MEMORY[0], **self.specs.get(name, {}), **change}
        self.done.append(f"{what} {name} {change}")
        limits = {"resources": {"limits": {"memory": spec["memory"]}}}
        self.place.tenant(name, suspended=spec["suspended"], server=limits)


async def test_killed_at_random_moments_nothing_is_left_half_done(place: Place) -> None:
    seed = int(os.environ.get("COPILOT_CHAOS_SEED") or random.randrange(10**6))
    print(f"COPILOT_CHAOS_SEED={seed}")
    chance = random.Random(seed)
    wishes = Wishes(place, chance)
    place.pool()
    place.tenant("broken", auth={"gitHub": {"tokenSecretRef": {"name": "none", "key": "token"}}})
    for _ in range(KILLS):
        moment_s = chance.uniform(0.0, 2.5)
        await _change_for(wishes, moment_s)
        place.operator.kill()
        for _ in range(chance.randrange(3)):
            await asyncio.to_thread(wishes.one)  # some wishes nobody sees at the time
        # Nobody waits ten seconds for the Lease of a process that is known to be dead.
        place.kube.delete(LEASE, OPERATOR_NAMESPACE, LEASE_NAME)
        await asyncio.to_thread(place.operator.start)
    try:
        await place.until(lambda: not _wrong(place, wishes), within_s=SETTLED_S, what=f"all is as wished (seed {seed})")
    except AssertionError as error:
        wrong = "\n".join(_wrong(place, wishes))
        raise AssertionError(f"seed {seed}: {wrong}\n{wishes.done}\n{error}") from None
    assert ready_reason(place.get("broken")) == "SecretNotFound"
    began = time.monotonic()
    place.tenant("late", suspended=True)
    await place.until_reason("late", "Suspended", within_s=10)
    print(f"chaos: {len(wishes.done)} wishes, {KILLS} kills, a tenant after them took {time.monotonic() - began:.1f} s")


async def _change_for(wishes: Wishes, seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    await asyncio.to_thread(wishes.one)
    while time.monotonic() < ends_at:
        await asyncio.sleep(wishes.chance.uniform(0.0, 0.4))  # random moments are what this is about
        await asyncio.to_thread(wishes.one)


def _wrong(place: Place, wishes: Wishes) -> list[str]:
    """What is not as wished yet."""
    kube, namespace = place.kube, place.namespace
    found: list[str] = []
    for kind in CHILDREN:
        live = sorted(child["metadata"]["name"] for child in kube.list(kind, namespace, TENANT_LABEL))
        # A tenant without its credential has all but the Deployment.
        names = [*wishes.specs, *(["broken"] if kind != DEPLOYMENT else [])]
        if live != sorted(map(server_of, names)):
            found.append(f"{kind}: {live}, wished for {sorted(names)}")
    for name, spec in wishes.specs.items():
        tenant, pods = place.get(name), place.pods(name)
        limits = [_memory(place, name), *(_limit(pod["spec"]) for pod in pods)]
        if any(limit != spec["memory"] for limit in limits):
            found.append(f"{name}: memory {limits}, wished for {spec['memory']}")
        if spec["suspended"] and (ready_reason(tenant) != "Suspended" or pods):
            found.append(f"{name}: {ready_reason(tenant)} with {len(pods)} pods, wished for Suspended")
        if not spec["suspended"] and (not is_ready(tenant) or len(pods) != 1):
            found.append(f"{name}: {ready_reason(tenant)} with {len(pods)} pods, wished for Ready")
    gone = [name for name in NAMES if name not in wishes.specs and place.pods(name)]
    if gone:
        found.append(f"pods of deleted tenants: {gone}")
    tokens = kube.list(SECRET, namespace, f"copilot-operator.io/pool={POOL_NAME},!{TENANT_LABEL}")
    holders = sorted(server for shard in tokens for server in shard.get("data") or {})
    if holders != sorted(map(server_of, [*wishes.specs, "broken"])):
        found.append(f"tokens: {holders}")
    return found


def _memory(place: Place, tenant: str) -> str | None:
    live = place.deployment(tenant)
    return _limit(live["spec"]["template"]["spec"]) if live else None


def _limit(pod: dict[str, Any]) -> str:
    return str(next(c["resources"]["limits"]["memory"] for c in pod["containers"] if c["name"] == "copilot"))


@pytest.fixture
def standby(place: Place, tmp_path: Path) -> Iterator[OperatorProcess]:
    """A second replica."""
    second = OperatorProcess(place.cluster, place.kube, tmp_path, port=STANDBY_PORT)
    second.start(wait=False)
    yield second
    second.stop()


async def test_of_two_replicas_one_acts_and_the_other_takes_over(
    place: Place, standby: OperatorProcess, provider: Any
) -> None:
    def observes() -> bool:
        return fetched(place, f"http://127.0.0.1:{STANDBY_PORT}/readyz") == "ok"

    await place.until(observes, within_s=30, what="the second replica has seen everything")
    place.pool()
    place.tenant("busy")
    await place.until_ready("busy")
    names = [f"u{number}" for number in range(4)]
    for name in names:
        place.tenant(name, suspended=True)
    for name in names:
        await place.until_reason(name, "Suspended")
    acted = [entry for entry in standby.entries() if entry.get("message") in ("leads", "applied", "scaled", "deleted")]
    assert not acted, "two replicas acted at once"

    versions = {name: _versions(place, name) for name in names}
    turn = await place.in_a_turn(provider, "busy", "mid-drain", TAKEN_OVER_S + 5)
    place.tenant("busy", suspended=True)
    await place.until(lambda: _drains(place, "busy"), within_s=10, what="its agent drains", about="busy")
    place.operator.kill()
    killed_at = time.monotonic()
    place.tenant("orphan", suspended=True)  # asked for while nobody leads
    await place.until(
        lambda: any(entry.get("message") == "leads" for entry in standby.entries()),
        within_s=TAKEN_OVER_S,
        what="the second replica leads",
    )
    taken_over_s = time.monotonic() - killed_at
    assert _drains(place, "busy"), "the drain did not go on"
    assert not turn.done(), "the turn was over: nothing was tested"
    await place.until_reason("orphan", "Suspended", within_s=10)
    place.tenant(names[0], suspended=True, server={"resources": {"limits": {"memory": "1Gi"}}})
    await place.until(lambda: _memory(place, names[0]) == "1Gi", within_s=10, what="the second replica acts")
    for kind in CHILDREN:
        live = sorted(child["metadata"]["name"] for child in place.kube.list(kind, place.namespace, TENANT_LABEL))
        assert live == sorted(map(server_of, [*names, "busy", "orphan"])), kind
    assert {name: _versions(place, name) for name in names[1:]} == {name: versions[name] for name in names[1:]}
    await turn
    await place.until_reason("busy", "Suspended", within_s=30)
    place.tenant("busy", suspended=False)
    await place.until_ready("busy")
    assert await place.say("busy", provider, "RECALL", resume=True) == ["notes: first mid-drain"]
    print(f"taken over within {taken_over_s:.1f} s")


def _drains(place: Place, tenant: str) -> bool:
    return bool((place.agent_state(tenant) or {}).get("draining"))


def fetched(place: Place, url: str) -> str:
    """The text of a page in the cluster's network; nothing if there is none."""
    program = (
        "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode().strip())"
    )
    words = [sys.executable, "-c", program, url]
    done = place.cluster.run_in_network(words, capture_output=True, text=True, timeout=15, check=False)
    return str(done.stdout).strip()


def _versions(place: Place, tenant: str) -> list[str]:
    """Of what the operator writes for a tenant: no write of the new leader leaves a trace here."""
    found = [place.get(tenant), place.service(tenant), place.secret_of(tenant)]
    return [live["metadata"]["resourceVersion"] if live else "none" for live in found]
