"""Does a tenant go together with its pool? Wrong combinations that neither object shows alone."""

from typing import Final

from copilot_operator.api.duration import duration_s
from copilot_operator.api.resources import ResourceOverrides, overlay
from copilot_operator.api.tenant import TenantSpec
from copilot_operator.domain.snapshot import Finding, TenantSnapshot

APP_WITHOUT_SERVER: Final = Finding(
    "InvalidSpec",
    "spec.auth.gitHub.app: write tokenSecretRef instead; an App's token is a server's, and here servers are the pool's",
)

APP_FOR_RUNTIME: Final = Finding(
    "InvalidSpec",
    "spec.auth.gitHub.app: write tokenSecretRef instead; the pool's servers (server.runtime: CopilotRuntime) read no "
    "App's token",
)

USER_TOKEN_WITHOUT_GATEWAY: Final = Finding(
    "InvalidSpec",
    "spec.auth.gitHub.userToken: write tokenSecretRef instead; the pool has no gateway that could put it into sessions",
)


def own_resources(spec: TenantSpec) -> ResourceOverrides | None:
    """What the tenant says of its server's resources."""
    return spec.server.resources if spec.server else None


def _asks_for_a_server(spec: TenantSpec) -> Finding | None:
    """What is of no use where servers and volumes are the pool's."""
    if spec.server is not None:
        return Finding("InvalidSpec", "spec.server: leave it out, the servers of a Shared pool are set up in the pool")
    if spec.deletion_policy == "Retain":
        message = "spec.deletionPolicy: leave it out, volumes of a Shared pool go or stay with the pool"
        return Finding("InvalidSpec", message)
    return None


def misfit(snapshot: TenantSnapshot) -> Finding | None:
    """What is wrong with the two together; None as long as one of them could not be read."""
    if snapshot.spec is None or snapshot.pool is None:
        return None
    if snapshot.spec.auth and snapshot.spec.auth.provider and not snapshot.pool.spec.gateway.enabled:
        message = "spec.auth.provider: leave it out, the pool has no gateway that could put the key into sessions"
        return Finding("InvalidSpec", message)
    if snapshot.spec.auth and snapshot.spec.auth.user_token and not snapshot.pool.spec.gateway.enabled:
        return USER_TOKEN_WITHOUT_GATEWAY
    if snapshot.spec.auth and snapshot.spec.auth.app and not snapshot.has_server:
        return APP_WITHOUT_SERVER
    if snapshot.spec.auth and snapshot.spec.auth.app and snapshot.runs_copilot_runtime:
        return APP_FOR_RUNTIME
    sessions = snapshot.spec.sessions
    if sessions and sessions.max_concurrent is not None and not snapshot.pool.spec.gateway.enabled:
        message = "spec.sessions.maxConcurrent: leave it out, the pool has no gateway that could count sessions"
        return Finding("InvalidSpec", message)
    token = snapshot.spec.connection_token
    if token and token.overlap and duration_s(token.overlap) and not snapshot.pool.spec.gateway.enabled:
        message = "spec.connectionToken.overlap: leave it out, the pool has no gateway that could take two tokens"
        return Finding("InvalidSpec", message)
    if not snapshot.has_server:
        return _asks_for_a_server(snapshot.spec)
    if snapshot.spec.deletion_policy == "Retain" and not snapshot.has_volume and not snapshot.is_seat:
        message = "spec.deletionPolicy: leave it out, servers of this pool have no volume (storage.mode: Ephemeral)"
        return Finding("InvalidSpec", message)
    try:
        overlay(snapshot.pool.spec.server.resources, own_resources(snapshot.spec))
    except ValueError as error:
        return Finding("InvalidSpec", f"spec.server.resources: {error}")
    return None
