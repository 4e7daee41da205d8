"""Names of what we make: short, valid everywhere, and never the same for two different owners.

A name that is a short DNS label without ``--`` is used as it is; any other becomes ``<readable part>--<hash>``. Since
no name used as it is holds ``--``, the two forms never meet; the hash has 80 bits.
"""

import base64
import hashlib
import re
from typing import Final

from copilot_operator.domain.kinds import GROUP, TENANT, Kind

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "copilot-operator"
NAME_LABEL: Final = "app.kubernetes.io/name"
SERVER_NAME: Final = "copilot"  # value of NAME_LABEL on everything that belongs to a server
GATEWAY_NAME: Final = "copilot-gateway"  # value of NAME_LABEL on everything that belongs to a gateway
POOL_LABEL: Final = f"{GROUP}/pool"
TENANT_LABEL: Final = f"{GROUP}/tenant"
USABLE_LABEL: Final = f"{GROUP}/tenant-usable"  # "true" on users' credential Secrets; ours say "false", see observe.py

TENANT_ANNOTATION: Final = f"{GROUP}/tenant-name"  # the whole name: the label holds a slug
POOL_ANNOTATION: Final = f"{GROUP}/pool-name"  # likewise, on the pods of gateways and the claim of a pool
PAUSED_ANNOTATION: Final = f"{GROUP}/paused"
RESTARTED_AT_ANNOTATION: Final = f"{GROUP}/restarted-at"
APPLIED_ANNOTATION: Final = f"{GROUP}/applied-hash"
INTENT_ANNOTATION: Final = f"{GROUP}/intent-hash"
DRAIN_CAUSE_ANNOTATION: Final = f"{GROUP}/drain-cause"  # on the Deployment, of a field manager of their own
DRAIN_SINCE_ANNOTATION: Final = f"{GROUP}/drain-since"
DRAIN_DEADLINE_ANNOTATION: Final = f"{GROUP}/drain-deadline"
HEALTH_RESTARTS_ANNOTATION: Final = f"{GROUP}/health-restarts"
SERIAL_ANNOTATION: Final = f"{GROUP}/token-serial"  # on Secrets with minted tokens; see domain/github_app.py
MINTED_ANNOTATION: Final = f"{GROUP}/token-minted-at"
EXPIRES_ANNOTATION: Final = f"{GROUP}/token-expires-at"
SOURCE_ANNOTATION: Final = f"{GROUP}/token-source"
ORIGIN_ANNOTATION: Final = f"{GROUP}/token-origin"
ROTATION_ANNOTATION: Final = f"{GROUP}/token-rotation"  # on connection Secrets; see domain/tenant_tokens.py
BEFORE_ANNOTATION: Final = f"{GROUP}/token-rotation-before"
OVERLAP_ANNOTATION: Final = f"{GROUP}/token-overlap-until"
POOL_REVISION_ANNOTATION: Final = f"{GROUP}/pool-revision"  # on Deployments: the ControllerRevision they are made from
PROVEN_ANNOTATION: Final = f"{GROUP}/proven"  # "true" on a ControllerRevision with which a server was Ready
CORDONED_LABEL: Final = f"{GROUP}/cordoned"  # "true" on pods to which nothing new may be led
PROTECTED_LABEL: Final = f"{GROUP}/protected"  # "true" on pods that work: the pool's PodDisruptionBudget selects it

AS_IT_IS: Final = re.compile(r"[a-z0-9]([a-z0-9]|-(?!-))*[a-z0-9]|[a-z0-9]")
LONGEST: Final = 38  # "copilot-" before, a ReplicaSet's suffix (11) and a pod's (6) behind: 63


def slug(name: str) -> str:
    """A DNS label of at most 38 characters, unique to ``name`` (RFC 1123)."""
    if len(name) <= LONGEST and AS_IT_IS.fullmatch(name):
        return name
    readable = re.sub(r"-+", "-", re.sub(r"[^a-z0-9]", "-", name.lower())).strip("-")[:20].strip("-") or "x"
    return f"{readable}--{base64.b32encode(hashlib.sha256(name.encode()).digest()[:10]).decode().lower()}"


def server_of(tenant: str) -> str:
    """Name of a Dedicated tenant's server: its Deployment, Service, claim and connection Secret."""
    return f"copilot-{slug(tenant)}"


def pool_object(pool: str) -> str:
    """Name of a pool's ServiceAccount and NetworkPolicy; differs from every server's by its prefix."""
    return f"copilotpool-{slug(pool)}"


def pool_sessions(pool: str) -> str:
    """Name of the claim for the volume that the servers of a pool share."""
    return f"{pool_object(pool)}-sessions"


def minted_token(kind: Kind, owner: str) -> str:
    """Name of the Secret with the token that is made for a pool or tenant. No server's name ends so: see ``slug``."""
    return f"{server_of(owner) if kind == TENANT else pool_object(owner)}--github-token"


def busy_servers(pool: str) -> str:
    """Name of a pool's PodDisruptionBudget: whoever drains a node reads in it what the drain waits for."""
    return f"{pool_object(pool)}-busy-servers"


def gateway_of(pool: str) -> str:
    """Name of all that a pool's gateway consists of: Deployment, Service, ServiceAccount, Role, settings."""
    return f"{pool_object(pool)}-gateway"


def tenant_shard(pool: str, number: int) -> str:
    """Name of the ``number``-th Secret with what a pool's gateway knows of tenants."""
    return f"{tenant_shards(pool)}{number}"


def tenant_shards(pool: str) -> str:
    """With what their names begin."""
    return f"{gateway_of(pool)}-tenants-"


def tenant_key(pool: str) -> str:
    """Name of the Secret with the key that a pool's tenants' tokens are made from."""
    return f"{pool_object(pool)}-tenant-key"


def pool_revision(pool: str, code: str) -> str:
    """Name of the ControllerRevision of a pool whose content has the digest ``code`` (10 digits: 61 in all)."""
    return f"{pool_object(pool)}-{code}"


def token_shard(pool: str, number: int) -> str:
    """Name of the ``number``-th Secret with server tokens of a pool."""
    return f"{token_shards(pool)}{number}"


def token_shards(pool: str) -> str:
    """With what their names begin."""
    return f"{pool_object(pool)}-server-tokens-"
