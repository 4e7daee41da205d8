"""What a live Deployment says of itself (apps/v1 DeploymentSpec, DeploymentStatus)."""

from copilot_operator.domain.manifest import Manifest, condition_of


def is_up(deployment: Manifest | None) -> bool:
    """Whether it is there and is to have a pod (spec.replicas, 1 by default)."""
    return deployment is not None and deployment.get("spec", {}).get("replicas", 1) > 0


def observed_status(deployment: Manifest) -> Manifest | None:
    """Its status; None as long as the controller has not seen the latest change (status.observedGeneration)."""
    status: Manifest = deployment.get("status", {})
    seen = status.get("observedGeneration", 0) >= deployment.get("metadata", {}).get("generation", 0)
    return status if seen else None


def counts_pods(deployment: Manifest) -> bool:
    """Whether its controller counted any when it last looked; before Kubernetes 1.35 not those that end."""
    status = deployment.get("status", {})
    return bool(status.get("replicas") or status.get("terminatingReplicas"))


def has_no_pods(deployment: Manifest) -> bool:
    """Whether its controller says so, and knows of the latest change."""
    return observed_status(deployment) is not None and not counts_pods(deployment)


def progress_of(status: Manifest) -> Manifest:
    """The condition Progressing, {} if there is none."""
    return condition_of(status, "Progressing")


def progress_reason(status: Manifest) -> str:
    """Reason of the condition Progressing, "" if there is none."""
    return str(progress_of(status).get("reason", ""))
