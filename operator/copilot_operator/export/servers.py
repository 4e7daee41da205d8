"""The server of each tenant without an operator: what it is made from, and what is lost. Pure."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from copilot_operator.api.invalid import InvalidResource
from copilot_operator.api.pool import PoolSpec, parse_pool
from copilot_operator.api.references import Auth
from copilot_operator.api.tenant import parse_tenant
from copilot_operator.domain.fit import misfit
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import server_of
from copilot_operator.domain.snapshot import (
    Credential,
    PoolSnapshot,
    PoolView,
    ServerToken,
    Settings,
    TenantSnapshot,
)

NAMESPACE: Final = "default"
NO_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)

# What a pool may say and nobody does then: by its path in the spec, why.
GATEWAYS: Final = {
    "sessions.policy": "nothing enforces it",
    "sessions.infinite": "clients say it themselves",
    "sessions.maxConcurrent": "nobody counts",
    "sessions.whenFull": "nobody counts",
    "suspend": "nobody is there for the request that would start the server again",
}
OPERATORS: Final = {
    "sessions.ttl": "nobody tells the agent; sessions stay until the volume is full",
    "sessions.ttlAction": "nobody tells the agent",
    "health": "probes restart a server that does not answer, and nothing else is looked at",
    "update": "a changed Deployment is stopped and started at once, after its drain",
    "recycle": "nobody restarts worn servers",
}


class ExportError(Exception):
    """What was given can't be exported; the message names it and the way out."""


@dataclass(frozen=True)
class Server:
    """One tenant's, with ``notes`` on what is lost; ``pool`` is what its pool's own objects are made from."""

    snapshot: TenantSnapshot
    pool: PoolSnapshot
    notes: tuple[str, ...]


def servers(pools: Sequence[Manifest], tenants: Sequence[Manifest], agent_image: str) -> list[Server]:
    """A server for each tenant, sorted by namespace and name. Raises ExportError."""
    known = {(_namespace(pool), pool["metadata"]["name"]): pool for pool in pools}
    settings = Settings(agent_image=agent_image, operator_namespace="")
    made = []
    for tenant in sorted(tenants, key=lambda each: (_namespace(each), each["metadata"]["name"])):
        name, pool = tenant["metadata"]["name"], ((tenant.get("spec") or {}).get("poolRef") or {}).get("name")
        if (found := known.get((_namespace(tenant), str(pool)))) is None:
            raise ExportError(f"CopilotTenant {name}: its pool {pool!r} is not among what was given; add it")
        made.append(_server(found, tenant, settings))
    return made


def _server(pool: Manifest, tenant: Manifest, settings: Settings) -> Server:
    try:
        asked = parse_pool(_placed(pool)).spec
        if asked.isolation == "Shared":
            raise ExportError(
                f"CopilotPool {pool['metadata']['name']}: isolation: Shared needs a gateway, which an operator tells "
                "what to do: export tenants of a Dedicated pool"
            )
        direct = _placed(pool) | {"spec": without_gateway(pool["spec"])}
        pool_spec, spec = parse_pool(direct).spec, parse_tenant(_placed(tenant)).spec
    except InvalidResource as error:
        raise ExportError(str(error)) from error
    name = tenant["metadata"]["name"]
    credential = _credential(name, spec.auth or asked.auth)
    own = {part: value for part, value in tenant["spec"].items() if part not in ("sessions", "connectionToken")}
    snapshot = TenantSnapshot(
        raw=_placed(tenant) | {"spec": own},
        now=NO_TIME,
        settings=settings,
        server=server_of(name),
        spec=parse_tenant(_placed(tenant) | {"spec": own}).spec,
        pool=PoolView(pool_spec),
        token=ServerToken("", server_of(name)),
        credential=credential,
    )
    if wrong := misfit(snapshot):
        raise ExportError(f"CopilotTenant {name}: {wrong.message}")
    notes = [*_notes(asked), *(["spec.sessions of tenants has no effect: nobody counts"] if spec.sessions else [])]
    notes += ["spec.connectionToken of tenants has no effect: nobody rotates"] if spec.connection_token else []
    return Server(snapshot, PoolSnapshot(direct, NO_TIME, settings, spec=pool_spec), tuple(notes))


def without_gateway(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A pool's spec as that of one without a gateway: with nothing in it that only a gateway does."""
    direct = copy.deepcopy(dict(spec))
    direct["gateway"] = {"enabled": False}
    for path in GATEWAYS:
        *parents, last = path.split(".")
        node: Any = direct
        for parent in parents:
            node = (node or {}).get(parent)
        if node:
            node.pop(last, None)
    auth = direct.get("auth") or {}
    if auth.get("provider") or (auth.get("gitHub") or {}).get("userToken"):
        del direct["auth"]
    return direct


def _credential(tenant: str, auth: Auth | None) -> Credential | None:
    """The GitHub token that the server is started with."""
    if auth is None:
        return None
    if auth.provider:
        raise ExportError(
            f"CopilotTenant {tenant}: auth.provider needs a gateway, which puts the key into sessions: leave it out, "
            "and have the application pass the provider when it creates a session"
        )
    if auth.app or auth.user_token:
        raise ExportError(
            f"CopilotTenant {tenant}: tokens of a GitHub App need the operator, which makes and renews them: write "
            "auth.gitHub.tokenSecretRef"
        )
    return Credential(auth.secret_ref.name, auth.secret_ref.key, digest="")


def _notes(asked: PoolSpec) -> Iterator[str]:
    if asked.gateway.enabled:
        yield "there is no gateway: applications connect to the server itself, and their connections end when it stops"
    for path, why in {**GATEWAYS, **OPERATORS}.items():
        if _differs(asked, path):
            yield f"spec.{path} of the pool has no effect: {why}"


def _differs(spec: PoolSpec, path: str) -> bool:
    """Whether something else than the default is said there."""
    bare = PoolSpec.model_validate({"isolation": spec.isolation, "server": {"image": spec.server.image}})
    said: Any = spec.to_api()
    default: Any = bare.to_api()
    for part in path.split("."):
        said, default = (said or {}).get(part), (default or {}).get(part)
    return bool(said != default)


def _namespace(obj: Manifest) -> str:
    return str(obj["metadata"].get("namespace") or NAMESPACE)


def _placed(obj: Manifest) -> Manifest:
    """With a namespace, and with the identity that owners have and files don't."""
    metadata = obj["metadata"]
    return dict(obj) | {"metadata": {**metadata, "namespace": _namespace(obj), "uid": ""}}
