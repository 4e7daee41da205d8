"""What Helm makes of the chart, without a cluster: the same operator as manifests/base, and what values add to it."""

import json
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
import yaml

from copilot_operator.api.network import CREDENTIAL_RANGES
from copilot_operator.domain.fitness import OLDEST
from tests.chart.generate import CHART, MONITORING
from tests.cluster.layout import ROOT
from tests.support import parties
from tests.support.helm import KUBERNETES, HelmError, helm, rendered
from tests.unit.api.examples import POOL, TENANT

Object: TypeAlias = dict[str, Any]

VERSION: Final = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
RELEASE_LABELS: Final = {
    "app.kubernetes.io/instance": "copilot-operator",
    "app.kubernetes.io/managed-by": "Helm",
    "app.kubernetes.io/version": VERSION,
    "helm.sh/chart": f"copilot-operator-{VERSION}",
}
ONLY_IN_CHART: Final = {
    ("ClusterRole", "copilot-operator-view"),
    ("ClusterRole", "copilot-operator-edit"),
    ("ClusterRole", "copilot-operator-admin"),
    ("Service", "copilot-operator"),
    ("Pod", "copilot-operator-test"),
}
ONLY_IN_BASE: Final = {("Namespace", "copilot-operator")}  # helm install --create-namespace
SAID_BY_CHART: Final = {"COPILOT_OPERATOR_LOG_LEVEL", "COPILOT_OPERATOR_WORKERS"}  # with the operator's own defaults

EVERYTHING: Final[Object] = {
    "image": {"repository": "registry.example.com:5000/team/operator", "digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": [{"name": "registry"}],
    "clusterDomain": "example.internal",
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "podAnnotations": {"example.com/team": "platform"},
    "podDisruptionBudget": {"maxUnavailable": "50%"},
    "serviceAccount": {"annotations": {"example.com/team": "platform"}},
    "service": {"annotations": {"prometheus.io/scrape": "true"}},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "podMonitors": {"enabled": True, "labels": {"release": "prometheus"}, "namespaces": ["apps"]},
    "prometheusRule": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "runbooks": "https://git.example.com/books/",
    },
    "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Copilot"}},
    "networkPolicy": {"enabled": True, "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
    "objects": {"namespace": "apps"},
    "pools": {"saas": POOL["spec"]},
    "tenants": {"alice": TENANT["spec"], "bob": TENANT["spec"]},
    "prePull": {"enabled": True},
}


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


def base() -> dict[tuple[str, str], Object]:
    files = [*sorted((ROOT / "manifests" / "base").glob("*.yaml")), *sorted((ROOT / "crds").glob("copilot*.yaml"))]
    texts = [file.read_text() for file in files if file.name != "kustomization.yaml"]
    return by_name([each for text in texts for each in yaml.safe_load_all(text)])


def without_release(obj: Object) -> Object:
    """As manifests/base has it: without the release's labels, the namespace's name and what keeps CRDs."""
    metadata = obj["metadata"]
    labels = {key: value for key, value in metadata.get("labels", {}).items() if key not in RELEASE_LABELS}
    if obj["kind"] == "CustomResourceDefinition":
        assert metadata.pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert labels == {"app.kubernetes.io/name": "copilot-operator"}
        labels = {}
    rest = {key: value for key, value in metadata.items() if key != "labels"}
    return obj | {"metadata": rest | ({"labels": labels} if labels else {})}


@pytest.fixture(scope="module")
def chart() -> dict[tuple[str, str], Object]:
    return by_name(rendered({"image": {"tag": "dev"}}))


@pytest.fixture(scope="module")
def everything() -> dict[tuple[str, str], Object]:
    return by_name(rendered(EVERYTHING))


def test_chart_has_what_base_has(chart: dict[tuple[str, str], Object]) -> None:
    assert chart.keys() - ONLY_IN_CHART == base().keys() - ONLY_IN_BASE
    assert chart.keys() >= ONLY_IN_CHART


@pytest.mark.parametrize("name", sorted(base().keys() - ONLY_IN_BASE), ids=" ".join)
def test_chart_and_base_say_the_same(chart: dict[tuple[str, str], Object], name: tuple[str, str]) -> None:
    made = without_release(chart[name])
    if name[0] == "Deployment":
        container = made["spec"]["template"]["spec"]["containers"][0]
        container["env"] = [each for each in container["env"] if each["name"] not in SAID_BY_CHART]
    assert made == base()[name]


def test_every_object_says_of_which_release_it_is() -> None:
    for obj in rendered(EVERYTHING):
        assert obj["metadata"]["labels"].items() >= RELEASE_LABELS.items(), obj["metadata"]


def test_values_reach_the_pods(everything: dict[tuple[str, str], Object]) -> None:
    template = everything["Deployment", "copilot-operator"]["spec"]["template"]
    pod, container = template["spec"], template["spec"]["containers"][0]
    image = f"registry.example.com:5000/team/operator@sha256:{'0' * 64}"
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert template["metadata"]["labels"] == {"app.kubernetes.io/name": "copilot-operator"}
    assert template["metadata"]["annotations"] == EVERYTHING["podAnnotations"]
    for key in ("imagePullSecrets", "priorityClassName", "nodeSelector", "tolerations", "affinity"):
        assert pod[key] == EVERYTHING[key], key
    assert container["image"] == env["COPILOT_OPERATOR_IMAGE"] == image
    assert env["COPILOT_OPERATOR_CLUSTER_DOMAIN"] == "example.internal"
    assert env["HTTPS_PROXY"] == "http://proxy:3128"
    assert len(env) == len(container["env"]), "a name comes twice"
    test = everything["Pod", "copilot-operator-test"]["spec"]
    assert test["containers"][0]["image"] == image
    for key in ("imagePullSecrets", "nodeSelector", "tolerations"):
        assert test[key] == EVERYTHING[key], key


def test_monitoring(everything: dict[tuple[str, str], Object]) -> None:
    service = everything["Service", "copilot-operator"]
    monitor = everything["ServiceMonitor", "copilot-operator"]
    selected = monitor["spec"]["selector"]["matchLabels"]
    assert selected.items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    for kind, name in (
        ("ServiceMonitor", "copilot-operator"),
        ("PrometheusRule", "copilot-operator"),
        ("PodMonitor", "copilot-servers"),
        ("PodMonitor", "copilot-gateways"),
    ):
        assert everything[kind, name]["metadata"]["labels"]["release"] == "prometheus"


def test_alerts_are_those_of_the_manifests_and_know_their_runbooks(everything: dict[tuple[str, str], Object]) -> None:
    rules = everything["PrometheusRule", "copilot-operator"]["spec"]
    for each in (each for group in rules["groups"] for each in group["rules"]):
        assert each["annotations"].pop("runbook_url") == f"https://git.example.com/books/{each['alert']}.md"
    assert rules == yaml.safe_load((MONITORING / "alerts.yaml").read_text())


def test_pods_are_scraped_as_without_a_prometheus_operator(everything: dict[tuple[str, str], Object]) -> None:
    jobs = yaml.safe_load((MONITORING / "scrape.yaml").read_text())["scrape_configs"]
    for job in (job for job in jobs if job["job_name"] != "copilot-operator"):
        spec = everything["PodMonitor", job["job_name"]]["spec"]
        (endpoint,), keep = spec["podMetricsEndpoints"], job["relabel_configs"][0]["regex"]
        assert f"{spec['selector']['matchLabels']['app.kubernetes.io/name']};{endpoint['port']}" == keep
        known = ("namespace", "pod")  # those a Prometheus Operator puts there itself
        rest = [each for each in job["relabel_configs"][1:] if each["target_label"] not in known]
        assert [(each["sourceLabels"], each["targetLabel"]) for each in endpoint["relabelings"]] == [
            (each["source_labels"], each["target_label"]) for each in rest
        ]
        assert spec["namespaceSelector"] == {"matchNames": ["apps"]}
    anywhere = by_name(rendered({"podMonitors": {"enabled": True}}))["PodMonitor", "copilot-servers"]["spec"]
    assert anywhere["namespaceSelector"] == {"any": True}


def test_dashboards_come_as_grafana_takes_them(everything: dict[tuple[str, str], Object]) -> None:
    for path in sorted((MONITORING / "dashboards").glob("*.json")):
        made = everything["ConfigMap", f"copilot-dashboard-{path.stem}"]
        assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert json.loads(made["data"][f"copilot-{path.name}"]) == json.loads(path.read_text())


def test_network_policy_lets_the_test_and_prometheus_in(everything: dict[tuple[str, str], Object]) -> None:
    spec = everything["NetworkPolicy", "copilot-operator"]["spec"]
    labels = everything["Pod", "copilot-operator-test"]["metadata"]["labels"]
    test, *others = spec["ingress"][0]["from"]
    assert test["podSelector"]["matchLabels"].items() <= labels.items()
    assert others == EVERYTHING["networkPolicy"]["metricsFrom"]
    assert not spec["podSelector"]["matchLabels"].items() <= labels.items()


def test_operator_reaches_what_it_must_and_nobody_else_reaches_it() -> None:
    made = by_name(rendered({"networkPolicy": {"enabled": True, "metricsFrom": [parties.PROMETHEUS]}}))
    policy = made["NetworkPolicy", "copilot-operator"]
    policy["metadata"]["namespace"] = parties.OPERATOR.namespace
    found = parties.reachable([*parties.rendered(), policy])
    assert parties.differences(found, parties.expected(operator_has_one=True)) == []
    blocks = [each["ipBlock"] for rule in policy["spec"]["egress"] for each in rule.get("to", ()) if "ipBlock" in each]
    assert [each for block in blocks for each in block["except"]] == list(CREDENTIAL_RANGES)
    proxied = by_name(rendered({"networkPolicy": {"enabled": True, "egressPorts": [3128]}}))
    ports = proxied["NetworkPolicy", "copilot-operator"]["spec"]["egress"][-1]["ports"]
    assert ports == [{"protocol": "TCP", "port": 3128}]


def test_pools_and_tenants(everything: dict[tuple[str, str], Object]) -> None:
    assert everything["CopilotPool", "saas"]["spec"] == POOL["spec"]
    for name in ("alice", "bob"):
        tenant = everything["CopilotTenant", name]
        assert tenant["spec"] == TENANT["spec"]
        assert tenant["metadata"]["namespace"] == "apps"
        assert tenant["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    loose = by_name(rendered({"tenants": {"alice": TENANT["spec"]}, "objects": {"keep": False}}))
    assert "annotations" not in loose["CopilotTenant", "alice"]["metadata"]
    assert loose["CopilotTenant", "alice"]["metadata"]["namespace"] == "copilot-operator"


def test_images_of_pools_are_held_on_the_nodes_that_may_run_their_servers() -> None:
    where = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "registry"}],
    }
    server = POOL["spec"]["server"] | {"template": {"spec": where}}
    pools = {"saas": POOL["spec"], f"{'long' * 15}-b.c": POOL["spec"] | {"server": server}}
    values: Object = {"image": {"tag": "dev"}, "pools": pools, "objects": {"namespace": "apps"}}
    assert not [each for each in rendered(values) if each["kind"] == "DaemonSet"]
    made = [each for each in rendered(values | {"prePull": {"enabled": True}}) if each["kind"] == "DaemonSet"]
    placed, plain = sorted(made, key=lambda each: each["metadata"]["name"])
    assert plain["metadata"]["name"] == "prepull-saas"
    for each in made:
        template = each["spec"]["template"]
        assert each["metadata"]["namespace"] == "apps"
        assert len(each["metadata"]["name"]) <= 63
        assert each["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
        assert template["metadata"]["labels"]["app.kubernetes.io/name"] not in ("copilot", "copilot-gateway")
        pod = template["spec"]
        (first,), (lasting,) = pod["initContainers"], pod["containers"]
        assert (first["image"], lasting["image"]) == ("copilot-operator:dev", server["image"])
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (first, lasting):
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["resources"] == {
                "requests": {"cpu": "1m", "memory": "4Mi"},
                "limits": {"memory": "32Mi"},
            }
    assert {name: placed["spec"]["template"]["spec"].get(name) for name in where} == where
    assert not where.keys() & plain["spec"]["template"]["spec"].keys()


def test_great_numbers_stay_whole() -> None:
    made = by_name(rendered({"pools": {"saas": POOL["spec"] | {"sessions": {"policy": {"maxAiCredits": 1_000_000}}}}}))
    number = made["CopilotPool", "saas"]["spec"]["sessions"]["policy"]["maxAiCredits"]
    assert (number, type(number)) == (1_000_000, int)


def test_what_is_not_wanted_is_not_made() -> None:
    off = {
        "crds": {"install": False},
        "rbac": {"create": False, "aggregate": False},
        "serviceAccount": {"create": False, "name": "mine"},
        "podDisruptionBudget": {"enabled": False},
    }
    made = by_name(rendered(off))
    assert made.keys() == {
        ("Deployment", "copilot-operator"),
        ("Service", "copilot-operator"),
        ("Pod", "copilot-operator-test"),
    }
    assert made["Deployment", "copilot-operator"]["spec"]["template"]["spec"]["serviceAccountName"] == "mine"


def test_the_page_has_its_port_or_is_not_there() -> None:
    def port(page: Object) -> str | None:
        made = by_name(rendered({"page": page}))["Deployment", "copilot-operator"]
        env = made["spec"]["template"]["spec"]["containers"][0]["env"]
        return next((each["value"] for each in env if each["name"] == "COPILOT_OPERATOR_PAGE_PORT"), None)

    assert port({}) == "8081"
    assert port({"port": 9000}) == "9000"
    assert port({"enabled": False}) is None
    with pytest.raises(HelmError, match="port"):
        rendered({"page": {"port": 8080}})


def test_crds_go_with_the_release_only_when_told_so() -> None:
    made = by_name(rendered({"crds": {"keep": False}}))
    assert "annotations" not in made["CustomResourceDefinition", "copilotpools.copilot-operator.io"]["metadata"]


def test_without_the_right_to_nodes_all_other_rights_are_the_same(chart: dict[tuple[str, str], Object]) -> None:
    name = ("ClusterRole", "copilot-operator")
    made = by_name(rendered({"rbac": {"nodes": False}}))
    assert [each for each in chart[name]["rules"] if each["resources"] != ["nodes"]] == made[name]["rules"]


def in_namespaces(*names: str, **values: Any) -> list[Object]:
    """What somebody without rights in the cluster installs."""
    return rendered(values | {"watchNamespaces": list(names), "crds": {"install": False}, "rbac": {"aggregate": False}})


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    """By their namespaces."""
    found = [each for each in objects if each["kind"] == kind]
    assert {each["metadata"]["name"] for each in found} <= {"copilot-operator"}
    made = {each["metadata"]["namespace"]: each for each in found}
    assert len(made) == len(found)
    return made


OF_CLUSTER: Final = {"nodes", "storageclasses", "csidrivers", "customresourcedefinitions"}


def test_for_single_namespaces_there_is_nothing_of_the_cluster_but_what_one_asks_for() -> None:
    values = {key: value for key, value in EVERYTHING.items() if key != "serviceAccount"}
    for obj in in_namespaces("team-a", "team-b", **values):
        assert obj["metadata"].get("namespace"), obj["kind"]
    with_crds = rendered({"watchNamespaces": ["team-a"], "rbac": {"aggregate": False}})
    assert {each["kind"] for each in with_crds if "namespace" not in each["metadata"]} == {"CustomResourceDefinition"}
    with_roles = rendered({"watchNamespaces": ["team-a"], "crds": {"install": False}})
    loose = {each["metadata"]["name"] for each in with_roles if "namespace" not in each["metadata"]}
    assert loose == {f"copilot-operator-{role}" for role in ("view", "edit", "admin")}


def test_in_each_of_the_namespaces_it_may_do_what_it_may_do_in_all(chart: dict[tuple[str, str], Object]) -> None:
    everywhere = [
        each
        for each in chart["ClusterRole", "copilot-operator"]["rules"]
        if not OF_CLUSTER & set(each["resources"]) and each["resources"] != ["leases"]
    ]
    mark = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    of_marks = [
        mark | {"resourceNames": ["copilot-operator-mark"], "verbs": ["get", "list", "watch", "update"]},
        mark | {"verbs": ["create"]},
    ]
    own = chart["Role", "copilot-operator"]["rules"]
    made = in_namespaces("team-b", "team-a")
    roles, bindings = of_kind(made, "Role"), of_kind(made, "RoleBinding")
    assert roles.keys() == bindings.keys() == {"team-a", "team-b", "copilot-operator"}
    assert roles["team-a"]["rules"] == roles["team-b"]["rules"] == everywhere + of_marks
    assert roles["copilot-operator"]["rules"] == own, "its Lease, and nothing of what it does not serve"
    served = of_kind(in_namespaces("copilot-operator"), "Role")
    assert served.keys() == {"copilot-operator"}
    assert served["copilot-operator"]["rules"] == [*everywhere, *of_marks, own[1]]
    for binding in bindings.values():
        assert binding["roleRef"]["kind"] == "Role"
        assert binding["subjects"] == chart["RoleBinding", "copilot-operator"]["subjects"]


def test_the_operator_is_told_which_namespaces_it_serves() -> None:
    def told(made: list[Object]) -> str | None:
        (deployment,) = of_kind(made, "Deployment").values()
        env = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        return next((each["value"] for each in env if each["name"] == "COPILOT_OPERATOR_WATCH_NAMESPACES"), None)

    assert told(in_namespaces("team-a", "team-b")) == "team-a,team-b"
    assert told(rendered()) is None
    scraped = in_namespaces("team-a", podMonitors={"enabled": True})
    (selector,) = {str(each["spec"]["namespaceSelector"]) for each in scraped if each["kind"] == "PodMonitor"}
    assert selector == "{'matchNames': ['team-a']}"


def test_helm_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    for values in ({}, EVERYTHING):
        said = helm("lint", "--strict", str(CHART), f"--kube-version={KUBERNETES}", values=values)
        assert "0 chart(s) failed" in said
    helm("package", str(CHART), "--destination", str(tmp_path))
    archive = tmp_path / f"copilot-operator-{VERSION}.tgz"
    assert rendered(chart=archive) == rendered(), "something is missing in the package"


def test_helm_refuses_a_wrong_value_by_name() -> None:
    with pytest.raises(HelmError) as refused:
        rendered({"replcas": 3, "pools": {"saas": {"gateway": {"enabeld": True}}}})
    assert "'replcas' not allowed" in str(refused.value)
    assert "at '/pools/saas/gateway': additional properties 'enabeld' not allowed" in str(refused.value)


def test_helm_refuses_a_cluster_that_is_too_old() -> None:
    oldest = ".".join(map(str, OLDEST))
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={oldest}.0-0"
    words = ("template", "copilot-operator", str(CHART))
    assert helm(*words, f"--kube-version={oldest}.0")
    with pytest.raises(HelmError, match=rf"requires kubeVersion: >={oldest}.0-0 which is incompatible with Kubernetes"):
        helm(*words, "--kube-version=1.29.14")
