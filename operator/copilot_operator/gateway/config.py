"""What a gateway is to do, as the operator has compiled it: three JSON files in one directory of mounted volumes.

    pool.json     {"isolation": "Shared", "routing": "Sticky", "policy": {...}, "limits": {...}, "idle": {...},
                   "defaults": {...}, "credential": {...}}
    servers.json  {"<name>": {"host", "port", "token", "state": "Serving" | "Draining" | "Stopped"}}
    tenants.json  {"<sha256 of the token, hex>": {"name", "code", "server"?, "credential"?, "limits"?, "homes"?,
                   "suspended"?, "message"?}}

kubelet replaces the files of a volume all at once, by turning the symlink ``..data``: ``Watch`` looks at that. A
configuration that cannot be read as a whole is not taken at all, and the one before goes on.
"""

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from copilot_operator.gateway.config_files import Idle, Limits, PoolFile, Server, State, TenantFile
from copilot_operator.gateway.placement import Strategy
from copilot_operator.gateway.rules.methods import Isolation
from copilot_operator.gateway.rules.policy import Credential, Policy

_MAX_FILE_BYTES: Final = 8 * 1024 * 1024  # a Secret holds 1 MiB; a directory may have several mounted

SUSPENDED: Final = "this tenant is suspended; its sessions are kept, set spec.suspended to false to go on"

__all__ = ["Config", "ConfigError", "Idle", "Limits", "Server", "State", "Tenant", "Watch"]


class ConfigError(Exception):
    """A file of the configuration that is missing or wrong; ``file``, ``field`` (JSON path) and ``reason``."""

    def __init__(self, file: str, field: str, reason: str) -> None:
        super().__init__(f"{file}: {field + ': ' if field else ''}{reason}")
        self.file, self.field, self.reason = file, field, reason


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who uses the pool.

    ``code`` is put in front of its session ids ("" in a Dedicated pool, where ``server`` is its own). ``homes`` are
    the servers that store anything of it, as far as the operator knows. ``credential`` is its own, else the pool's.
    """

    name: str
    code: str
    server: str | None
    limits: Limits
    homes: tuple[str, ...] = ()
    refusal: str = ""  # what requests for its sessions are answered with
    credential: Credential | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """All of it. Compare two to see what changed: all parts are values."""

    policy: Policy
    routing: Strategy
    limits: Limits
    idle: Idle
    defaults: Mapping[str, Any]
    servers: Mapping[str, Server]
    tenants: Mapping[str, Tenant] = field(repr=False)  # by sha256 of the token, in hex
    admin_key: str | None = field(default=None, repr=False)
    gateways: int = 1

    @property
    def isolation(self) -> Isolation:
        return self.policy.isolation

    @staticmethod
    def read(directory: Path) -> "Config":
        """Read the three files. Raises ConfigError."""
        pool = _decoded(directory, "pool.json", PoolFile)
        servers = _decoded(directory, "servers.json", dict[str, Server])
        tenants = _decoded(directory, "tenants.json", dict[str, TenantFile])
        _check(pool, servers, tenants)
        policy = Policy(
            isolation=pool.isolation,
            models=None if pool.policy.models is None else tuple(pool.policy.models),
            host_tools=pool.policy.host_tools,
            mcp_servers=pool.policy.mcp_servers,
            max_ai_credits=pool.policy.max_ai_credits,
            infinite=pool.policy.infinite,
        )
        by_hash = {digest: _tenant(tenant, pool) for digest, tenant in tenants.items()}
        return Config(
            policy, pool.routing, pool.limits, pool.idle, pool.defaults, servers, by_hash, pool.admin_key, pool.gateways
        )

    def tenant_of(self, token: object) -> Tenant | None:
        """The tenant whose token it is; anything but a token of one is None.

        All hashes are compared, each in constant time: how long it takes says nothing of how near a guess came.
        """
        if not isinstance(token, str):
            return None
        digest = sha256(token.encode(errors="surrogatepass")).hexdigest()
        found = None
        for known, tenant in self.tenants.items():
            if hmac.compare_digest(known, digest):
                found = tenant
        return found


def _tenant(tenant: TenantFile, pool: PoolFile) -> Tenant:
    own, limits = tenant.credential or pool.credential, tenant.limits
    return Tenant(
        name=tenant.name,
        code=tenant.code,
        server=tenant.server,
        limits=msgspec.structs.replace(
            pool.limits,
            connections=limits.connections or pool.limits.connections,
            requests_per_second=limits.requests_per_second or pool.limits.requests_per_second,
            burst=limits.burst or pool.limits.burst,
        ),
        homes=tuple(tenant.homes),
        refusal=(tenant.message or SUSPENDED) if tenant.suspended else "",
        credential=own.made() if own is not None else None,
    )


def _check(pool: PoolFile, servers: Mapping[str, Server], tenants: Mapping[str, TenantFile]) -> None:
    """What no single field shows. Raises ConfigError; tenants are named, hashes are not."""
    for name, server in servers.items():
        if not server.host and server.state is not State.STOPPED:
            raise ConfigError("servers.json", name, f"it is {server.state} and has no host")
    codes = dict[str, str]()
    for digest, tenant in tenants.items():
        at = f"tenant {tenant.name}"
        if len(digest) != 64 or digest.strip("0123456789abcdef"):
            raise ConfigError("tenants.json", at, "its key is not the sha256 of a token in lower-case hex")
        if pool.isolation is Isolation.DEDICATED:
            if tenant.server is None or tenant.code:
                raise ConfigError("tenants.json", at, "in a Dedicated pool it has a server and no code")
            continue
        if tenant.server is not None or not tenant.code:
            raise ConfigError("tenants.json", at, "in a Shared pool it has a code and no server")
        if codes.setdefault(tenant.code, tenant.name) != tenant.name:  # one tenant may have several tokens
            raise ConfigError("tenants.json", at, f"its code is also that of tenant {codes[tenant.code]}")
    for one, other in pairwise(sorted(codes)):
        if other.startswith(one):  # ids of one would be ids of the other
            names = f"tenants {codes[one]} and {codes[other]}"
            raise ConfigError("tenants.json", names, "the code of the one begins with the code of the other")


_File = TypeVar("_File")


def _decoded(directory: Path, name: str, kind: type[_File]) -> _File:
    """Read one file; nothing of its content is in the error but names of fields."""
    try:
        with open(directory / name, "rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(name, "", error.strerror or "cannot be read") from error
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigError(name, "", f"longer than {_MAX_FILE_BYTES} bytes")
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `")
        raise ConfigError(name, path.removesuffix("`").removeprefix("$").lstrip("."), reason) from None
    except msgspec.DecodeError as error:
        raise ConfigError(name, "", f"not JSON: {error}") from None


class Watch:
    """Tells when the directory has changed. ``changed`` asks the file system for a few numbers, nothing more."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether anything has changed since the last time, or since this was made."""
        now = self._look()
        changed, self._seen = now != self._seen, now
        return changed

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        names = ("..data", "pool.json", "servers.json", "tenants.json")
        return tuple(self._numbers(self._directory / name) for name in names)

    @staticmethod
    def _numbers(path: Path) -> tuple[int, int, int] | None:
        """Inode, time and size of what the path leads to; None: nothing. Missing files are not an error here."""
        try:
            found = os.stat(path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
