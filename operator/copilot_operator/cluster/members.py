"""Whose servers a pool has: its tenants' own in a Dedicated pool, its seats in a Shared one."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from copilot_operator.cluster.cache import Cache
from copilot_operator.domain.kinds import DEPLOYMENT, POD, POOL, TENANT
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import POOL_LABEL, TENANT_ANNOTATION, TENANT_LABEL, server_of, slug
from copilot_operator.domain.seats import Seat, as_tenant, homes, pool_of_seat, running, seat_of, seats_of
from copilot_operator.domain.snapshot import Finding, ServerState
from copilot_operator.domain.status import ORDINARY

Key = tuple[str, str]  # namespace, name


@dataclass
class Members:
    """``state`` tells what is known of a server (namespace, server), ``demanded`` whether a gateway holds requests for
    it. What was decided, and found, of seats is remembered here: the former anew after a restart, from what runs.
    """

    cache: Cache
    state: Callable[[str, str], ServerState | None]
    demanded: Callable[[str, str], bool]
    told_homes: Callable[[str, str], Collection[str] | None]
    statuses: dict[Key, Manifest] = field(default_factory=dict)  # of seats, as they would be of tenants
    _running: dict[Key, frozenset[str]] = field(default_factory=dict)  # seats that are to run, by pool

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

    def decide(self, namespace: str, pool: str) -> frozenset[str]:
        """Decide anew which seats run; those for which the answer is another one now."""
        replicas = self._replicas(self.cache.get(POOL, namespace, pool))
        before = self._running.get((namespace, pool), frozenset())
        chosen = frozenset[str]()
        if replicas is not None:
            chosen = running([self._seat(namespace, name) for name in self.names(namespace, pool)], replicas)
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
        rows = self.statuses.get((namespace, name), {}).get("conditions") or ()
        ready = next((row for row in rows if row["type"] == "Ready"), None)
        if ready is None or ready["status"] == "True" or ready["reason"] in ORDINARY:
            return None
        return Finding(ready["reason"], ready["message"])

    def forget(self, namespace: str, pool: str) -> None:
        """The pool is gone."""
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
        return int((spec.get("shared") or {}).get("replicas") or 0)
