"""The agent's settings, all from its environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from socket import gethostname

from copilot_operator.agent.held import HELD_S
from copilot_operator.rpc.ephemeral import NONE, Ephemeral


class SettingsError(Exception):
    """The environment does not say what the agent has to know; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the CLI is, where the agent listens, and how long a drain may take."""

    token: str | None = field(repr=False)
    cli_host: str
    cli_port: int
    host: str
    port: int
    data: Path
    drain_deadline_s: float
    probe_timeout_s: float
    pod: str  # its name
    deep_probe_every_s: float = 600.0
    janitor_every_s: float = 3600.0
    metrics_port: int = 4323  # nothing but metrics: who may read them may not stop the server
    ephemeral: Ephemeral = NONE
    behind_gateway: bool = False  # which sees more of the clients than the agent does
    held_s: float = HELD_S
    lock_ttl_s: float = 6.0
    pod_uid: str = ""
    sessions: Path | None = None  # where they lie, if not below ``data``: on a volume that servers share
    claims: Path | None = None  # beside them; None: nobody else has them
    is_copilot_runtime: bool = False  # the server without Node.js
    end: Path = Path("/logs/end")  # that one ends when something is written there (copilot-server)

    @property
    def volume(self) -> Path:
        """A directory of the volume that the sessions lie on."""
        return self.sessions or self.data

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        return cls(
            token=environ.get("COPILOT_CONNECTION_TOKEN") or None,
            cli_host=environ.get("COPILOT_AGENT_CLI_HOST", "127.0.0.1"),
            cli_port=_number(environ, "COPILOT_AGENT_CLI_PORT", 4321),
            host=environ.get("COPILOT_AGENT_HOST", "0.0.0.0"),
            port=_number(environ, "COPILOT_AGENT_PORT", 4322),
            data=Path(environ.get("COPILOT_AGENT_DATA", "/data")),
            drain_deadline_s=_number(environ, "COPILOT_AGENT_DRAIN_DEADLINE_S", 540),
            # below the timeout of kubelet's probes, so that kubelet hears the reason instead of nothing
            probe_timeout_s=_number(environ, "COPILOT_AGENT_PROBE_TIMEOUT_S", 3),
            pod=environ.get("HOSTNAME") or gethostname(),  # kubelet sets both, pods have names that fit
            deep_probe_every_s=_number(environ, "COPILOT_AGENT_DEEP_PROBE_EVERY_S", 600),
            janitor_every_s=_number(environ, "COPILOT_AGENT_JANITOR_EVERY_S", 3600),
            metrics_port=_number(environ, "COPILOT_AGENT_METRICS_PORT", 4323),
            ephemeral=_ephemeral(environ),
            behind_gateway=bool(environ.get("COPILOT_AGENT_PERSISTENCE")),  # only there it is said
            held_s=_number(environ, "COPILOT_AGENT_HELD_S", round(HELD_S)),
            # of a lease for a shared session; so long nobody gets one after the agent has started
            lock_ttl_s=_number(environ, "COPILOT_AGENT_LOCK_TTL_S", 6),
            pod_uid=environ.get("COPILOT_AGENT_POD_UID", ""),
            sessions=_path(environ, "COPILOT_AGENT_SESSIONS"),
            claims=_path(environ, "COPILOT_AGENT_CLAIMS"),
            is_copilot_runtime=_is_copilot_runtime(environ),
            end=_path(environ, "COPILOT_AGENT_END") or Path("/logs/end"),
        )


def _ephemeral(environ: Mapping[str, str]) -> Ephemeral:
    """Which sessions are, by the pool's ``sessions.persistence``; absent: none, for there is no gateway."""
    match environ.get("COPILOT_AGENT_PERSISTENCE", ""):
        case "":
            return NONE
        case "Persistent" | "Ephemeral" as persistence:
            return Ephemeral(persistence == "Ephemeral", _number(environ, "COPILOT_AGENT_CODE_LENGTH", 0))
        case other:
            raise SettingsError(f"COPILOT_AGENT_PERSISTENCE must be Persistent, Ephemeral or absent, not {other!r}")


def _is_copilot_runtime(environ: Mapping[str, str]) -> bool:
    """By the pool's ``server.runtime``."""
    match environ.get("COPILOT_AGENT_RUNTIME", ""):
        case "" | "CLI":
            return False
        case "CopilotRuntime":
            return True
        case other:
            raise SettingsError(f"COPILOT_AGENT_RUNTIME must be CLI, CopilotRuntime or absent, not {other!r}")


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name, "")
    if not value:
        return default
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise SettingsError(f"{name} must be a whole number, not {value!r}")
    return int(value)
