"""The operator's own settings: environment variables, set by its Deployment."""

import os
import re
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RESOLV_CONF: Final = Path("/etc/resolv.conf")
PAGE_PORT: Final = "COPILOT_OPERATOR_PAGE_PORT"
NAMESPACES: Final = "COPILOT_OPERATOR_WATCH_NAMESPACES"


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names it and the way out."""


@dataclass(frozen=True)
class OperatorSettings:
    """``agent_image``: image of sidecars and gateways, which is the operator's own. ``cluster_domain``: of Services.
    ``most_starts``: servers that are woken at the same time. ``page_port``: of the status page; None: there is none.
    ``watch_namespaces``: those that are served, sorted; all if empty."""

    agent_image: str
    namespace: str
    identity: str
    port: int = 8080
    log_level: str = "info"
    workers: int = 24
    most_starts: int = 50
    cluster_domain: str = "cluster.local"
    page_port: int | None = None
    watch_namespaces: tuple[str, ...] = ()

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
            most_starts=_whole_number(env, "COPILOT_OPERATOR_MOST_STARTS", 50, least=1),
            cluster_domain=env.get("COPILOT_OPERATOR_CLUSTER_DOMAIN") or _cluster_domain(RESOLV_CONF),
            page_port=_whole_number(env, PAGE_PORT, 0, least=0) if env.get(PAGE_PORT) else None,
            watch_namespaces=_namespaces(env.get(NAMESPACES, "")),
        )


def _cluster_domain(resolv_conf: Path) -> str:
    """The domain of Services as a pod's search list has it (``search NS.svc.DOMAIN svc.DOMAIN DOMAIN``)."""
    try:
        lines = resolv_conf.read_text().splitlines()
    except OSError:
        lines = []
    names = (name.rstrip(".") for line in lines if line.startswith("search") for name in line.split()[1:])
    return next((name.removeprefix("svc.") for name in names if name.startswith("svc.")), "cluster.local")


def _namespaces(text: str) -> tuple[str, ...]:
    """``a,b``, in any order; blanks beside commas do not count."""
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    for name in names:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
            way_out = f"write names of namespaces, with commas between them; {name!r} is none"
            raise SettingsError(f"{NAMESPACES} is {text!r}; {way_out}")
    return tuple(sorted(set(names)))


def _whole_number(env: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    text = env.get(name, str(default))
    if not text.isdigit() or int(text) < least:
        raise SettingsError(f"{name} is {text!r}; write a whole number of at least {least}")
    return int(text)
