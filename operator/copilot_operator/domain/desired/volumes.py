"""Where a server's state lies: on a volume of its own. Where servers share their sessions, these alone lie on a volume
of the pool and the rest in the server's pod, since a CLI wants it for itself (settings, session store, logs)."""

from typing import Final

from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import TenantSnapshot

SESSIONS: Final = "session-state"  # in COPILOT_HOME, and on a shared volume
CLAIMS: Final = "claims"  # on a shared volume: which server has which session


def state_volumes(snapshot: TenantSnapshot) -> list[Manifest]:
    assert snapshot.pool
    if not snapshot.has_volume:
        return [{"name": "data", "emptyDir": {"sizeLimit": snapshot.pool.spec.storage.size}}]
    claimed = {"persistentVolumeClaim": {"claimName": snapshot.claim}}
    if not snapshot.shares_volume:
        return [{"name": "data", **claimed}]
    return [{"name": "data", "emptyDir": {}}, {"name": "sessions", **claimed}]


def disposable_volumes(snapshot: TenantSnapshot) -> list[str]:
    """What is lost with the pod, and nobody misses."""
    return ["data", "logs", "tmp"] if snapshot.shares_volume or not snapshot.has_volume else ["logs", "tmp"]


def cli_mounts(snapshot: TenantSnapshot) -> list[Manifest]:
    mounts: list[Manifest] = [{"name": "data", "mountPath": "/data"}]
    if snapshot.shares_volume:
        # COPILOT_HOME is mounted, too: as the mere parent of a mount it would be made, and owned, by root
        mounts += [
            {"name": "data", "mountPath": "/data/copilot", "subPath": "copilot"},
            {"name": "sessions", "mountPath": f"/data/copilot/{SESSIONS}", "subPath": SESSIONS},
        ]
    return mounts


def agent_mounts(snapshot: TenantSnapshot) -> list[Manifest]:
    """It reads names and times; claims are its own, and no tool that runs in the server sees them."""
    mounts: list[Manifest] = [{"name": "data", "mountPath": "/data", "readOnly": True}]
    if snapshot.shares_volume:
        mounts += [
            {"name": "sessions", "mountPath": "/sessions", "subPath": SESSIONS, "readOnly": True},
            {"name": "sessions", "mountPath": "/claims", "subPath": CLAIMS},
        ]
    if snapshot.runs_copilot_runtime:
        mounts.append({"name": "logs", "mountPath": "/logs"})  # where it has it ended, see copilot-server
    return mounts


def agent_env(snapshot: TenantSnapshot) -> list[Manifest]:
    env: list[Manifest] = []
    if snapshot.runs_copilot_runtime:
        env.append({"name": "COPILOT_AGENT_RUNTIME", "value": "CopilotRuntime"})
    if not snapshot.shares_volume:
        return env
    return [
        *env,
        {"name": "COPILOT_AGENT_SESSIONS", "value": "/sessions"},
        {"name": "COPILOT_AGENT_CLAIMS", "value": "/claims"},
        {"name": "COPILOT_AGENT_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
    ]


def cli_env(snapshot: TenantSnapshot) -> list[Manifest]:
    """``copilot-server`` mends nothing in a directory that other servers work in."""
    return [{"name": "COPILOT_SESSIONS_ARE_SHARED", "value": "true"}] if snapshot.shares_volume else []
