"""Whose servers a pool has: its tenants' own in a Dedicated pool, its seats in a Shared one."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from copilot_operator.api.pool import PoolSpec
from copilot_operator.cluster.cache import Cache
from copilot_operator.domain.erasure import advanced
from copilot_operator.domain.kinds import DEPLOYMENT, POD, POOL, TENANT
from copilot_operator.domain.manifest import Manifest, annotations_of, condition_of
from copilot_operator.domain.naming import POOL_LABEL, TENANT_ANNOTATION, TENANT_LABEL, server_of, slug
from copilot_operator.domain.retention import TO_BE_TOLD
from copilot_operator.domain.scaling import Decision, Window, decide, load_of, scale_of
from copilot_operator.domain.seats import (
    Seat,
    as_tenant,
    homes,
    pool_of_seat,
    running,
    running_as_needed,
    seat_name,
    seat_of,
    seats_of,
)
from copilot_operator.domain.snapshot import Erasure, Finding, ServerState, SessionCounts
from copilot_operator.domain.status import ORDINARY

Key = tuple[str, str]  # namespace, name


@dataclass
class Members:
    """``state`` tells what is known of a server (namespace, server), ``demanded`` whether a gateway holds requests for
    it, ``held`` how many sessions of a pool (namespace, pool) no server takes. What was decided, and found, of seats is
    remembered here: the former anew after a restart, from what runs.
    """

    cache: Cache
    state: Callable[[str, str], ServerState | None]
    demanded: Callable[[str, str], bool]
    told_homes: Callable[[str, str], Collection[str] | None]
    told_stored: Callable[[str, str], int | None] = lambda *_: None
    told_sessions: Callable[[str, str], SessionCounts | None] = lambda *_: None
    held: Callable[[str, str], int] = lambda namespace, pool: 0
    waits: Callable[[str, str], Mapping[str, int]] = lambda namespace, pool: {}
    statuses: dict[Key, Manifest] = field(default_factory=dict)  # of seats, as they would be of tenants
    _running: dict[Key, frozenset[str]] = field(default_factory=dict)  # seats that are to run, by pool
    _replicas_of: dict[Key, int] = field(default_factory=dict)  # as decided last, of pools with autoscaling
    _windows: dict[Key, Window] = field(default_factory=dict)

    def names(self, namespace: str, pool: str) -> list[str]:
        """Of all that have a server in the pool, or are to get one."""
        replicas = self._replicas(self.cache.get(POOL, namespace, pool))
        if replicas is None:
            return self.cache.tenants_of(namespace, pool)
        return seats_of(pool, replicas, self._existing(namespace, pool))

    def raw(self, namespace: str, name: str) -> tuple[Manifest, Manifest | None] | None:
        """A tenant as stored, or a seat in that shape, and who owns its children, if that is not itself; None if it is
        gone."""
        pool_name = pool_of_seat(name)
        if pool_name is None:
            tenant = self.cache.get(TENANT, namespace, name)
            return (tenant, None) if tenant else None
        pool = self.cache.get(POOL, namespace, pool_name)
        if pool is None or name not in self.names(namespace, pool_name):
            return None
        runs = name in self.running(namespace, pool_name)
        retained = ((pool.get("spec") or {}).get("storage") or {}).get("retention") != "Delete"
        return as_tenant(pool, name, runs=runs, retained=retained, status=self.statuses.get((namespace, name))), pool

    def running(self, namespace: str, pool: str) -> frozenset[str]:
        """Seats that are to run, as they were decided last."""
        if (namespace, pool) not in self._running:
            self.decide(namespace, pool)
        return self._running[namespace, pool]

    def scale(self, namespace: str, pool: str, spec: PoolSpec, now: datetime) -> Decision | None:
        """Decide how many servers a pool shall have; None if people do. Its seats follow with ``decide``."""
        raw, slots = self.cache.get(POOL, namespace, pool), spec.sessions.max_concurrent
        if raw is None or spec.shared is None or spec.shared.autoscaling is None or slots is None:
            self._replicas_of.pop((namespace, pool), None)
            self._windows.pop((namespace, pool), None)
            return None
        seats = [self._seat(namespace, name) for name in self.names(namespace, pool)]
        last = scale_of(raw.get("status") or {}, sum(seat.up for seat in seats), spec.shared.autoscaling)
        load = load_of(seats, self.held(namespace, pool))
        found = decide(spec.shared.autoscaling, slots, last, load, self._windows.get((namespace, pool)), now)
        self._replicas_of[namespace, pool], self._windows[namespace, pool] = found.scale.replicas, found.window
        return found

    def decide(self, namespace: str, pool: str) -> frozenset[str]:
        """Decide anew which seats run; those for which the answer is another one now."""
        raw = self.cache.get(POOL, namespace, pool)
        replicas, choose = self._replicas(raw), running_as_needed if _is_autoscaled(raw) else running
        before = self._running.get((namespace, pool), frozenset())
        chosen = frozenset[str]()
        if replicas is not None:
            chosen = choose([self._seat(namespace, name) for name in self.names(namespace, pool)], replicas)
        self._running[namespace, pool] = chosen
        return chosen ^ before

    def homes(self, namespace: str, pool: str, tenant: Manifest) -> frozenset[str]:
        """Servers that store something of a tenant of a Shared pool (as stored, with its status)."""
        before = (tenant.get("status") or {}).get("homes") or ()
        runs = [server_of(seat) for seat in self.running(namespace, pool)]
        return homes(self.told_homes(namespace, tenant["metadata"]["name"]), before, runs)

    def surplus(self, namespace: str, pool: str) -> bool:
        """Whether more run than are asked for: who may go is not known yet, or they are wanted for what they store."""
        replicas = self._replicas(self.cache.get(POOL, namespace, pool))
        return replicas is not None and len(self.running(namespace, pool)) > replicas

    def trouble(self, namespace: str, name: str) -> Finding | None:
        """What keeps the server of a seat from running, as it was found last."""
        ready = condition_of(self.statuses.get((namespace, name), {}), "Ready")
        if not ready or ready["status"] == "True" or ready["reason"] in ORDINARY:
            return None
        return Finding(ready["reason"], ready["message"])

    def storage(self, namespace: str, name: str) -> Finding | None:
        """What people should know of the volume of a seat, as it was found last."""
        row = condition_of(self.statuses.get((namespace, name), {}), "StorageReady")
        if not row or (row["status"] != "False" and row["reason"] not in TO_BE_TOLD):
            return None
        return Finding(row["reason"], row["message"])

    def expired(self, namespace: str, name: str) -> Manifest | None:
        """``expiredSessions`` of a seat."""
        return self.statuses.get((namespace, name), {}).get("expiredSessions")

    def stored(self, namespace: str, name: str) -> int | None:
        """Sessions that a seat stored when it was asked last; None: it was not, since we started."""
        return self.told_stored(namespace, server_of(name))

    def sessions(self, namespace: str, pool: str) -> Mapping[str, int] | None:
        """Sessions of a Shared pool that need room, for who scales it: loaded, waiting for room at their server, and
        held by gateways since no server takes them. None if its servers are its tenants', or one of those that are
        ready has not been counted: too few would be told."""
        if self._replicas(self.cache.get(POOL, namespace, pool)) is None:
            return None
        names = self.names(namespace, pool)
        seats = {name: self._seat(namespace, name) for name in names}
        if any(not seat.known and self._is_ready(namespace, name) for name, seat in seats.items()):
            return None
        return {
            "loaded": sum(seat.loaded for seat in seats.values()),
            "waiting": sum(seat.queued for seat in seats.values()),
            "held": self.held(namespace, pool),
        }

    def slots(self, namespace: str, pool: str) -> int | None:
        """How many sessions each server of a Shared pool may have loaded; None: as many as come, or it is none."""
        raw = self.cache.get(POOL, namespace, pool)
        if self._replicas(raw) is None:
            return None
        most = ((raw or {}).get("spec", {}).get("sessions") or {}).get("maxConcurrent")
        return most if type(most) is int else None

    def _is_ready(self, namespace: str, name: str) -> bool:
        live = self.cache.get(DEPLOYMENT, namespace, server_of(name)) or {}
        return bool((live.get("status") or {}).get("readyReplicas"))

    def advanced(self, namespace: str, pool: str, erasure: Erasure, *, one_volume: bool) -> Erasure:
        """After what servers have told of it."""
        states = {seat: self.state(namespace, server_of(seat_name(pool, seat))) for seat in erasure.seats}
        erased = {seat: dict(state.erased) for seat, state in states.items() if state}
        return advanced(erasure, erased, one_volume=one_volume)

    def forget(self, namespace: str, pool: str) -> None:
        """The pool is gone."""
        self._replicas_of.pop((namespace, pool), None)
        self._windows.pop((namespace, pool), None)
        self._running.pop((namespace, pool), None)
        for key in [key for key in self.statuses if key[0] == namespace and pool_of_seat(key[1]) == pool]:
            del self.statuses[key]

    def _seat(self, namespace: str, name: str) -> Seat:
        server = server_of(name)
        pods = self.cache.records(POD, namespace, TENANT_LABEL, slug(name))
        return seat_of(
            name,
            self.cache.get(DEPLOYMENT, namespace, server),
            self.state(namespace, server),
            started=any(True for _ in pods),
            demanded=self.demanded(namespace, server),
        )

    def _existing(self, namespace: str, pool: str) -> Collection[str]:
        """Seats that have a Deployment."""
        found = self.cache.labelled(DEPLOYMENT, namespace, POOL_LABEL, slug(pool))
        names = (annotations_of(live).get(TENANT_ANNOTATION, "") for live in found)
        return [name for name in names if pool_of_seat(name) == pool and name.rpartition("/")[2].isdigit()]

    def _replicas(self, pool: Manifest | None) -> int | None:
        """How many seats shall run; None if its servers are its tenants'."""
        spec = (pool or {}).get("spec") or {}
        if spec.get("isolation") != "Shared":
            return None
        if pool and _is_autoscaled(pool):
            key = pool["metadata"]["namespace"], pool["metadata"]["name"]
            told = ((pool.get("status") or {}).get("autoscaling") or {}).get("replicas", 0)
            return self._replicas_of.get(key, int(told))
        return int((spec.get("shared") or {}).get("replicas") or 0)


def _is_autoscaled(pool: Manifest | None) -> bool:
    return bool((((pool or {}).get("spec") or {}).get("shared") or {}).get("autoscaling"))
