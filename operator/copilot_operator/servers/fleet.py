"""Our dealings with all servers: pings, what their agents say, drains. What a reconcile decided is carried to them."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from copilot_operator.api.duration import duration_s
from copilot_operator.api.operations import RecycleSpec
from copilot_operator.api.pool import PoolSpec
from copilot_operator.api.quantity import quantity_value
from copilot_operator.domain.desired.service import CLI_PORT
from copilot_operator.domain.lifecycle import Move, Order
from copilot_operator.domain.naming import server_of
from copilot_operator.domain.retention import retention_of
from copilot_operator.domain.snapshot import DrainReading, Health, Pod, PoolView, Reading, ServerState, TenantSnapshot
from copilot_operator.servers import Key
from copilot_operator.servers.agents import AgentAddress, AgentClient
from copilot_operator.servers.drains import Drains
from copilot_operator.servers.inventory import Inventory, Limits
from copilot_operator.servers.pinger import Pinger, Target


class Fleet:
    """``changed(namespace, tenant)`` is called when something that decisions use has changed at a tenant's server.

    ``cordoned(namespace, pool, server)`` returns when the pool's gateways know that a server drains.
    """

    def __init__(
        self,
        changed: Callable[[str, str], None],
        measured: Callable[[float | None], None],
        cordoned: Callable[[str, str, str], Awaitable[None]],
    ) -> None:
        client = AgentClient()
        self.pinger = Pinger(self._verdict_changed, measured)
        self.inventory = Inventory(client, self._told)
        self.drains = Drains(client, self._told, renewed=self.inventory.forget_state)
        self._changed, self._cordoned = changed, cordoned
        self._tenant_of: dict[Key, str] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pinger.run(), name="pinger")
            group.create_task(self.inventory.run(), name="inventory")
            group.create_task(self.drains.run(), name="drains")

    def view(self, namespace: str, server: str) -> tuple[Reading, ServerState | None, DrainReading | None]:
        """What is known of a server now."""
        return (
            self.pinger.reading(namespace, server),
            self.inventory.state(namespace, server),
            self.drains.reading(namespace, server),
        )

    def follow(self, namespace: str, name: str, snapshot: TenantSnapshot | None, move: Move | None) -> None:
        """Watch the pod that serves a tenant, and give its agent the order of ``move``. None: there is no tenant."""
        key = (namespace, server_of(name))
        pod = snapshot.server_pod if snapshot else None
        if snapshot is None:
            self.inventory.forget(key)
        if snapshot is None or pod is None or not pod.started or pod.ip is None:
            self._leave(key)
            return
        if snapshot.pool is None or snapshot.known_token is None:
            return  # what is watched stays watched
        self._tenant_of[key] = name
        health = snapshot.pool.spec.health
        self.pinger.watch(
            key,
            Target(
                pod.uid, pod.ip, CLI_PORT, snapshot.known_token.value, duration_s(health.interval),
                duration_s(health.timeout), health.failure_threshold,
            ),
        )  # fmt: skip
        at = AgentAddress(pod.ip, pod.name)
        shared = snapshot.pool.spec.shared
        often = shared is not None and shared.autoscaling is not None
        self.inventory.watch(key, pod.uid, at, limits(snapshot.pool), retention_of(snapshot.pool.spec), often)
        if snapshot.reading.health == Health.UNHEALTHY:
            self.inventory.hasten(key)  # whether its agent gets an answer decides what is done
        if move and move.order == Order.DRAIN:
            self.inventory.hasten(key)  # what it stores can't be asked for once it has stopped
        if move and move.order:
            self._order(key, pod, at, snapshot, snapshot.pool.spec, move)

    def _order(
        self, key: Key, pod: Pod, at: AgentAddress, snapshot: TenantSnapshot, pool: PoolSpec, move: Move
    ) -> None:
        match move.order:
            case Order.DRAIN if move.intent and snapshot.spec:
                cordoned = partial(self._cordoned, key[0], snapshot.spec.pool_ref.name, key[1])
                heard = cordoned if pool.gateway.enabled else None
                self.drains.order(key, pod.uid, at, move.intent.deadline, pool.drain.on_timeout, heard)
            case Order.CANCEL:
                self.drains.cancel(key, pod.uid, at)
            case Order.RESTART:
                self.drains.restart(key, pod.uid, at)

    def _leave(self, key: Key) -> None:
        if self._tenant_of.pop(key, None):
            self.pinger.watch(key, None)
            self.inventory.watch(key, "", None)
            self.drains.forget(key)

    def _verdict_changed(self, key: Key) -> None:
        if self.pinger.reading(*key).health == Health.UNHEALTHY:
            self.inventory.hasten(key)  # before the cycle that will need its answer
        self._told(key)

    def _told(self, key: Key) -> None:
        if name := self._tenant_of.get(key):
            self._changed(key[0], name)


def limits(pool: PoolView) -> Limits:
    """What a server's figures must pass for anything to be decided."""
    recycle: RecycleSpec = pool.spec.recycle
    return Limits(
        memory_bytes=float(quantity_value(recycle.max_memory)) if recycle.max_memory else None,
        processes=recycle.max_processes,
        latency_factor=float(recycle.max_latency_factor) if recycle.max_latency_factor else None,
        age_s=duration_s(recycle.max_age) if recycle.max_age else None,
        stalled_s=duration_s(pool.spec.health.stalled_turn),
        unused_s=duration_s(pool.spec.suspend.after_idle) if pool.spec.suspend.after_idle else None,
        ran_s=duration_s(pool.spec.suspend.min_running) if pool.spec.suspend.min_running else None,
    )
