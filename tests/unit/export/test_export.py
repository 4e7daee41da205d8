"""Servers without the operator: what Kubernetes and Azure take, with no secret in it and nothing of the operator's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from copilot_operator.export.main import main
from tests.support.snapshots import Fields, a_pool_object, a_tenant

IMAGE = "registry.example.com/copilot-operator:1"
GITHUB = {"gitHub": {"tokenSecretRef": {"name": "github", "key": "token"}}}
FULL: Fields = {
    "server.args": ["--disable-builtin-mcps"],
    "server.env": [
        {"name": "HTTPS_PROXY", "value": "[proxy]:3128"},
        {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "api"}}},
    ],
    "server.resources": {"requests": {"cpu": "1500m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "3Gi"}},
    "auth": GITHUB,
    "networkPolicy.allowMetricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
    "gateway": {"enabled": True},
    "sessions": {"ttl": "24h", "maxConcurrent": 5, "policy": {"hostTools": False}},
    "suspend": {"afterIdle": "30m"},
}


class Exporting:
    """Files with objects, and what comes of exporting them."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._file, self._capsys = directory / "objects.yaml", capsys

    def __call__(self, what: str, *objects: Any, more: tuple[str, ...] = (), code: int = 0) -> tuple[str, str]:
        """What is printed, and what is said."""
        self._file.write_text(yaml.safe_dump_all(objects or (a_pool_object(), a_tenant())))
        assert main([what, "-f", str(self._file), "--agent-image", IMAGE, *more]) == code
        printed = self._capsys.readouterr()
        return printed.out, printed.err

    def objects(self, what: str, *objects: Any, more: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        return list(yaml.safe_load_all(self(what, *objects, more=more)[0]))


@pytest.fixture
def export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Exporting:
    return Exporting(tmp_path, capsys)


def strings(node: Any) -> Iterator[str]:
    """All of them, keys too."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from strings(value)
    elif isinstance(node, list):
        for each in node:
            yield from strings(each)
    elif isinstance(node, str):
        yield node


POOLS = {"bare": a_pool_object(), "full": a_pool_object(fields=FULL)}


@pytest.mark.parametrize("pool", POOLS)
def test_manifests_are_what_kubernetes_takes(export: Exporting, pool: str) -> None:
    made = export.objects("manifests", POOLS[pool], a_tenant(), a_tenant("bob", {"deletionPolicy": "Retain"}))
    assert [(each["kind"], each["metadata"]["name"]) for each in made] == [
        ("ServiceAccount", "copilotpool-saas"),
        ("NetworkPolicy", "copilotpool-saas"),
        *(
            (kind, name)
            for name in ("copilot-alice", "copilot-bob")
            for kind in ("PersistentVolumeClaim", "Service", "Deployment")
        ),
    ]
    for obj in made:
        kubernetes_validate.validate(obj, "1.37", strict=True)
        assert "ownerReferences" not in obj["metadata"]
        assert not {each for each in strings(obj) if each in ("copilot-operator", "app.kubernetes.io/managed-by")}


def test_what_is_selected_is_there(export: Exporting) -> None:
    account, policy, claim, service, deployment = export.objects("manifests")
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    for selector in (policy["spec"]["podSelector"]["matchLabels"], service["spec"]["selector"]):
        assert selector.items() <= labels
    assert template["spec"]["serviceAccountName"] == account["metadata"]["name"]
    assert template["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert all(rule["from"] for rule in policy["spec"]["ingress"])


def test_a_new_pod_waits_for_the_old_one_to_go(export: Exporting) -> None:
    """It would wait for the state directory for ever otherwise, and the old one for it."""
    deployment = export.objects("manifests")[-1]
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    stopped = export.objects("manifests", a_pool_object(), a_tenant(fields={"suspended": True}))[-1]
    assert (deployment["spec"]["replicas"], stopped["spec"]["replicas"]) == (1, 0)


def test_every_secret_that_pods_need_is_told_of(export: Exporting) -> None:
    text, _ = export("manifests", a_pool_object(fields=FULL), a_tenant())
    head, *objects = text.split("---\n")
    assert "Secret" not in [yaml.safe_load(each)["kind"] for each in objects]
    assert "create secret generic copilot-alice" in head
    assert "--from-literal=host=copilot-alice.apps.svc" in head
    for name, key in (("github", "token"), ("keys", "api")):
        assert f"Secret {name} of namespace apps, key {key}" in head
    deployment = next(obj for obj in map(yaml.safe_load, objects) if obj["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    variables = [each for container in (*pod["initContainers"], *pod["containers"]) for each in container["env"]]
    named = {each["valueFrom"]["secretKeyRef"]["name"] for each in variables if "valueFrom" in each}
    assert named == {"copilot-alice", "github", "keys"}


@pytest.mark.parametrize("field", ["policy", "maxConcurrent", "ttl", "suspend"])
def test_what_nobody_does_any_more_is_said(export: Exporting, field: str) -> None:
    assert field in export("manifests", a_pool_object(fields=FULL), a_tenant())[0].split("---")[0]
    assert f"spec.{field}" not in export("manifests")[0]


def test_nobody_exchanges_a_token_either(export: Exporting) -> None:
    tenant = a_tenant(fields={"connectionToken": {"rotateAt": "2026-11-24T04:00:00Z", "overlap": "1h"}})
    assert "spec.connectionToken of tenants has no effect" in export("manifests", a_pool_object(), tenant)[0]


def aci(export: Exporting, fields: Fields | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The template, and its one group."""
    made = json.loads(export("aci", a_pool_object(fields=fields), a_tenant())[0])
    (group,) = made["resources"]
    return made, group


def lacking(model: Any) -> list[str]:
    """Fields that must be there and are not, in one of Azure's models and all below it."""
    found = []
    for name, rule in model._validation.items():
        if rule.get("required") and getattr(model, name) is None:
            found.append(f"{type(model).__name__}.{name}")
    for value in vars(model).values():
        below = value if isinstance(value, list) else [value]
        found += [each for part in below if hasattr(part, "_validation") for each in lacking(part)]
    return found


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("form", ["arm", "yaml"])
def test_a_container_group_is_what_azures_own_models_take(export: Exporting, pool: str, form: str) -> None:
    models = pytest.importorskip("azure.mgmt.containerinstance.models", reason="pip install '.[dev]' brings the models")
    printed, _ = export("aci", POOLS[pool], a_tenant(), more=("--format", form))
    made = yaml.safe_load(printed)
    group = made["resources"][0] if form == "arm" else made
    read_only = ("type", "name", "apiVersion")
    model = models.ContainerGroup.deserialize(group)
    assert model.serialize() == {key: value for key, value in group.items() if key not in read_only}
    assert lacking(model) == []
    assert group["type"] == "Microsoft.ContainerInstance/containerGroups"


def test_secrets_are_parameters_that_are_asked_for(export: Exporting) -> None:
    made, group = aci(export, FULL)
    variables = group["properties"]["containers"][0]["properties"]["environmentVariables"]
    secret = {each["name"]: each["secureValue"] for each in variables if "secureValue" in each}
    assert secret.keys() == {"COPILOT_CONNECTION_TOKEN", "COPILOT_SDK_AUTH_TOKEN", "API_KEY"}
    share = group["properties"]["volumes"][0]["azureFile"]
    for value in (*secret.values(), share["storageAccountKey"]):
        name = value.removeprefix("[parameters('").removesuffix("')]")
        assert made["parameters"][name]["type"] == "securestring"
        assert "defaultValue" not in made["parameters"][name]
    assert made["parameters"]["copilotConnectionTokenAlice"]["minLength"] == 32
    used = {each for text in strings(made["resources"]) for each in [text] if each.startswith("[parameters(")}
    assert {f"[parameters('{name}')]" for name in made["parameters"]} == used


def test_what_begins_with_a_bracket_is_no_expression(export: Exporting) -> None:
    _, group = aci(export, FULL)
    variables = group["properties"]["containers"][0]["properties"]["environmentVariables"]
    assert {"name": "HTTPS_PROXY", "value": "[[proxy]:3128"} in variables


@pytest.mark.parametrize(
    ("resources", "cpu", "memory"),
    [
        ({"requests": {"cpu": "1500m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "3Gi"}}, 2.0, 3.3),
        ({"requests": {"cpu": "1500m", "memory": "1Gi"}, "limits": {}}, 1.5, 1.1),
        ({"requests": {"cpu": "50m"}, "limits": {}}, 1.0, 1.5),
        ({"requests": {"cpu": "50m"}, "limits": {"cpu": "100m", "memory": "100M"}}, 0.1, 0.1),
    ],
    ids=str,
)
def test_a_container_gets_what_the_pool_allows(export: Exporting, resources: Any, cpu: float, memory: float) -> None:
    _, group = aci(export, {"server.resources": resources})
    asked = group["properties"]["containers"][0]["properties"]["resources"]["requests"]
    assert (asked["cpu"], asked["memoryInGB"]) == (cpu, memory)


def test_for_az_container_create_variables_are_named(export: Exporting) -> None:
    text, _ = export("aci", more=("--format", "yaml"))
    head, body = text.split("---\n")
    for name in ("COPILOT_CONNECTION_TOKEN_ALICE", "STORAGE_ACCOUNT_KEY", "SUBNET_ID"):
        assert f"#   {name}: " in head
        assert f"${{{name}}}" in body


def test_groups_of_several_tenants_have_tokens_of_their_own(export: Exporting) -> None:
    text, _ = export("aci", a_pool_object(), a_tenant(), a_tenant("bob"))
    made = json.loads(text)
    assert [each["name"] for each in made["resources"]] == ["copilot-alice", "copilot-bob"]
    assert {"copilotConnectionTokenAlice", "copilotConnectionTokenBob"} <= made["parameters"].keys()
    _, said = export("aci", a_pool_object(), a_tenant(), a_tenant("bob"), more=("--format", "yaml"), code=1)
    assert "--tenant" in said


PROVIDER = {"provider": {"type": "openai", "baseUrl": "https://x", "apiKeySecretRef": {"name": "k", "key": "k"}}}
APP = {"appId": 1, "installationId": 2, "privateKeySecretRef": {"name": "k", "key": "k"}}
PERSON = {"gitHub": {"userToken": {"secretRef": {"name": "k"}}}}
SHARED = {"isolation": "Shared", "shared": {"replicas": 1}, "gateway": {"enabled": True}}


@pytest.mark.parametrize(
    ("objects", "more", "said"),
    [
        ((a_tenant(),), (), "its pool 'saas' is not among what was given"),
        ((a_pool_object(),), (), "no such tenant (any); there are: none at all"),
        ((a_pool_object(), a_tenant()), ("--tenant", "bob"), "no such tenant (tenant bob); there are: alice"),
        ((a_pool_object(), a_tenant()), ("-n", "other"), "namespace other"),
        ((a_pool_object(fields=SHARED), a_tenant()), (), "isolation: Shared needs a gateway"),
        ((a_pool_object(fields={"gateway": {"enabled": True}, "auth": PROVIDER}), a_tenant()), (), "auth.provider"),
        ((a_pool_object(), a_tenant(fields={"auth": {"gitHub": {"app": APP}}})), (), "auth.gitHub.tokenSecretRef"),
        ((a_pool_object(fields={"gateway": {"enabled": True}, "auth": PERSON}), a_tenant()), (), "need the operator"),
        ((a_pool_object(fields={"storage.size": "1"}), a_tenant()), (), "spec.storage.size"),
        (({"kind": "CopilotPool", "spec": {}},), (), "without metadata.name"),
        (({"kind": "CopilotTenant", "metadata": {"name": "x"}},), (), "without metadata.name or spec"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cant_be_exported_is_named(
    export: Exporting, objects: tuple[Any, ...], more: tuple[str, ...], said: str
) -> None:
    assert said in export("manifests", *objects, more=more, code=1)[1]


def test_a_config_map_is_not_there_in_azure(export: Exporting) -> None:
    env = [{"name": "REGION", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]
    _, said = export("aci", a_pool_object(fields={"server.env": env}), a_tenant(), code=1)
    assert "REGION" in said


def test_a_companys_proxy_goes_along_and_its_certificates_where_there_are_config_maps(export: Exporting) -> None:
    proxied = {"server.proxy": {"httpsProxy": "http://proxy:3128"}}
    pool = a_pool_object(fields=proxied | {"server.caBundleConfigMapRef": {"name": "company-ca"}})
    text, _ = export("manifests", pool, a_tenant())
    assert "# ConfigMap company-ca of namespace apps, key ca.crt: certificates (PEM); bring it." in text
    template = next(obj for obj in yaml.safe_load_all(text) if obj["kind"] == "Deployment")["spec"]["template"]
    assert "company-ca" in [each.get("configMap", {}).get("name") for each in template["spec"]["volumes"]]
    _, said = export("aci", pool, a_tenant(), code=1)
    assert "spec.server.caBundleConfigMapRef: ConfigMap company-ca is not there in Azure" in said
    _, group = aci(export, proxied)
    variables = group["properties"]["containers"][0]["properties"]["environmentVariables"]
    assert {"name": "https_proxy", "value": "http://proxy:3128"} in variables


def test_a_list_of_kubectl_get_is_taken_apart(export: Exporting) -> None:
    listed = {"kind": "List", "items": [a_pool_object(), a_tenant(), {"kind": "Secret", "data": {"token": "eA=="}}]}
    text, _ = export("manifests", listed)
    assert "copilot-alice" in text
    assert "eA==" not in text


def test_without_an_image_for_agents_it_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aci", "-f", "x.yaml"]) == 1
    assert "--agent-image" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aci", "-f", "/nowhere.yaml", "--agent-image", IMAGE]) == 1
    assert "/nowhere.yaml can't be read" in capsys.readouterr().err
