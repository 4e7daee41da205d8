"""The Deployment of one server: one CLI process with 0 or 1 replicas, and its agent."""

from typing import Any, Final

from copilot_operator.api.duration import duration_s
from copilot_operator.api.resources import overlay
from copilot_operator.domain.desired.common import child, selector, stamped, tenant_labels, with_revision
from copilot_operator.domain.desired.outside import outside_env, outside_mounts, outside_volumes
from copilot_operator.domain.desired.service import AGENT_PORT, CLI_PORT, METRICS_PORT
from copilot_operator.domain.desired.volumes import (
    agent_env,
    agent_mounts,
    cli_env,
    cli_mounts,
    disposable_volumes,
    state_volumes,
)
from copilot_operator.domain.fit import own_resources
from copilot_operator.domain.github_app import SERIAL_KEY, host_of
from copilot_operator.domain.kinds import DEPLOYMENT
from copilot_operator.domain.manifest import Manifest, annotations_of, digest
from copilot_operator.domain.naming import (
    INTENT_ANNOTATION,
    RESTARTED_AT_ANNOTATION,
    TENANT_ANNOTATION,
    pool_object,
)
from copilot_operator.domain.server_tokens import key_of
from copilot_operator.domain.snapshot import TenantSnapshot
from copilot_operator.domain.tenant_tokens import CODE_LENGTH

CLI_UID: Final = 10001
AGENT_UID: Final = 10002  # its own: what runs in the server must not read the agent's memory
FLUSH_S: Final = 60  # what the grace period has beyond drain.timeout: to abort, to close sessions, to end
PROGRESS_DEADLINE_S: Final = 120
TOKEN_ENV: Final = "COPILOT_CONNECTION_TOKEN"
GITHUB_TOKEN_ENV: Final = "COPILOT_SDK_AUTH_TOKEN"
MINTED_TOKEN_ENV: Final = "COPILOT_GITHUB_TOKEN"
SERIAL_ENV: Final = "COPILOT_OPERATOR_TOKEN_SERIAL"
HOST_ENV: Final = "COPILOT_GH_HOST"
LOCKED_DOWN: Final[Manifest] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
NOTED_IF_GIVEN: Final = ("caBundle", "proxy")  # of the intent; so pools without them are noted as by older operators
AGENT_RESOURCES: Final[Manifest] = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}}


def deployment(snapshot: TenantSnapshot) -> Manifest:
    """The Deployment with ``replicas: 1``; when it runs, and when its template may change, is lifecycle.py's.

    RollingUpdate with maxUnavailable 0 is a safety catch: if somebody edits the template by hand, the surge pod waits
    for the state directory that the running server holds, the running one stays, and the edit is undone. Our own
    changes of the template happen at 0 replicas only.
    """
    assert snapshot.pool
    manifest = child(DEPLOYMENT, snapshot)
    manifest["metadata"]["annotations"][INTENT_ANNOTATION] = _line(intent(snapshot))
    manifest = stamped(
        manifest
        | {
            "spec": {
                "replicas": 1,
                "revisionHistoryLimit": 1,
                "progressDeadlineSeconds": PROGRESS_DEADLINE_S,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "selector": {"matchLabels": selector(snapshot)},
                "template": _template(snapshot),
            }
        }
    )
    return with_revision(manifest, snapshot.pool.revision)


def intent(snapshot: TenantSnapshot) -> dict[str, Any]:
    """What people decided about the server, by the name they know it by: a change of one restarts the server.

    An operator of a newer version may render another template from the same intent; that waits for the next stop.
    """
    assert snapshot.spec
    assert snapshot.pool
    assert snapshot.token
    spec, credential, bundle = snapshot.pool.spec, snapshot.server_credential, snapshot.bundle
    token = [credential.secret, credential.key, credential.digest] if credential else None
    if credential and credential.app:  # a new one comes every hour, with a cause of its own: see ``old_token``
        token = [credential.secret, credential.key, host_of(credential.app)]
    own = own_resources(snapshot.spec)
    return {
        "image": spec.server.image,
        "runtime": spec.server.runtime,
        "args": list(spec.server.args),
        "env": _user_env(snapshot),
        "resources": _as_json(spec.server.resources),
        "ownResources": _as_json(own) if own else None,
        "logLevel": spec.server.log_level,
        "template": _as_json(spec.server.template),
        "idleTimeout": spec.sessions.idle_timeout,
        "gitHubToken": None if snapshot.spec.auth else token,
        "ownGitHubToken": token if snapshot.spec.auth else None,
        "connectionToken": [snapshot.token.shard, digest(snapshot.token.value)],
        "restartedAt": snapshot.pool.restarted_at,
        "ownRestartedAt": annotations_of(snapshot.raw).get(RESTARTED_AT_ANNOTATION, ""),
        **({"proxy": _as_json(spec.server.proxy)} if spec.server.proxy else {}),
        **({"caBundle": [bundle.config_map, bundle.key, bundle.digest]} if bundle else {}),
    }


def _line(values: dict[str, Any]) -> str:
    """``part=digest`` for each part, so that a restart can name what changed without keeping the values."""
    return " ".join(f"{part}={digest(value)[:8]}" for part, value in sorted(values.items()))


def changed_intent(live: Manifest, wanted: Manifest) -> list[str]:
    """Names of the parts of the intent in which two Deployments differ, sorted.

    A part that only one of them has is no change: it came or went with the operator's version; but for those that are
    noted only if they are given. If somebody removed the whole note, nobody knows what the server was started from:
    every part may have changed.
    """
    before, after = (
        dict(part.split("=", 1) for part in annotations_of(manifest).get(INTENT_ANNOTATION, "").split())
        for manifest in (live, wanted)
    )
    if not before:
        return sorted(after)
    compared = (before.keys() & after.keys()) | set(NOTED_IF_GIVEN)
    return sorted(part for part in compared if before.get(part) != after.get(part))


def _template(snapshot: TenantSnapshot) -> Manifest:
    assert snapshot.spec
    assert snapshot.pool
    template = snapshot.pool.spec.server.template
    annotations = dict(template.metadata.annotations) | {
        "kubectl.kubernetes.io/default-container": "copilot",
        TENANT_ANNOTATION: snapshot.name,  # a pod's events find the tenant by it: its owner is a ReplicaSet
        # what these volumes hold may be lost; Cluster Autoscaler would not empty the node for them otherwise
        "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": ",".join(disposable_volumes(snapshot)),
    }
    return {
        "metadata": {"labels": dict(template.metadata.labels) | tenant_labels(snapshot), "annotations": annotations},
        "spec": _as_json(template.spec)
        | {
            "serviceAccountName": pool_object(snapshot.spec.pool_ref.name),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "shareProcessNamespace": True,  # the agent counts processes and memory; pause reaps orphans
            "terminationGracePeriodSeconds": drain_timeout_s(snapshot) + FLUSH_S,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": CLI_UID,
                "runAsGroup": CLI_UID,
                "fsGroup": CLI_UID,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "initContainers": [_agent(snapshot)],
            "containers": [_cli(snapshot)],
            "volumes": [
                *state_volumes(snapshot),
                {"name": "logs", "emptyDir": {"sizeLimit": "256Mi"}},
                {"name": "tmp", "emptyDir": {}},
                *outside_volumes(snapshot),
            ],
        },
    }


def _agent(snapshot: TenantSnapshot) -> Manifest:
    """A native sidecar: started before the server, stopped after it, so it can serve its probes and its preStop."""
    probe = {"httpGet": {"path": "/agentz", "port": AGENT_PORT}, "timeoutSeconds": 5}
    return {
        "name": "agent",
        "image": snapshot.settings.agent_image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["agent"],
        "restartPolicy": "Always",
        "env": [
            _server_token(snapshot),
            {"name": "COPILOT_AGENT_DRAIN_DEADLINE_S", "value": str(drain_timeout_s(snapshot))},
            *_persistence(snapshot),
            *agent_env(snapshot),
        ],
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in (("agent", AGENT_PORT), ("metrics", METRICS_PORT))
        ],
        "resources": AGENT_RESOURCES,
        "securityContext": LOCKED_DOWN | {"runAsUser": AGENT_UID},
        "startupProbe": probe | {"periodSeconds": 1, "failureThreshold": 60},
        "livenessProbe": probe | {"periodSeconds": 30, "failureThreshold": 3},
        "volumeMounts": agent_mounts(snapshot),
    }


def _persistence(snapshot: TenantSnapshot) -> list[Manifest]:
    """By what the agent knows ephemeral sessions; nothing where there is no gateway, for there are none."""
    assert snapshot.pool
    spec = snapshot.pool.spec
    if not spec.gateway.enabled:
        return []
    code_length = CODE_LENGTH if spec.isolation == "Shared" else 0
    return [
        {"name": "COPILOT_AGENT_PERSISTENCE", "value": spec.sessions.persistence},
        {"name": "COPILOT_AGENT_CODE_LENGTH", "value": str(code_length)},
    ]


def _cli(snapshot: TenantSnapshot) -> Manifest:
    assert snapshot.pool
    spec = snapshot.pool.spec
    # an image that can't run it takes this for a flag of the CLI, and says so
    args = ["--runtime", spec.server.runtime] if snapshot.runs_copilot_runtime else []
    args += ["--log-level", spec.server.log_level]
    args += ["--session-idle-timeout", str(round(duration_s(spec.sessions.idle_timeout)))]
    ours = [
        _server_token(snapshot),
        {"name": "HOME", "value": "/data/home"},
        {"name": "COPILOT_HOME", "value": "/data/copilot"},
        *cli_env(snapshot),
        *outside_env(snapshot),
    ]
    credential, host = snapshot.server_credential, None
    if credential and credential.app:
        # GitHub documents installation tokens in this variable only; the script starts the CLI so that it reads it
        ours.append(_from_secret(MINTED_TOKEN_ENV, credential.secret, credential.key))
        ours.append(_from_secret(SERIAL_ENV, credential.secret, SERIAL_KEY))
        host = host_of(credential.app)
    elif credential:
        args += ["--auth-token-env", GITHUB_TOKEN_ENV]
        ours.append(_from_secret(GITHUB_TOKEN_ENV, credential.secret, credential.key))
    # by name: the API server answers two of one name in an apply with an error that no retry cures
    preset = [{"name": HOST_ENV, "value": host}] if host else []
    env = {variable["name"]: variable for variable in [*preset, *_user_env(snapshot), *ours]}
    return {
        "name": "copilot",
        "image": spec.server.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/usr/local/bin/copilot-server"],
        "args": [*args, *spec.server.args],
        "env": list(env.values()),
        "ports": [{"name": "copilot", "containerPort": CLI_PORT, "protocol": "TCP"}],
        "resources": _resources(snapshot),
        "securityContext": LOCKED_DOWN,
        "lifecycle": {"preStop": {"httpGet": {"path": "/drain", "port": AGENT_PORT}}},
        "startupProbe": _probe("/livez", period_s=1, failures=120),
        # the last resort only: the operator notices a silent server earlier and knows whether it is busy
        "livenessProbe": _probe("/livez", period_s=10, failures=6) | {"terminationGracePeriodSeconds": 10},
        "readinessProbe": _probe("/readyz", period_s=5, failures=2),
        "volumeMounts": [
            *cli_mounts(snapshot),
            {"name": "logs", "mountPath": "/logs"},
            {"name": "tmp", "mountPath": "/tmp"},
            *outside_mounts(snapshot),
        ],
    }


def _probe(path: str, *, period_s: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": AGENT_PORT},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def drain_timeout_s(snapshot: TenantSnapshot) -> int:
    assert snapshot.pool
    return round(duration_s(snapshot.pool.spec.drain.timeout))


def _server_token(snapshot: TenantSnapshot) -> Manifest:
    assert snapshot.token
    return _from_secret(TOKEN_ENV, snapshot.token.shard, key_of(snapshot.server, snapshot.token.rotation))


def token_source(deployment: Manifest) -> tuple[str, str] | None:
    """Name of the Secret, and the key in it, that a Deployment of ours takes its server's token from."""
    for variable in deployment["spec"]["template"]["spec"]["containers"][0].get("env") or ():
        if variable["name"] == TOKEN_ENV:
            found = (variable.get("valueFrom") or {}).get("secretKeyRef") or {}
            return (str(found["name"]), str(found["key"])) if found.get("name") and found.get("key") else None
    return None


def _from_secret(name: str, secret: str, key: str) -> Manifest:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _resources(snapshot: TenantSnapshot) -> Manifest:
    """The pool's resources with the tenant's on top; fit.py has seen to it that they go together."""
    assert snapshot.spec
    assert snapshot.pool
    return _as_json(overlay(snapshot.pool.spec.server.resources, own_resources(snapshot.spec)))


def _user_env(snapshot: TenantSnapshot) -> list[Manifest]:
    assert snapshot.pool
    return [_as_json(variable) for variable in snapshot.pool.spec.server.env]


def _as_json(model: Any) -> Manifest:
    """A part of the API's models as the API server speaks it, without what was left out."""
    document: Manifest = model.model_dump(by_alias=True, exclude_none=True, mode="json")
    return document
