"""What a gateway is to do, as the operator has compiled it: three JSON files in one directory of mounted volumes.

    pool.json     {"isolation": "Shared", "routing": "Sticky", "policy": {...}, "limits": {...}, "idle": {...},
                   "sessions": {...}, "defaults": {...}, "credential": {...}, "sharedSessions": [...]}
    servers.json  {"<name>": {"host", "port", "token", "state": "Serving" | "Starting" | "Draining" | "Stopped"}}
    tenants.json  {"<sha256 of the token, hex>": {"name", "code", "server"?, "credential"?, "limits"?, "homes"?,
                   "suspended"?, "message"?, "shares"?}}

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

from copilot_operator.gateway.config_files import (
    Idle,
    Limits,
    PoolFile,
    Server,
    Sessions,
    SharedSession,
    State,
    TenantFile,
)
from copilot_operator.gateway.permits import Rules
from copilot_operator.gateway.placement import Strategy
from copilot_operator.gateway.rules.methods import Isolation
from copilot_operator.gateway.rules.policy import Credential, Policy
from copilot_operator.rpc.ephemeral import Ephemeral

_ANY_NUMBER: Final = 1_000_000
_MAX_FILE_BYTES: Final = 8 * 1024 * 1024  # a Secret holds 1 MiB; a directory may have several mounted

NO_CREDENTIAL: Final = "shared sessions run on the pool's credential, and this pool has none: write its spec.auth"
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
    sessions: int | None = None  # that it may have loaded on one server
    homes: tuple[str, ...] = ()
    refusal: str = ""  # what requests for its sessions are answered with
    trouble: str = ""  # what keeps the servers that they wait for from starting
    shares: tuple[str, ...] = ()  # names of shared sessions
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
    sessions: Sessions = field(default_factory=Sessions)
    forgets: bool = False  # a server forgets what it stores when it stops
    shared: tuple[SharedSession, ...] = ()
    credential: Credential | None = field(default=None, repr=False)  # the pool's
    trouble: str = ""  # what keeps the pool's servers from starting

    def room(self, session: SharedSession) -> Tenant:
        """A shared session as if it were a tenant, on the pool's credential. Any server may store it: which do, nobody
        but they themselves remembers."""
        return Tenant(
            name=f"shared/{session.name}",
            code=session.code,
            server=None,
            limits=self.limits,
            homes=tuple(sorted(self.servers)),
            refusal="" if self.credential else NO_CREDENTIAL,
            trouble=self.trouble,
            credential=self.credential,
        )

    @property
    def permits(self) -> Rules | None:
        """The rules for loading sessions; None: there are none."""
        most, tenants = self.sessions.most, self.tenants.values()
        shared = self.sessions.shared
        if most is None and not shared and all(tenant.sessions is None for tenant in tenants):
            return None
        most = _ANY_NUMBER if most is None else most
        return Rules(most, self.sessions.evict, self._code_length, self.idle.session_s, claims=shared)

    @property
    def ephemeral(self) -> Ephemeral:
        """Which sessions are, by the servers' ids."""
        return Ephemeral(self.policy.ephemeral.all, self._code_length)

    @property
    def _code_length(self) -> int:
        return next((len(tenant.code) for tenant in self.tenants.values()), 0)

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
            ephemeral=Ephemeral(pool.sessions.ephemeral),
        )
        by_hash = {digest: _tenant(tenant, pool) for digest, tenant in tenants.items()}
        return Config(
            policy=policy,
            routing=pool.routing,
            limits=pool.limits,
            idle=pool.idle,
            defaults=pool.defaults,
            servers=servers,
            tenants=by_hash,
            admin_key=pool.admin_key,
            gateways=pool.gateways,
            sessions=pool.sessions,
            forgets=pool.forgets,
            shared=tuple(pool.shared_sessions),
            credential=pool.credential.made() if pool.credential is not None else None,
            trouble=pool.trouble,
        )

    def tenant_of(self, token: object) -> Tenant | None:
        """The tenant whose token it is; anything but a token of one is None.

        All hashes are compared, each in constant time: how long it takes says nothing of how near a guess came.
        """
        if not isinstance(token, str):
            return None
        digest = fingerprint(token)
        found = None
        for known, tenant in self.tenants.items():
            if hmac.compare_digest(known, digest):
                found = tenant
        return found


def fingerprint(token: str) -> str:
    """SHA-256 of a token in hexadecimal, by which it is known."""
    return sha256(token.encode(errors="surrogatepass")).hexdigest()


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
        sessions=limits.sessions,
        homes=tuple(tenant.homes),
        shares=tuple(tenant.shares),
        refusal=(tenant.message or SUSPENDED) if tenant.suspended else "",
        trouble=tenant.trouble or pool.trouble,
        credential=own.made() if own is not None else None,
    )


def _check(pool: PoolFile, servers: Mapping[str, Server], tenants: Mapping[str, TenantFile]) -> None:
    """What no single field shows. Raises ConfigError; tenants are named, hashes are not."""
    for name, server in servers.items():
        if not server.host and server.state is not State.STOPPED:
            raise ConfigError("servers.json", name, f"it is {server.state} and has no host")
    if pool.shared_sessions and pool.isolation is Isolation.DEDICATED:
        raise ConfigError("pool.json", "sharedSessions", "only in a Shared pool")
    if len({each.name for each in pool.shared_sessions}) < len(pool.shared_sessions):
        raise ConfigError("pool.json", "sharedSessions", "a name occurs twice")
    codes = {each.code: f"(shared session {each.name})" for each in pool.shared_sessions}
    if len(codes) < len(pool.shared_sessions):
        raise ConfigError("pool.json", "sharedSessions", "two have one code")
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
