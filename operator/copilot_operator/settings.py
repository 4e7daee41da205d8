"""The operator's own settings: environment variables, set by its Deployment."""

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names it and the way out."""


@dataclass(frozen=True)
class OperatorSettings:
    """``agent_image``: image of the sidecar, which is the operator's own."""

    agent_image: str
    namespace: str
    identity: str
    port: int = 8080
    log_level: str = "info"
    workers: int = 24

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> "OperatorSettings":
        """Raises SettingsError."""
        image = env.get("COPILOT_OPERATOR_IMAGE", "")
        if not image:
            raise SettingsError("COPILOT_OPERATOR_IMAGE is not set; give the image of the operator, agents run from it")
        return cls(
            agent_image=image,
            namespace=env.get("POD_NAMESPACE", "copilot-operator"),
            identity=f"{env.get('POD_NAME', socket.gethostname())}-{uuid.uuid4().hex[:8]}",
            port=_whole_number(env, "COPILOT_OPERATOR_PORT", 8080, least=0),
            log_level=env.get("COPILOT_OPERATOR_LOG_LEVEL", "info"),
            workers=_whole_number(env, "COPILOT_OPERATOR_WORKERS", 24, least=1),
        )


def _whole_number(env: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    text = env.get(name, str(default))
    if not text.isdigit() or int(text) < least:
        raise SettingsError(f"{name} is {text!r}; write a whole number of at least {least}")
    return int(text)
