"""The objects we make, each compared whole."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from copilot_operator.domain.desired.claim import claim
from copilot_operator.domain.desired.connection import connection
from copilot_operator.domain.desired.deployment import changed_intent, deployment, intent, token_source
from copilot_operator.domain.desired.pool import disruption_budget, network_policy, service_account, token_shard
from copilot_operator.domain.desired.service import service
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import INTENT_ANNOTATION
from copilot_operator.domain.snapshot import Children, Credential, ServerToken, Storage, TenantSnapshot
from tests.support.snapshots import BUNDLE, CREDENTIAL, IMAGE, TOKEN, a_pool, a_pool_snapshot, a_snapshot, a_tenant

LABELS = {
    "app.kubernetes.io/managed-by": "copilot-operator",
    "app.kubernetes.io/name": "copilot",
    "copilot-operator.io/pool": "saas",
    "copilot-operator.io/tenant": "alice",
}
POOL_LABELS = {key: value for key, value in LABELS.items() if key != "copilot-operator.io/tenant"}
OWNER = {
    "apiVersion": "copilot-operator.io/v1alpha1",
    "kind": "CopilotTenant",
    "name": "alice",
    "uid": "uid-alice",
    "controller": True,
}
POOL_OWNER = OWNER | {"kind": "CopilotPool", "name": "saas", "uid": "uid-saas"}
HEAD: Manifest = {
    "name": "copilot-alice",
    "namespace": "apps",
    "labels": LABELS,
    "annotations": {"copilot-operator.io/tenant-name": "alice"},
    "ownerReferences": [OWNER],
}
POOL_HEAD: Manifest = {
    "name": "copilotpool-saas",
    "namespace": "apps",
    "labels": POOL_LABELS,
    "annotations": {},
    "ownerReferences": [POOL_OWNER],
}
HASHES = ("copilot-operator.io/applied-hash", "copilot-operator.io/intent-hash")


def plain(manifest: Manifest) -> Manifest:
    """The manifest without the hashes of its content."""
    metadata = manifest["metadata"]
    annotations = {key: value for key, value in metadata["annotations"].items() if key not in HASHES}
    return manifest | {"metadata": metadata | {"annotations": annotations}}


def test_the_claim() -> None:
    assert plain(claim(a_snapshot(storage=Storage("ReadWriteOncePod")))) == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": HEAD,
        "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "10Gi"}}},
    }


def test_a_retained_claim_has_no_owner_so_that_it_outlives_its_tenant() -> None:
    tenant = a_tenant(fields={"deletionPolicy": "Retain"})
    wanted = {key: value for key, value in HEAD.items() if key != "ownerReferences"}
    assert plain(claim(a_snapshot(tenant=tenant)))["metadata"] == wanted


def a_live_claim(size: str, **spec: Any) -> Manifest:
    return {"metadata": {"uid": "1"}, "spec": {"resources": {"requests": {"storage": size}}} | spec}


@pytest.mark.parametrize(
    ("wanted", "live", "size"),
    [("10Gi", "20Gi", "20Gi"), ("30Gi", "20Gi", "30Gi"), ("20480Mi", "20Gi", "20480Mi"), ("1Gi", "1025Mi", "1025Mi")],
)
def test_a_claim_grows_and_never_shrinks(wanted: str, live: str, size: str) -> None:
    found = claim(a_snapshot(pool=a_pool({"storage.size": wanted}), children=Children(claim=a_live_claim(live))))
    assert found["spec"]["resources"] == {"requests": {"storage": size}}


def test_access_mode_and_class_of_a_live_claim_stay() -> None:
    live = a_live_claim("1Gi", accessModes=["ReadWriteOnce"], storageClassName="old")
    pool = a_pool({"storage.storageClassName": "new"})
    spec = claim(a_snapshot(pool=pool, storage=Storage("ReadWriteOncePod"), children=Children(claim=live)))["spec"]
    assert (spec["accessModes"], spec["storageClassName"]) == (["ReadWriteOnce"], "old")
    fresh = claim(a_snapshot(pool=pool))["spec"]
    assert (fresh["accessModes"], fresh["storageClassName"]) == (["ReadWriteOnce"], "new")


def test_a_claim_made_from_it_is_as_wanted() -> None:
    """The stamp must not depend on what the live claim adds, else a second apply would follow every first one."""
    snapshot = a_snapshot(pool=a_pool({"storage.storageClassName": "fast"}))
    first = claim(snapshot)
    live = first | {"spec": first["spec"] | {"accessModes": ["ReadWriteMany"], "volumeName": "pvc-1"}}
    assert claim(a_snapshot(pool=snapshot.pool, children=Children(claim=live)))["metadata"] == first["metadata"]


def test_the_service() -> None:
    assert plain(service(a_snapshot())) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": HEAD,
        "spec": {
            "type": "ClusterIP",
            "selector": {"app.kubernetes.io/name": "copilot", "copilot-operator.io/tenant": "alice"},
            "ports": [{"name": "copilot", "port": 4321, "targetPort": 4321, "protocol": "TCP"}],
        },
    }


def test_the_connection_secret() -> None:
    found = plain(connection(a_snapshot()))
    values = {key: base64.b64decode(value).decode() for key, value in found.pop("data").items()}
    assert values == {
        "host": "copilot-alice.apps.svc",
        "port": "4321",
        "cliUrl": "copilot-alice.apps.svc:4321",
        "token": "s3cret",
    }
    labels = LABELS | {"copilot-operator.io/tenant-usable": "false"}
    assert found == {"apiVersion": "v1", "kind": "Secret", "metadata": HEAD | {"labels": labels}, "type": "Opaque"}


def secret_env(name: str, secret: str, key: str) -> Manifest:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


SERVER_TOKEN = secret_env("COPILOT_CONNECTION_TOKEN", "copilotpool-saas-server-tokens-0", "copilot-alice")
LOCKED_DOWN = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
AGENT: Manifest = {
    "name": "agent",
    "image": "registry.example.com/copilot-operator:1",
    "imagePullPolicy": "IfNotPresent",
    "args": ["agent"],
    "restartPolicy": "Always",
    "env": [SERVER_TOKEN, {"name": "COPILOT_AGENT_DRAIN_DEADLINE_S", "value": "540"}],
    "ports": [
        {"name": "agent", "containerPort": 4322, "protocol": "TCP"},
        {"name": "metrics", "containerPort": 4323, "protocol": "TCP"},
    ],
    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
    "securityContext": LOCKED_DOWN | {"runAsUser": 10002},
    "startupProbe": {
        "httpGet": {"path": "/agentz", "port": 4322},
        "timeoutSeconds": 5,
        "periodSeconds": 1,
        "failureThreshold": 60,
    },
    "livenessProbe": {
        "httpGet": {"path": "/agentz", "port": 4322},
        "timeoutSeconds": 5,
        "periodSeconds": 30,
        "failureThreshold": 3,
    },
    "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
}
CLI: Manifest = {
    "name": "copilot",
    "image": IMAGE,
    "imagePullPolicy": "IfNotPresent",
    "command": ["/usr/local/bin/copilot-server"],
    "args": ["--log-level", "info", "--session-idle-timeout", "1800", "--auth-token-env", "COPILOT_SDK_AUTH_TOKEN"],
    "env": [
        SERVER_TOKEN,
        {"name": "HOME", "value": "/data/home"},
        {"name": "COPILOT_HOME", "value": "/data/copilot"},
        secret_env("COPILOT_SDK_AUTH_TOKEN", "github", "token"),
    ],
    "ports": [{"name": "copilot", "containerPort": 4321, "protocol": "TCP"}],
    "resources": {"requests": {"cpu": "100m", "memory": "384Mi"}, "limits": {"memory": "2Gi"}},
    "securityContext": LOCKED_DOWN,
    "lifecycle": {"preStop": {"httpGet": {"path": "/drain", "port": 4322}}},
    "startupProbe": {
        "httpGet": {"path": "/livez", "port": 4322},
        "periodSeconds": 1,
        "timeoutSeconds": 5,
        "failureThreshold": 120,
    },
    "livenessProbe": {
        "httpGet": {"path": "/livez", "port": 4322},
        "periodSeconds": 10,
        "timeoutSeconds": 5,
        "failureThreshold": 6,
        "terminationGracePeriodSeconds": 10,
    },
    "readinessProbe": {
        "httpGet": {"path": "/readyz", "port": 4322},
        "periodSeconds": 5,
        "timeoutSeconds": 5,
        "failureThreshold": 2,
    },
    "volumeMounts": [
        {"name": "data", "mountPath": "/data"},
        {"name": "logs", "mountPath": "/logs"},
        {"name": "tmp", "mountPath": "/tmp"},
    ],
}
POD: Manifest = {
    "nodeSelector": {},
    "tolerations": [],
    "imagePullSecrets": [],
    "serviceAccountName": "copilotpool-saas",
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "shareProcessNamespace": True,
    "terminationGracePeriodSeconds": 600,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "initContainers": [AGENT],
    "containers": [CLI],
    "volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "copilot-alice"}},
        {"name": "logs", "emptyDir": {"sizeLimit": "256Mi"}},
        {"name": "tmp", "emptyDir": {}},
    ],
}


def test_the_deployment() -> None:
    assert plain(deployment(a_snapshot(credential=CREDENTIAL))) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": HEAD,
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": 120,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {
                "matchLabels": {"app.kubernetes.io/name": "copilot", "copilot-operator.io/tenant": "alice"},
            },
            "template": {
                "metadata": {
                    "labels": LABELS,
                    "annotations": {
                        "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": "logs,tmp",
                        "kubectl.kubernetes.io/default-container": "copilot",
                        "copilot-operator.io/tenant-name": "alice",
                    },
                },
                "spec": POD,
            },
        },
    }


def cli_of(snapshot: TenantSnapshot) -> Manifest:
    found: Manifest = deployment(snapshot)["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"gateway.enabled": False}, {}),
        ({"gateway.enabled": True}, {"PERSISTENCE": "Persistent", "CODE_LENGTH": "0"}),
        (
            {"gateway.enabled": True, "isolation": "Shared", "shared.replicas": 1, "sessions.persistence": "Ephemeral"},
            {"PERSISTENCE": "Ephemeral", "CODE_LENGTH": "16"},
        ),
    ],
)
def test_an_agent_behind_a_gateway_knows_which_sessions_are_ephemeral(
    fields: dict[str, Any], told: dict[str, str]
) -> None:
    agent = deployment(a_snapshot(pool=a_pool(fields)))["spec"]["template"]["spec"]["initContainers"][0]
    known = {each["name"].removeprefix("COPILOT_AGENT_"): each.get("value") for each in agent["env"]}
    assert {name: known.get(name) for name in ("PERSISTENCE", "CODE_LENGTH") if name in known} == told


def test_without_a_credential_the_server_logs_nobody_in() -> None:
    cli = cli_of(a_snapshot())
    assert cli["args"] == ["--log-level", "info", "--session-idle-timeout", "1800"]
    assert [variable["name"] for variable in cli["env"]] == ["COPILOT_CONNECTION_TOKEN", "HOME", "COPILOT_HOME"]


def test_the_server_without_nodejs_is_chosen_and_its_agent_can_have_it_ended() -> None:
    fields = {"server.runtime": "CopilotRuntime", "gateway.enabled": True, "sessions.maxConcurrent": 50}
    pod = deployment(a_snapshot(pool=a_pool(fields)))["spec"]["template"]["spec"]
    (agent,), (cli,) = pod["initContainers"], pod["containers"]
    assert cli["args"][:4] == ["--runtime", "CopilotRuntime", "--log-level", "info"]
    assert {"name": "COPILOT_AGENT_RUNTIME", "value": "CopilotRuntime"} in agent["env"]
    logs = {"name": "logs", "mountPath": "/logs"}
    assert logs in agent["volumeMounts"]
    assert logs in cli["volumeMounts"]


def test_flags_and_variables_of_the_user_come_along_and_ours_win() -> None:
    env = [{"name": "HTTPS_PROXY", "value": "http://proxy"}]
    cli = cli_of(a_snapshot(pool=a_pool({"server.args": ["--model", "gpt-5"], "server.env": env})))
    assert cli["args"][-2:] == ["--model", "gpt-5"]
    assert cli["env"][0] == {"name": "HTTPS_PROXY", "value": "http://proxy"}


def test_a_tenants_resources_replace_the_pools_one_by_one() -> None:
    tenant = a_tenant(fields={"server.resources": {"limits": {"memory": "4Gi", "cpu": 2}}})
    assert cli_of(a_snapshot(tenant=tenant))["resources"] == {
        "requests": {"cpu": "100m", "memory": "384Mi"},
        "limits": {"memory": "4Gi", "cpu": "2"},
    }


def test_labels_and_annotations_of_the_pool_come_along_and_ours_win() -> None:
    metadata = {"labels": {"team": "a"}, "annotations": {"kubectl.kubernetes.io/default-container": "x", "note": "n"}}
    template = deployment(a_snapshot(pool=a_pool({"server.template.metadata": metadata})))["spec"]["template"]
    assert template["metadata"]["labels"] == LABELS | {"team": "a"}
    assert template["metadata"]["annotations"] == {
        "kubectl.kubernetes.io/default-container": "copilot",
        "copilot-operator.io/tenant-name": "alice",
        "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": "logs,tmp",
        "note": "n",
    }


TRUSTS = {"server.caBundleConfigMapRef": {"name": "ca", "key": "root.pem"}}
CHANGES: list[tuple[TenantSnapshot, list[str]]] = [
    (a_snapshot(), []),
    (a_snapshot(pool=a_pool({"server.image": "cli:2"})), ["image"]),
    (
        a_snapshot(pool=a_pool({"server.runtime": "CopilotRuntime", "gateway": {}, "sessions.maxConcurrent": 9})),
        ["runtime"],
    ),
    (a_snapshot(pool=a_pool({"server.args": ["--model", "x"], "server.logLevel": "debug"})), ["args", "logLevel"]),
    (a_snapshot(pool=a_pool({"server.env": [{"name": "A", "value": "b"}]})), ["env"]),
    (a_snapshot(pool=a_pool({"sessions.idleTimeout": "1h"})), ["idleTimeout"]),
    (a_snapshot(pool=a_pool({"server.template.spec.nodeSelector": {"disk": "ssd"}})), ["template"]),
    (a_snapshot(pool=a_pool(restarted_at="2026-01-01")), ["restartedAt"]),
    (
        a_snapshot(tenant=a_tenant(annotations={"copilot-operator.io/restarted-at": "2026-01-01"})),
        ["ownRestartedAt"],
    ),
    (a_snapshot(pool=a_pool({"server.resources": {"requests": {"cpu": 1}}})), ["resources"]),
    (a_snapshot(tenant=a_tenant(fields={"server.resources": {"requests": {"cpu": 1}}})), ["ownResources"]),
    (a_snapshot(credential=CREDENTIAL), ["gitHubToken"]),
    (a_snapshot(token=ServerToken("other", "copilotpool-saas-server-tokens-0")), ["connectionToken"]),
    (a_snapshot(pool=a_pool({"server.proxy": {"httpsProxy": "http://a:1"}})), ["proxy"]),
    (a_snapshot(pool=a_pool(TRUSTS), bundle=BUNDLE), ["caBundle"]),
    (a_snapshot(pool=a_pool({"storage.size": "20Gi", "health.interval": "1s"})), []),
    (a_snapshot(tenant=a_tenant(fields={"suspended": True, "deletionPolicy": "Retain"})), []),
]


@pytest.mark.parametrize(("changed", "parts"), CHANGES[-4:-2])
def test_what_comes_with_a_newer_operator_and_goes_again_is_a_change_wherever_it_is_asked_for(
    changed: TenantSnapshot, parts: list[str]
) -> None:
    """Older operators noted neither part, and those that know them note none that is not given."""
    assert changed_intent(deployment(changed), deployment(a_snapshot())) == parts
    assert not any(part in intent(a_snapshot()) for part in parts)


def test_other_certificates_under_the_same_name_are_a_change_that_shows_in_the_digest_only() -> None:
    before, after = (
        deployment(a_snapshot(pool=a_pool(TRUSTS), bundle=each)) for each in (BUNDLE, replace(BUNDLE, digest="other"))
    )
    assert changed_intent(before, after) == ["caBundle"]
    assert before["spec"] == after["spec"]


def test_the_way_out_of_a_companys_network() -> None:
    proxy = {"httpsProxy": "http://proxy:3128", "noProxy": ["10.0.0.0/8", ".svc"]}
    spec = deployment(a_snapshot(pool=a_pool(TRUSTS | {"server.proxy": proxy}), bundle=BUNDLE))["spec"]["template"][
        "spec"
    ]
    (cli,), (agent,) = spec["containers"], spec["initContainers"]
    env = {each["name"]: each.get("value") for each in cli["env"]}
    direct = "10.0.0.0/8,.svc,localhost,127.0.0.1,::1,.cluster.local"
    plain = deployment(a_snapshot())["spec"]["template"]["spec"]["containers"][0]
    assert {name: env[name] for name in env.keys() - {each["name"] for each in plain["env"]}} == {
        "HTTPS_PROXY": "http://proxy:3128",
        "https_proxy": "http://proxy:3128",
        "NO_PROXY": direct,
        "no_proxy": direct,
        "NODE_EXTRA_CA_CERTS": "/etc/copilot-operator/ca/ca.crt",
    }
    assert spec["volumes"][-1] == {
        "name": "ca-bundle",
        "configMap": {"name": "ca", "items": [{"key": "root.pem", "path": "ca.crt"}]},
    }
    file = {"mountPath": "/etc/copilot-operator/ca/ca.crt", "subPath": "ca.crt"}  # alone: it never changes there
    mount = {"name": "ca-bundle", "readOnly": True} | file
    assert cli["volumeMounts"] == [*plain["volumeMounts"], mount]
    assert agent == deployment(a_snapshot())["spec"]["template"]["spec"]["initContainers"][0], "it asks nobody outside"


def test_a_deployment_names_the_secret_of_its_token() -> None:
    live = deployment(a_snapshot())
    assert token_source(live) == (TOKEN.shard, "copilot-alice")
    live["spec"]["template"]["spec"]["containers"][0]["env"] = []
    assert token_source(live) is None


@pytest.mark.parametrize(("changed", "parts"), CHANGES, ids=lambda value: str(value) if type(value) is list else "")
def test_a_restart_names_what_people_changed(changed: TenantSnapshot, parts: list[str]) -> None:
    assert changed_intent(deployment(a_snapshot()), deployment(changed)) == parts


def test_a_part_that_came_with_another_version_of_the_operator_is_no_change() -> None:
    older, newer = deployment(a_snapshot()), deployment(a_snapshot())
    line = older["metadata"]["annotations"][INTENT_ANNOTATION]
    older["metadata"]["annotations"][INTENT_ANNOTATION] = line.partition(" ")[2] + " formerly=12345678"
    assert changed_intent(older, newer) == []


def test_a_new_value_of_the_github_token_is_a_change_that_shows_in_the_digest_only() -> None:
    rotated = Credential(CREDENTIAL.secret, CREDENTIAL.key, digest="fedcba9876543210")
    before, after = deployment(a_snapshot(credential=CREDENTIAL)), deployment(a_snapshot(credential=rotated))
    assert changed_intent(before, after) == ["gitHubToken"]
    assert before["spec"] == after["spec"]


def test_no_annotation_or_argument_tells_a_secret() -> None:
    said = str(deployment(a_snapshot(credential=CREDENTIAL)))
    assert "s3cret" not in said
    assert "s3cret" not in repr(a_snapshot())


def test_the_service_account_has_no_token_to_mount() -> None:
    assert plain(service_account(a_pool_snapshot())) == {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": POOL_HEAD,
        "automountServiceAccountToken": False,
    }


def test_the_network_policy() -> None:
    cli, agent = {"protocol": "TCP", "port": 4321}, {"protocol": "TCP", "port": 4322}
    not_servers = {"key": "app.kubernetes.io/name", "operator": "NotIn", "values": ["copilot", "copilot-gateway"]}
    assert plain(network_policy(a_pool_snapshot())) == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": POOL_HEAD,
        "spec": {
            "podSelector": {"matchLabels": POOL_LABELS},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [{"podSelector": {"matchExpressions": [not_servers]}}], "ports": [cli]},
                {
                    "from": [
                        {
                            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "operators"}},
                            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "copilot-operator"}},
                        }
                    ],
                    "ports": [cli, agent],
                },
            ],
            "egress": [
                {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
                {
                    "to": [
                        {
                            "ipBlock": {
                                "cidr": "0.0.0.0/0",
                                "except": [
                                    "169.254.0.0/16",
                                    "100.100.100.200/32",
                                    "168.63.129.16/32",
                                    "192.0.0.192/32",
                                ],
                            }
                        },
                        {
                            "ipBlock": {
                                "cidr": "::/0",
                                "except": ["fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128"],
                            }
                        },
                    ]
                },
            ],
        },
    }


def test_a_pools_own_peers_and_ranges_replace_the_defaults() -> None:
    peers = [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"team": "a"}}}]
    fields = {"networkPolicy": {"allowFrom": peers, "egressCIDRs": ["10.1.2.3/8", "2001:db8::/32"]}}
    spec = network_policy(a_pool_snapshot(fields=fields))["spec"]
    assert spec["ingress"][0]["from"] == [
        {"podSelector": {"matchLabels": {}}},
        {"namespaceSelector": {"matchLabels": {"team": "a"}}},
    ]
    assert spec["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.0.0.0/8"}}, {"ipBlock": {"cidr": "2001:db8::/32"}}]


@pytest.mark.parametrize("gateway", [False, True])
def test_who_may_read_metrics_comes_to_no_other_port(gateway: bool) -> None:
    peer = {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}
    fields = {"networkPolicy": {"allowMetricsFrom": [peer]}, "gateway": {"enabled": gateway}}
    ingress = network_policy(a_pool_snapshot(fields=fields))["spec"]["ingress"]
    assert [rule for rule in ingress if peer in rule["from"]] == [
        {"from": [peer], "ports": [{"protocol": "TCP", "port": 4323}]}
    ]
    assert [rule for rule in ingress if {"protocol": "TCP", "port": 4323} in rule["ports"]] == ingress[-1:]


def test_nobody_reads_metrics_who_is_not_named() -> None:
    ingress = network_policy(a_pool_snapshot())["spec"]["ingress"]
    assert all(rule["from"] for rule in ingress), "a rule without peers lets everybody in"
    assert {port["port"] for rule in ingress for port in rule["ports"]} == {4321, 4322}


def test_without_any_range_servers_may_ask_dns_only() -> None:
    spec = network_policy(a_pool_snapshot(fields={"networkPolicy": {"egressCIDRs": []}}))["spec"]
    assert spec["egress"] == [{"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]


def test_the_budget_lets_nobody_evict_a_server_that_works_ready_or_not() -> None:
    assert plain(disruption_budget(a_pool_snapshot())) == {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": POOL_HEAD | {"name": "copilotpool-saas-busy-servers"},
        "spec": {
            "maxUnavailable": 0,
            "selector": {"matchLabels": POOL_LABELS | {"copilot-operator.io/protected": "true"}},
            "unhealthyPodEvictionPolicy": "IfHealthyBudget",
        },
    }


def test_a_shard_of_tokens_is_written_under_the_version_it_was_read_at() -> None:
    name = "copilotpool-saas-server-tokens-0"
    head = {key: value for key, value in POOL_HEAD.items() if key != "annotations"} | {
        "name": name,
        "labels": POOL_LABELS | {"copilot-operator.io/tenant-usable": "false"},
    }
    shard = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"copilot-a": "eA=="}}
    assert token_shard(a_pool_snapshot(), name, {"copilot-a": "x"}) == shard | {"metadata": head}
    known = a_pool_snapshot(versions={name: "42"})
    assert token_shard(known, name, {})["metadata"] == head | {"resourceVersion": "42"}


# ---- servers that share a volume


def a_seat(fields: dict[str, Any] | None = None) -> TenantSnapshot:
    shared = {"isolation": "Shared", "shared": {"replicas": 2}, "gateway": {"enabled": True}}
    storage = {"storage": {"mode": "Shared", "storageClassName": "shared"}}
    return a_snapshot(
        pool=a_pool(shared | storage | (fields or {})),
        owner={"apiVersion": "copilot-operator.io/v1alpha1", "kind": "CopilotPool", "metadata": POOL_META},
    )


POOL_META = {"name": "saas", "uid": "uid-saas"}


def test_all_servers_of_a_pool_ask_for_the_one_claim() -> None:
    made = plain(claim(a_seat()))
    assert made["metadata"] == {
        "name": "copilotpool-saas-sessions",
        "namespace": "apps",
        "labels": POOL_LABELS,
        "annotations": {"copilot-operator.io/pool-name": "saas"},
        "ownerReferences": [POOL_OWNER],
    }
    assert made["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "10Gi"}},
        "storageClassName": "shared",
    }


def test_only_sessions_lie_on_a_shared_volume_and_claims_are_the_agent_s() -> None:
    spec = deployment(a_seat())["spec"]["template"]["spec"]
    volumes = {each.pop("name"): each for each in spec["volumes"]}
    assert volumes["data"] == {"emptyDir": {}}
    assert volumes["sessions"] == {"persistentVolumeClaim": {"claimName": "copilotpool-saas-sessions"}}
    (cli,), (agent,) = spec["containers"], spec["initContainers"]
    of_cli = {each["mountPath"]: each.get("subPath") for each in cli["volumeMounts"] if each["name"] == "sessions"}
    assert of_cli == {"/data/copilot/session-state": "session-state"}
    of_agent = {each["mountPath"]: each for each in agent["volumeMounts"] if each["name"] == "sessions"}
    assert of_agent["/sessions"]["readOnly"]
    assert of_agent["/claims"]["subPath"] == "claims"
    env = {each["name"]: each for each in agent["env"]}
    assert env["COPILOT_AGENT_CLAIMS"]["value"] == "/claims"
    assert env["COPILOT_AGENT_POD_UID"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
