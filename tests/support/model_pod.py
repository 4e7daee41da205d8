"""The stand-in model as a pod of a namespace, run from the operator's image."""

from pathlib import Path
from typing import Any, Final

from copilot_operator.domain.kinds import DEPLOYMENT, SERVICE
from tests.support import model
from tests.support.kube import Kube, Object

NAME: Final = "model"
PORT: Final = 8801
IMAGE: Final = "copilot-operator:dev"
LABELS: Final = {"app.kubernetes.io/name": NAME}


def manifests(namespace: str) -> list[Object]:
    """ConfigMap with the program, Deployment and Service."""
    metadata = {"name": NAME, "namespace": namespace, "labels": LABELS}
    container = {
        "name": NAME,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "/model/model.py", "--host", "0.0.0.0", "--port", str(PORT)],
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/models", "port": PORT}, "periodSeconds": 1, "timeoutSeconds": 5},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "program", "mountPath": "/model", "readOnly": True}],
    }
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10002, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "program", "configMap": {"name": NAME}}],
    }
    program = Path(model.__file__).read_text()
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"model.py": program}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": LABELS},
                "template": {"metadata": {"labels": LABELS}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": LABELS, "ports": [{"port": PORT, "targetPort": PORT, "protocol": "TCP"}]},
        },
    ]


def start(kube: Kube, namespace: str) -> None:
    for manifest in manifests(namespace):
        kube.apply(manifest)


def answers(kube: Kube, namespace: str) -> bool:
    live = kube.find(DEPLOYMENT, namespace, NAME)
    return bool(live and live.get("status", {}).get("readyReplicas"))


def provider(kube: Kube, namespace: str) -> dict[str, Any]:
    """The provider that a session is created with. By address: not every test cluster has DNS."""
    address = kube.get(SERVICE, namespace, NAME)["spec"]["clusterIP"]
    return {"type": "openai", "base_url": f"http://{address}:{PORT}/v1", "api_key": "none", "wire_api": "completions"}
