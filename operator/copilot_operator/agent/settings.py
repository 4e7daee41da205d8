"""The agent's settings, all from its environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from socket import gethostname


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
        )


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name, "")
    if not value:
        return default
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise SettingsError(f"{name} must be a whole number, not {value!r}")
    return int(value)
