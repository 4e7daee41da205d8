"""What the API takes and what it refuses, as data: one accepted and one refused example for each rule.

The models are held to this table here, the real API server in ``tests/e2e/test_crds.py``.
"""

import copy
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

POOL: Object = {
    "apiVersion": "copilot-operator.io/v1alpha1",
    "kind": "CopilotPool",
    "metadata": {"name": "saas"},
    "spec": {
        "isolation": "Dedicated",
        "server": {"image": "registry.example.com/copilot-cli:1.0.102"},
        "gateway": {"enabled": False},
    },
}
TENANT: Object = {
    "apiVersion": "copilot-operator.io/v1alpha1",
    "kind": "CopilotTenant",
    "metadata": {"name": "alice"},
    "spec": {"poolRef": {"name": "saas"}},
}


COMPACTS: Object = {"backgroundCompactionThreshold": "0.8", "bufferExhaustionThreshold": "0.8"}


def with_fields(base: Object, fields: Object) -> Object:
    """A copy of ``base`` with ``fields``: dotted path below ``spec`` -> value; ``...`` removes the field."""
    made = copy.deepcopy(base)
    for path, value in fields.items():
        *parents, last = path.split(".")
        node = made["spec"]
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is ...:
            node.pop(last)
        else:
            node[last] = value
    return made


@dataclass(frozen=True)
class Example:
    """Fields (see ``with_fields``) that are accepted, and fields that are refused with ``message`` (at ``path``).

    ``before`` are fields of the stored object, for rules that compare with it; those only the API server can judge.
    """

    message: str
    good: Object
    bad: Object
    path: str = ""
    kind: str = "CopilotPool"
    before: Object | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.path} {next(iter(self.bad.items()))} {self.message}"[:100]

    @property
    def base(self) -> Object:
        """The object that the fields are put into."""
        return POOL if self.kind == "CopilotPool" else TENANT


NOT_A_PLACE = "leave out --headless, --server, --managed-server, --stdio, --acp, --host and --port"
NOT_A_DIRECTORY = "leave out --log-dir, --config-dir, --auto-update and --no-auto-update"
NOT_A_SERVER = "leave out --, --prompt, --interactive, --resume, --continue, --help and --version"
NOT_HOME = "leave out HOME, COPILOT_HOME, COPILOT_CACHE_HOME, COPILOT_PKG_CACHE_HOME and COPILOT_AUTO_UPDATE"
USE_AUTH_FOR_FLAGS = "use spec.auth.gitHub.tokenSecretRef instead of --auth-token-env"
USE_AUTH_FOR_ENV = "use spec.auth.gitHub.tokenSecretRef instead of COPILOT_SDK_AUTH_TOKEN"
A_QUANTITY = "write a quantity, a number with or without a unit such as 500m, 2 or 10Gi"
OUR_KEYS = "keys that begin with copilot-operator.io/ or app.kubernetes.io/ are set by the operator"
REQUEST_ABOVE_LIMIT = "a request may not be above the limit of the same resource"
LABELS = "server.template.metadata.labels"
TOLERATIONS = "server.template.spec.tolerations"


def _variable(name: str, **fields: Any) -> Object:
    return {"server.env": [{"name": name} | fields]}


def _from_secret(**fields: Any) -> Object:
    return _variable("API_KEY", valueFrom=fields)


AUTOSCALED = {
    "isolation": "Shared",
    "shared": {"autoscaling": {"maxReplicas": 2}},
    "gateway": {"enabled": True},
    "sessions.maxConcurrent": 50,
}
IDLES = {"gateway": ..., "suspend.afterIdle": "30m"}
OFFICE = {"start": "0 8 * * MON-FRI", "end": "0 18 * * MON-FRI", "timeZone": "Europe/Berlin"}
SHARED = {"isolation": "Shared", "shared": {"replicas": 1}, "gateway": {"enabled": True}}
RUNTIME = {"server.runtime": "CopilotRuntime", "sessions.maxConcurrent": 100, "gateway": {"enabled": True}}
PROXY = {"server.proxy": {"httpsProxy": "http://proxy.example.com:3128"}}
REF = {"name": "keys", "key": "api"}
APP = {"appId": 12, "installationId": 3456, "privateKeySecretRef": REF}
USER_TOKEN = {"secretRef": {"name": "alice-grant"}}
PROVIDER = {"type": "openai", "baseUrl": "https://models.example.com/v1", "apiKeySecretRef": REF}


def shares(sessions: list[Object]) -> Object:
    return SHARED | {"shared": {"replicas": 1, "sharedSessions": sessions}}


TEAM = {"name": "team", "tenantSelector": {"matchLabels": {"team": "a"}}, "whenBusy": "Queue"}

# ---- rules: every message of the CRDs occurs below (test_crd.py sees to it)
RULES: tuple[Example, ...] = (
    Example(
        "gateway.enabled cannot change",
        {"gateway": {"enabled": True, "replicas": 3}},
        {"gateway": {"enabled": False}},
        path="spec.gateway",
        before={"gateway": {"enabled": True}},
    ),
    Example(
        "leave tls out, or write enabled: true",
        {"gateway": {"enabled": True, "tls": {"secretName": "saas-tls"}}},
        {"gateway": {"enabled": False, "tls": {"secretName": "saas-tls"}}},
        path="spec.gateway.tls",
    ),
    Example(
        "leave persistence out, or write gateway: {enabled: true}",
        {"gateway": ..., "sessions.persistence": "Ephemeral"},
        {"sessions.persistence": "Ephemeral"},
        path="spec.sessions.persistence",
    ),
    Example(
        "leave ttl out: with persistence: Ephemeral nothing of a session is kept",
        {"gateway": ..., "sessions": {"persistence": "Persistent", "ttl": "24h"}},
        {"gateway": ..., "sessions": {"persistence": "Ephemeral", "ttl": "24h"}},
        path="spec.sessions.ttl",
    ),
    Example(
        "persistence cannot change",
        {"gateway": ..., "sessions": {"persistence": "Ephemeral", "idleTimeout": "10m"}},
        {"gateway": ..., "sessions": {"persistence": "Persistent"}},
        path="spec.sessions",
        before={"gateway": ..., "sessions": {"persistence": "Ephemeral"}},
    ),
    Example(
        "storage.mode cannot change",
        {"storage": {"mode": "Ephemeral", "size": "20Gi"}},
        {"storage": {"mode": "PerServer"}},
        path="spec.storage",
        before={"storage": {"mode": "Ephemeral"}},
    ),
    Example(
        "leave storageClassName out: with mode: Ephemeral",
        {"storage": {"mode": "PerServer", "storageClassName": "fast"}},
        {"storage": {"mode": "Ephemeral", "storageClassName": "fast"}},
        path="spec.storage.storageClassName",
    ),
    Example(
        "leave retention out: with mode: Ephemeral",
        SHARED | {"storage": {"mode": "PerServer", "retention": "Delete"}},
        SHARED | {"storage": {"mode": "Ephemeral", "retention": "Delete"}},
        path="spec.storage.retention",
    ),
    Example(
        "leave policy out, or write gateway: {enabled: true}",
        {"gateway": ..., "sessions.policy": {"hostTools": False}},
        {"sessions.policy": {"mcpServers": False}},
        path="spec.sessions.policy",
    ),
    Example(
        "write auth, or leave sharedSessions out",
        shares([{"name": "team", "tenants": ["alice"]}]) | {"auth": {"provider": PROVIDER}},
        shares([{"name": "team", "tenants": ["alice"]}]),
        path="spec.shared.sharedSessions",
    ),
    Example(
        "write exactly one of tenants and tenantSelector",
        shares([TEAM, TEAM | {"name": "all"}]) | {"auth": {"provider": PROVIDER}},
        shares([TEAM | {"tenants": ["alice"]}]) | {"auth": {"provider": PROVIDER}},
        path="spec.shared.sharedSessions[0]",
    ),
    Example(
        "leave infinite out, or write gateway: {enabled: true}",
        {"gateway": ..., "sessions.infinite": {"enabled": False}},
        {"sessions.infinite": {"enabled": False}},
        path="spec.sessions.infinite",
    ),
    Example(
        "write a share of the model's context as text, such as '0.8'",
        {"gateway": ..., "sessions.infinite": {"backgroundCompactionThreshold": "0.75"}},
        {"gateway": ..., "sessions.infinite": {"backgroundCompactionThreshold": "80%"}},
    ),
    Example(
        "write a backgroundCompactionThreshold below bufferExhaustionThreshold",
        {"gateway": ..., "sessions.infinite": COMPACTS | {"bufferExhaustionThreshold": "0.81"}},
        {"gateway": ..., "sessions.infinite": COMPACTS},
        path="spec.sessions.infinite",
    ),
    Example(
        "leave maxConcurrent out, or write gateway: {enabled: true}",
        {"gateway": ..., "sessions.maxConcurrent": 20},
        {"sessions.maxConcurrent": 20},
        path="spec.sessions.maxConcurrent",
    ),
    Example(
        "leave afterIdle out, or write gateway: {enabled: true}",
        {"gateway": ..., "suspend.afterIdle": "30m"},
        {"suspend.afterIdle": "30m"},
        path="spec.suspend.afterIdle",
    ),
    Example(
        "write a duration from 1m to 168h, a number with a unit such as 90s, 30m or 1h30m",
        IDLES | {"suspend.minRunning": "31m"},
        IDLES | {"suspend.minRunning": "169h"},
        path="spec.suspend.minRunning",
    ),
    Example(
        "write an afterIdle that is shorter than minRunning",
        IDLES | {"suspend.minRunning": "31m"},
        IDLES | {"suspend.minRunning": "30m"},
        path="spec.suspend.minRunning",
    ),
    Example(
        "write an afterIdle that is shorter than minRunning",
        IDLES,
        {"suspend.minRunning": "30m"},
        path="spec.suspend.minRunning",
    ),
    Example(
        "write afterIdle, too",
        IDLES | {"suspend.runningHours": [OFFICE]},
        {"suspend.runningHours": [OFFICE]},
        path="spec.suspend.runningHours",
    ),
    *(
        Example(
            "write five fields of cron",
            IDLES | {"suspend.runningHours": [OFFICE | {"start": good}]},
            IDLES | {"suspend.runningHours": [OFFICE | {"start": bad}]},
            path="spec.suspend.runningHours[0].start",
        )
        for good, bad in (
            ("0 8 * * MON-FRI", "0 8 * * mon-fri"),
            ("*/15,59 0-6/2 1,15 JAN-3 0", "60 8 * * *"),
            ("5/10 08 31 12 7", "0 8 * *"),
            ("0 8 29 2 *", "0 24 * * *"),
            ("0 8 * * 1", "@daily"),
        )
    ),
    *(
        Example(
            "write the name of a time zone",
            IDLES | {"suspend.runningHours": [OFFICE | {"timeZone": good}]},
            IDLES | {"suspend.runningHours": [OFFICE | {"timeZone": bad}]},
            path="spec.suspend.runningHours[0].timeZone",
        )
        for good, bad in (("America/Argentina/Buenos_Aires", "+02:00"), ("Etc/GMT+5", "../Europe/Berlin"))
    ),
    Example(
        "leave afterIdle out: with isolation: Shared",
        {"gateway": ..., "isolation": "Shared", "shared": {"replicas": 1}},
        {"gateway": ..., "isolation": "Shared", "shared": {"replicas": 1}, "suspend.afterIdle": "30m"},
        path="spec.suspend.afterIdle",
    ),
    Example(
        "leave shared out and do not scale this pool",
        {"shared": None},
        {"shared": {"replicas": 3}},
        path="spec.shared",
    ),
    Example(
        "storage.mode cannot change",
        SHARED | {"storage": {"mode": "Shared", "size": "20Gi"}},
        SHARED | {"storage": {"mode": "PerServer", "size": "20Gi"}},
        path="spec.storage",
        before=SHARED | {"storage": {"mode": "Shared", "size": "10Gi"}},
    ),
    Example(
        "write mode: PerServer: with isolation: Dedicated",
        SHARED | {"storage.mode": "Shared"},
        {"storage.mode": "Shared"},
        path="spec.storage.mode",
    ),
    Example(
        "isolation cannot change",
        SHARED | {"shared": {"replicas": 2, "routing": "RoundRobin"}},
        {"gateway": ...},
        path="spec",
        before=SHARED,
    ),
    Example("write the number of servers", SHARED, {"isolation": "Shared"}, path="spec"),
    Example("write the number of servers", SHARED, SHARED | {"shared": {"routing": "Sticky"}}, path="spec"),
    Example(
        "write gateway: {enabled: true}",
        SHARED,
        SHARED | {"gateway": {"enabled": False}},
        path="spec.gateway",
    ),
    *(
        Example(
            "leave replicas out and do not scale this pool",
            AUTOSCALED,
            AUTOSCALED | {"shared": {"replicas": number, "autoscaling": {"maxReplicas": 2}}},
            path="spec.shared.replicas",
        )
        for number in (0, 2)
    ),
    Example(
        "write sessions.maxConcurrent, too",
        AUTOSCALED,
        SHARED | {"shared": {"autoscaling": {"maxReplicas": 2}}},
        path="spec.shared.autoscaling",
    ),
    Example(
        "write a minReplicas that is not above maxReplicas",
        AUTOSCALED | {"shared": {"autoscaling": {"minReplicas": 2, "maxReplicas": 2}}},
        AUTOSCALED | {"shared": {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}},
        path="spec.shared.autoscaling.minReplicas",
    ),
    *(
        Example(
            "write a number of sessions, or a share of all slots",
            AUTOSCALED | {"shared": {"autoscaling": {"maxReplicas": 2, "freeSessions": good}}},
            AUTOSCALED | {"shared": {"autoscaling": {"maxReplicas": 2, "freeSessions": bad}}},
            path="spec.shared.autoscaling.freeSessions",
        )
        for good, bad in (("0%", "91%"), (0, -1), (20, "many"), ("90%", "100%"))
    ),
    Example(
        "write a number of servers from 1",
        AUTOSCALED | {"shared": {"autoscaling": {"maxReplicas": 2, "step": "50%"}}},
        AUTOSCALED | {"shared": {"autoscaling": {"maxReplicas": 2, "step": 0}}},
        path="spec.shared.autoscaling.step",
    ),
    Example(
        "write a duration from 0s to 24h",
        AUTOSCALED | {"shared": {"autoscaling": {"maxReplicas": 2, "scaleInDelay": "0s"}}},
        AUTOSCALED | {"shared": {"autoscaling": {"maxReplicas": 2, "scaleInDelay": "25h"}}},
        path="spec.shared.autoscaling.scaleInDelay",
    ),
    Example(
        "leave retention out",
        SHARED | {"storage.retention": "Delete"},
        {"storage.retention": "Delete"},
        path="spec.storage.retention",
    ),
    Example(
        "write exactly one of tokenSecretRef, app and userToken",
        {"auth": {"gitHub": {"app": APP}}},
        {"auth": {"gitHub": {"app": APP, "tokenSecretRef": REF}}},
        path="spec.auth.gitHub",
    ),
    Example(
        "write exactly one of tokenSecretRef, app and userToken",
        {"auth": {"gitHub": {"app": APP | {"apiUrl": "https://api.acme.ghe.com"}}}},
        {"auth": {"gitHub": {}}},
    ),
    Example(
        "write exactly one of tokenSecretRef, app and userToken",
        {"gateway": ..., "auth": {"gitHub": {"userToken": USER_TOKEN}}},
        {"gateway": ..., "auth": {"gitHub": {"userToken": USER_TOKEN, "tokenSecretRef": REF}}},
        path="spec.auth.gitHub",
    ),
    Example(
        "write tokenSecretRef instead, or gateway: {enabled: true}",
        {"gateway": ..., "auth": {"gitHub": {"userToken": USER_TOKEN}}},
        {"auth": {"gitHub": {"userToken": USER_TOKEN}}},
        path="spec.auth.gitHub.userToken",
    ),
    Example(
        "write a URL such as",
        {"auth": {"gitHub": {"app": APP | {"apiUrl": "https://github.example.com/api/v3"}}}},
        {"auth": {"gitHub": {"app": APP | {"apiUrl": "github.example.com"}}}},
        path="spec.auth.gitHub.app.apiUrl",
    ),
    Example("write exactly one of gitHub and provider", {"auth": {"gitHub": {"tokenSecretRef": REF}}}, {"auth": {}}),
    Example(
        "write exactly one of gitHub and provider",
        {"gateway": ..., "auth": {"provider": PROVIDER}},
        {"gateway": ..., "auth": {"provider": PROVIDER, "gitHub": {"tokenSecretRef": REF}}},
        path="spec.auth",
    ),
    Example(
        "leave provider out, or write gateway: {enabled: true}",
        {"gateway": ..., "auth": {"provider": PROVIDER | {"wireApi": "completions"}}},
        {"auth": {"provider": PROVIDER}},
        path="spec.auth.provider",
    ),
    *(
        Example(
            "write a URL such as",
            {"gateway": ..., "auth": {"provider": PROVIDER | {"baseUrl": "http://10.0.0.1:8080"}}},
            {"gateway": ..., "auth": {"provider": PROVIDER | {"baseUrl": bad}}},
            path="spec.auth.provider.baseUrl",
        )
        for bad in ("models.example.com", "ftp://models.example.com", "https://", "/v1", "https://a b")
    ),
    # the server without Node.js
    Example(
        "write runtime: CLI, or gateway: {enabled: true}",
        RUNTIME,
        {"server.runtime": "CopilotRuntime"},
        path="spec.server.runtime",
    ),
    *(
        Example(
            "write maxConcurrent: 100 or less",
            RUNTIME | {"isolation": "Shared", "shared": {"replicas": 1}},
            RUNTIME | {"sessions": {"maxConcurrent": number} if number else {}},
            path="spec.sessions.maxConcurrent",
        )
        for number in (None, 101)
    ),
    Example(
        "leave args out, or write runtime: CLI",
        RUNTIME | {"server.args": []},
        RUNTIME | {"server.args": ["--model", "gpt-5"]},
        path="spec.server.args",
    ),
    Example(
        "write tokenSecretRef instead, or runtime: CLI",
        RUNTIME | {"auth.gitHub.tokenSecretRef": REF},
        RUNTIME | {"auth.gitHub.app": APP},
        path="spec.auth.gitHub.app",
    ),
    # flags
    Example("write the value itself instead of $(NAME)", {"server.args": ["$HOME"]}, {"server.args": ["--$(X)", "1"]}),
    Example(
        "use spec.server.logLevel instead of --log-level",
        {"server.args": ["--model", "gpt-5"]},
        {"server.args": ["--log-level", "debug"]},
        path="spec.server.args",
    ),
    Example(
        "use spec.sessions.idleTimeout instead of --session-idle-timeout",
        {"server.args": ["--session-idle-timeouts=1"]},
        {"server.args": ["--session-idle-timeout=60"]},
    ),
    Example(USE_AUTH_FOR_FLAGS, {"server.args": ["--allow-all-tools"]}, {"server.args": ["--auth-token-env=TOKEN"]}),
    Example(USE_AUTH_FOR_FLAGS, {"server.args": ["--add-dir=/a=b"]}, {"server.args": ["--no-auto-login"]}),
    Example(NOT_A_PLACE, {"server.args": ["--hostile"]}, {"server.args": ["--host", "::"]}),
    *(
        Example(NOT_A_PLACE, {"server.args": [f"a{flag}"]}, {"server.args": ["--model", "gpt-5", flag]})
        for flag in ("--port=0", "--headless", "--server", "--stdio", "--managed-server", "--acp")
    ),
    *(
        Example(NOT_A_DIRECTORY, {"server.args": ["x" + flag[0]]}, {"server.args": flag})
        for flag in (["--log-dir", "/x"], ["--config-dir=/x"], ["--no-auto-update"], ["--auto-update"])
    ),
    *(
        Example(NOT_A_SERVER, {"server.args": ["--model", "prompt"]}, {"server.args": [flag]})
        for flag in ("--", "-p", "--resume", "--resume=x", "--continue", "--version")
    ),
    # variables
    *(
        Example(USE_AUTH_FOR_ENV, _variable(f"{name}_2", value="x"), _variable(name, value="x"), path="spec.server.env")
        for name in ("COPILOT_SDK_AUTH_TOKEN", "COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN")
    ),
    Example(
        "leave out COPILOT_CONNECTION_TOKEN",
        _variable("CONNECTION_TOKEN", value="x"),
        _variable("COPILOT_CONNECTION_TOKEN", value="x"),
    ),
    *(
        Example(NOT_HOME, _variable(f"MY_{name}", value="/x"), _variable(name, value="/x"))
        for name in ("HOME", "COPILOT_HOME", "COPILOT_CACHE_HOME", "COPILOT_PKG_CACHE_HOME", "COPILOT_AUTO_UPDATE")
    ),
    Example("write exactly one of value and valueFrom", _variable("EMPTY", value=""), _variable("NOTHING")),
    Example(
        "write exactly one of value and valueFrom",
        _from_secret(secretKeyRef=REF),
        _variable("BOTH", value="x", valueFrom={"secretKeyRef": REF}),
    ),
    Example(
        "write exactly one of secretKeyRef and configMapKeyRef",
        _from_secret(configMapKeyRef=REF),
        _from_secret(configMapKeyRef=REF, secretKeyRef=REF),
    ),
    # resources
    Example(A_QUANTITY, {"storage.size": "1.5Gi"}, {"storage.size": "10 GB"}, path="spec.storage.size"),
    Example(A_QUANTITY, {"storage.size": 10**10}, {"storage.size": -1}, path="spec.storage.size"),
    Example(
        A_QUANTITY,
        {"server.resources.requests": {"cpu": 1, "memory": "1e9"}},
        {"server.resources.requests": {"cpu": "a lot"}},
    ),
    Example("write 64Mi or more", {"storage.size": "64Mi"}, {"storage.size": "63Mi"}, path="spec.storage.size"),
    Example(
        "write only cpu, memory and ephemeral-storage",
        {"server.resources.limits": {"ephemeral-storage": "1Gi"}},
        {"server.resources.limits": {"example.com/gpu": 1}},
        path="spec.server.resources.limits",
    ),
    Example(
        "write memory of 16Mi or more",
        {"server.resources.limits": {"memory": "512Mi"}},
        {"server.resources.limits": {"memory": "512m"}},
    ),
    Example(
        REQUEST_ABOVE_LIMIT,
        {"server.resources": {"requests": {"memory": "4Gi"}, "limits": {"memory": "4Gi"}}},
        {"server.resources": {"requests": {"memory": "4Gi"}, "limits": {"memory": "4000Mi"}}},
        path="spec.server.resources.requests",
    ),
    Example(REQUEST_ABOVE_LIMIT, {"server.resources.limits": {}}, {"server.resources.requests": {"memory": "3Gi"}}),
    Example(
        REQUEST_ABOVE_LIMIT,
        {"server": {"resources": {"requests": {"memory": "3Gi"}}}},  # a tenant's limit may be the pool's
        {"server": {"resources": {"requests": {"cpu": "1001m"}, "limits": {"cpu": 1}}}},
        kind="CopilotTenant",
    ),
    # labels and annotations
    Example(OUR_KEYS, {LABELS: {"example.com/team": "a"}}, {LABELS: {"app.kubernetes.io/name": "x"}}),
    Example(
        OUR_KEYS,
        {"server.template.metadata.annotations": {"kubernetes.io/copilot-operator.io": ""}},
        {"server.template.metadata.annotations": {"copilot-operator.io/paused": "true"}},
    ),
    Example("write keys as Kubernetes takes them", {LABELS: {"a" * 63: ""}}, {LABELS: {"a" * 64: ""}}),
    Example(
        "write keys as Kubernetes takes them",
        {"server.template.spec.nodeSelector": {"kubernetes.io/arch": "amd64"}},
        {"server.template.spec.nodeSelector": {"a b": "c"}},
    ),
    Example(
        "leave value out with operator: Exists",
        {TOLERATIONS: [{"key": "spot", "operator": "Exists", "value": ""}]},
        {TOLERATIONS: [{"key": "spot", "operator": "Exists", "value": "yes"}]},
    ),
    Example(
        "write a key, or operator: Exists to tolerate every taint",
        {TOLERATIONS: [{"operator": "Exists"}]},
        {TOLERATIONS: [{"value": "yes"}]},
    ),
    Example(
        "write effect: NoExecute beside tolerationSeconds",
        {TOLERATIONS: [{"key": "spot", "effect": "NoExecute", "tolerationSeconds": 60}]},
        {TOLERATIONS: [{"key": "spot", "effect": "NoSchedule", "tolerationSeconds": 60}]},
    ),
    # durations
    *(
        Example("write a duration from 5m to 168h", {"sessions.idleTimeout": good}, {"sessions.idleTimeout": bad})
        for good, bad in (("5m", "299.999s"), ("168h", "168h1ms"), ("1h30m", "30"), ("1.5h", "30 m"), ("300s", "-1h"))
    ),
    *(
        Example("write a duration from 1s to 5m", {"health.interval": good}, {"health.interval": bad})
        for good, bad in (("1000ms", "999ms"), ("5m0s", "5m0.001s"), ("4m60s", "1d"), ("5s", ""))
    ),
    Example(
        "write a duration from 100ms to 1m",
        {"health.timeout": "0.1s"},
        {"health.timeout": "99999h99999h99999h99999h"},
        path="spec.health.timeout",
    ),
    *(
        Example("write a duration from 0s to 24h", {"drain.timeout": good}, {"drain.timeout": bad})
        for good, bad in (("0s", "-1s"), ("24h", "24h0.001s"), ("9m", "9"))
    ),
    Example("write a duration from 0s to 1h", {"gateway.drainTimeout": "0s"}, {"gateway.drainTimeout": "61m"}),
    Example("write a duration from 1m to 24h", {"health.stalledTurn": "60s"}, {"health.stalledTurn": "59s"}),
    Example(
        "write a duration from 1m to 168h, a number with a unit such as 90s, 30m or 1h30m: a server takes",
        {"gateway": ..., "suspend.afterIdle": "1m"},
        {"gateway": ..., "suspend.afterIdle": "59s"},
    ),
    Example("write a duration from 10m to 8760h", {"recycle.maxAge": "72h"}, {"recycle.maxAge": "9m"}),
    Example("write a duration from 5m to 87600h", {"sessions.ttl": "87600h"}, {"sessions.ttl": "7d"}),
    Example(
        "write a ttl that is not shorter than idleTimeout",
        {"sessions.idleTimeout": "24h", "sessions.ttl": "1440m"},
        {"sessions.idleTimeout": "24h", "sessions.ttl": "23h"},
        path="spec.sessions.ttl",
    ),
    Example(
        "write a ttl that is not shorter than idleTimeout",
        {"sessions.ttl": "30m", "sessions.ttlAction": "DryRun"},
        {"sessions.ttl": "29m"},  # 30m is what idleTimeout is without being written
        path="spec.sessions.ttl",
    ),
    # how many, how much
    *(
        Example(
            "write a number of servers from 1, or a share from 1% to 100%",
            {"update.maxUnavailable": good},
            {"update.maxUnavailable": bad},
            path="spec.update.maxUnavailable",
        )
        for good, bad in ((1, 0), ("1%", "0%"), ("100%", "101%"), ("25", "25 %"), (999999, -1), ("3", "half"))
    ),
    Example("write 256Mi or more", {"recycle.maxMemory": "1500Mi"}, {"recycle.maxMemory": "255Mi"}),
    *(
        Example(
            "write a number from 1.5, such as 5", {"recycle.maxLatencyFactor": good}, {"recycle.maxLatencyFactor": bad}
        )
        for good, bad in ((5, 1), ("1.5", "1.4"), ("9999.999", "10000"), ("2", "twice"))
    ),
    # network
    *(
        Example("write an address range", {"networkPolicy.egressCIDRs": [good]}, {"networkPolicy.egressCIDRs": [bad]})
        for good, bad in (
            ("10.0.0.0/8", "10.0.0.0"),
            ("2001:db8::/32", "2001:db8::/129"),
            ("10.1.2.3/8", "10.0.0.0/255.0.0.0"),
            ("::/0", "::ffff:10.0.0.0/104"),
            ("0.0.0.0/0", "0.0.0.0/00"),
            ("fe80::/10", "fe80::%eth0/10"),
        )
    ),
    *(
        Example(
            "leave it out: there clouds hand out credentials",
            {"networkPolicy.egressCIDRs": [good]},
            {"networkPolicy.egressCIDRs": [bad]},
            path="spec.networkPolicy.egressCIDRs[0]",
        )
        for good, bad in (
            ("169.0.0.0/8", "169.254.169.254/32"),
            ("169.252.0.0/14", "169.254.0.0/16"),
            ("100.100.100.200/31", "100.100.100.200/32"),
            ("fd00:ec2::/32", "fd00:ec2::254/128"),
        )
    ),
    # a company's network
    *(
        Example(
            "write no user and no password here",
            {"server.proxy": {field: "http://proxy.example.com:3128/"}},
            {"server.proxy": {field: bad}},
            path=f"spec.server.proxy.{field}",
        )
        for field in ("httpProxy", "httpsProxy")
        for bad in ("http://me:secret@proxy.example.com:3128", "http://me@proxy.example.com")
    ),
    *(
        Example(
            "write the proxy's URL, such as http://proxy.example.com:3128",
            {"server.proxy": {"httpsProxy": good}},
            {"server.proxy": {"httpsProxy": bad}},
            path="spec.server.proxy.httpsProxy",
        )
        for good, bad in (("https://10.0.0.1", "proxy.example.com:3128"), ("http://a:1", "socks5://proxy.example.com"))
    ),
    Example(
        "write httpProxy, httpsProxy or both, or leave proxy out",
        {"server.proxy": {"httpProxy": "http://a:1", "noProxy": ["10.0.0.0/8"]}},
        {"server.proxy": {"noProxy": ["10.0.0.0/8"]}},
        path="spec.server.proxy",
    ),
    *(
        Example(
            "leave HTTP_PROXY, HTTPS_PROXY and NO_PROXY out, in capitals or not",
            PROXY | _variable("ALL_PROXY", value="x"),
            PROXY | _variable(name, value="x"),
            path="spec.server.env",
        )
        for name in ("HTTP_PROXY", "https_proxy", "no_proxy")
    ),
    Example(
        "leave NODE_EXTRA_CA_CERTS out, or leave caBundleConfigMapRef out",
        {"server.caBundleConfigMapRef": {"name": "ca"}} | _variable("SSL_CERT_DIR", value="/etc/ssl"),
        {"server.caBundleConfigMapRef": {"name": "ca"}} | _variable("NODE_EXTRA_CA_CERTS", value="/etc/ssl/ca.pem"),
        path="spec.server.env",
    ),
    Example(
        "write a namespaceSelector, a podSelector or both",
        {"networkPolicy.allowFrom": [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"team": "web"}}}]},
        {"networkPolicy.allowFrom": [{}]},
    ),
    Example(
        "write a namespaceSelector, a podSelector or both",
        {"networkPolicy.allowMetricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}]},
        {"networkPolicy.allowMetricsFrom": [{}]},
    ),
    # what cannot change
    Example(
        "storage cannot shrink, because volumes cannot",
        {"storage.size": "11Gi"},
        {"storage.size": "9.9Gi"},
        before={},
        path="spec.storage.size",
    ),
    Example(
        "storage cannot shrink, because volumes cannot",
        {"storage.size": "1024Mi"},
        {"storage.size": "1G"},
        before={"storage.size": "1Gi"},
    ),
    *(
        Example(
            "write a duration from 0s to 168h",
            {"connectionToken": {"rotateAt": "2026-11-24T04:00:00Z", "overlap": "0s"}},
            {"connectionToken": {"rotateAt": "2026-11-24T04:00:00Z", "overlap": bad}},
            path="spec.connectionToken.overlap",
            kind="CopilotTenant",
        )
        for bad in ("169h", "10")
    ),
    *(
        Example(
            "write a duration from 1h to 8760h",
            {"connectionToken": {"rotateAt": "2026-11-24T04:00:00Z", "every": "720h"}},
            {"connectionToken": {"rotateAt": "2026-11-24T04:00:00Z", "every": bad}},
            path="spec.connectionToken.every",
            kind="CopilotTenant",
        )
        for bad in ("59m", "30d")
    ),
    Example(
        "write an overlap that is not longer than every",
        {"connectionToken": {"rotateAt": "2026-11-24T04:00:00Z", "every": "1h", "overlap": "1h"}},
        {"connectionToken": {"rotateAt": "2026-11-24T04:00:00Z", "every": "1h", "overlap": "61m"}},
        path="spec.connectionToken.overlap",
        kind="CopilotTenant",
    ),
    Example(
        "poolRef cannot change, because sessions do not move between pools",
        {"suspended": True},
        {"poolRef": {"name": "other"}},
        before={},
        path="spec.poolRef",
        kind="CopilotTenant",
    ),
)

LONG_NAME = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
assert len(LONG_NAME) == 253
GITHUB = {"tokenSecretRef": {"name": "gh", "key": "token"}}

# ---- refusals by the schema itself
SCHEMA: tuple[Example, ...] = (
    Example('supported values: "Dedicated"', {}, {"isolation": "Alone"}, path="spec.isolation"),
    Example("Required value", {}, {"isolation": ...}, path="spec.isolation"),
    Example("Required value", {}, {"server": {}}, path="spec.server.image"),
    Example("spec.server.image", {"server.image": "a"}, {"server.image": ""}, path="spec.server.image"),
    Example("should match", {"server.image": "a@sha256:1"}, {"server.image": "a b"}, path="spec.server.image"),
    Example("should match", {"server.image": "a:1"}, {"server.image": "a\n"}, path="spec.server.image"),
    Example('supported values: "none"', {"server.logLevel": "all"}, {"server.logLevel": "trace"}),
    Example(
        'supported values: "PerServer", "Shared", "Ephemeral"',
        {"storage.mode": "Ephemeral"},
        {"storage.mode": "ReadWriteMany"},
    ),
    Example(
        'supported values: "Persistent", "Ephemeral"',
        {"sessions.persistence": "Persistent"},
        {"sessions.persistence": "Memory"},
    ),
    Example("should match", {"storage.storageClassName": LONG_NAME}, {"storage.storageClassName": "Fast"}),
    Example("253", {"storage.storageClassName": "a.b"}, {"storage.storageClassName": LONG_NAME + "d"}),
    Example("greater than or equal to 1", {"health.failureThreshold": 1}, {"health.failureThreshold": 0}),
    Example(
        "greater than or equal to 1",
        {"gateway": {"enabled": True}, "sessions.maxConcurrent": 1},
        {"gateway": {"enabled": True}, "sessions.maxConcurrent": 0},
        path="spec.sessions.maxConcurrent",
    ),
    Example(
        "greater than or equal to 1",
        {"sessions.maxConcurrent": 1},
        {"sessions.maxConcurrent": 0},
        path="spec.sessions.maxConcurrent",
        kind="CopilotTenant",
    ),
    Example("less than or equal to 20", {"health.failureThreshold": 20}, {"health.failureThreshold": 21}),
    Example("must be of type integer", {"health.failureThreshold": 3}, {"health.failureThreshold": "3"}),
    Example("less than or equal to 60", {"health.maxRestartsPerHour": 0}, {"health.maxRestartsPerHour": 61}),
    Example("greater than or equal to 5", {"recycle.maxProcesses": 5}, {"recycle.maxProcesses": 4}),
    Example('supported values: "Abort", "Wait"', {"drain.onTimeout": "Wait"}, {"drain.onTimeout": "Kill"}),
    Example("must be of type boolean", {"networkPolicy.enabled": False}, {"networkPolicy.enabled": "no"}),
    Example("Too many", {"server.args": ["x"] * 64}, {"server.args": ["x"] * 65}, path="spec.server.args"),
    Example("Too long", {"server.args": ["x" * 1024]}, {"server.args": ["x" * 1025]}, path="spec.server.args[0]"),
    Example(
        "Duplicate value",
        {"server.env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]},
        {"server.env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
        path="spec.server.env",
    ),
    Example(
        "Duplicate value",
        {"networkPolicy.egressCIDRs": []},
        {"networkPolicy.egressCIDRs": ["10.0.0.0/8", "10.0.0.0/8"]},
        path="spec.networkPolicy.egressCIDRs",
    ),
    Example(
        "should match",
        {"server.proxy": {"httpProxy": "http://a:1", "noProxy": ["[::1]:80", "*"]}},
        {"server.proxy": {"httpProxy": "http://a:1", "noProxy": ["a,b"]}},
        path="spec.server.proxy.noProxy[0]",
    ),
    Example("Required value", {"server.caBundleConfigMapRef": {"name": "a"}}, {"server.caBundleConfigMapRef": {}}),
    Example("should match", _variable("a.b-c_D", value="1"), _variable("1A", value="1")),
    Example("should match", {LABELS: {"a": "b_c"}}, {LABELS: {"a": "b c"}}),
    Example(
        "should match",
        {"connectionToken": {"rotateAt": "2026-11-24T04:00:00Z"}},
        {"connectionToken": {"rotateAt": "tomorrow"}},
        path="spec.connectionToken.rotateAt",
        kind="CopilotTenant",
    ),
    Example("Required value", {"poolRef": {"name": LONG_NAME}}, {"poolRef": {}}, kind="CopilotTenant"),
    Example("should match", {"poolRef": {"name": "a"}}, {"poolRef": {"name": "A"}}, kind="CopilotTenant"),
    Example("supported values", {"deletionPolicy": "Retain"}, {"deletionPolicy": "Keep"}, kind="CopilotTenant"),
    Example("must be of type boolean", {"suspended": True}, {"suspended": "true"}, kind="CopilotTenant"),
)

EXAMPLES = RULES + SCHEMA
