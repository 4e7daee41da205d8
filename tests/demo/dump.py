"""When the demo fails: what there is to know, in the order in which one would ask."""

from tests.support.installation import OPERATOR_NAMESPACE
from tests.support.kube import Kube

LINES = "40"


def dump(kube: Kube, namespace: str) -> None:
    """Print conditions, events and logs; what can't be had is said and passed over."""
    ours = ["-n", namespace]
    operator = ["-n", OPERATOR_NAMESPACE]
    conditions = (
        r'{range .items[*]}{.kind}{" "}{.metadata.name}{" "}{.status.phase}{"\n"}'
        r'{range .status.conditions[*]}{"  "}{.type}={.status} {.reason}: {.message}{"\n"}{end}{end}'
    )
    for title, words in (
        ("conditions", [*ours, "get", "cpool,ctenant", f"-o=jsonpath={conditions}"]),
        ("objects", [*ours, "get", "deployments,pods,pvc,services", "-o=wide"]),
        ("events", [*ours, "get", "events", "--sort-by=.lastTimestamp"]),
        (
            "servers",
            [*ours, "logs", "-l=app.kubernetes.io/name=copilot", "--all-containers", "--prefix", f"--tail={LINES}"],
        ),
        ("model", [*ours, "logs", "-l=app.kubernetes.io/name=model", f"--tail={LINES}"]),
        ("operator's pods", [*operator, "get", "pods", "-o=wide"]),
        ("operator's events", [*operator, "get", "events", "--sort-by=.lastTimestamp"]),
        ("operator", [*operator, "logs", "-l=app.kubernetes.io/name=copilot-operator", "--prefix", f"--tail={LINES}"]),
    ):
        try:
            text = kube.kubectl(*words, timeout_s=20)
        except Exception as error:  # whatever it is: the other answers may still tell
            text = str(error)
        print(f"\n--- {title}\n{text.rstrip()}", flush=True)
