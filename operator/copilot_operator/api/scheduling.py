"""What users may add to the pods of servers: metadata, placement, pull secrets."""

from typing import Annotated, Final, Literal

from pydantic import Field

from copilot_operator.api.model import Model
from copilot_operator.api.names import (
    KEYS_ARE_NOT_OURS,
    Annotations,
    Labels,
    LabelValue,
    ObjectName,
    QualifiedName,
)
from copilot_operator.api.references import ImagePullSecret
from copilot_operator.api.rules import ATOMIC_LIST, Rule, list_map

EXISTS_HAS_NO_VALUE: Final = Rule(
    "self.operator != 'Exists' || !has(self.value) || self.value == ''",
    "leave value out with operator: Exists, or write operator: Equal",
    lambda toleration: toleration.operator != "Exists" or not toleration.value,
)
NO_KEY_MEANS_EXISTS: Final = Rule(
    "has(self.key) || self.operator == 'Exists'",
    "write a key, or operator: Exists to tolerate every taint",
    lambda toleration: toleration.key is not None or toleration.operator == "Exists",
)
SECONDS_ARE_FOR_NO_EXECUTE: Final = Rule(
    "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
    "write effect: NoExecute beside tolerationSeconds, or leave tolerationSeconds out",
    lambda toleration: toleration.toleration_seconds is None or toleration.effect == "NoExecute",
)


class Toleration(Model):
    """A taint of nodes that servers tolerate."""

    rules = (EXISTS_HAS_NO_VALUE, NO_KEY_MEANS_EXISTS, SECONDS_ARE_FOR_NO_EXECUTE)

    key: QualifiedName | None = None
    """Key of the taint; every key if absent (then operator must be Exists)."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Exists tolerates every value, Equal the one in value."""
    value: LabelValue | None = None
    """Value of the taint, with operator Equal; absent is the same as empty."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; every effect if absent."""
    toleration_seconds: Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)] | None = None
    """How long a server stays on a node that gets a NoExecute taint; for ever if absent."""


class TemplateMetadata(Model):
    """Metadata that is added to the pods of servers."""

    labels: Annotated[Labels, KEYS_ARE_NOT_OURS] = Field(default_factory=dict)
    """Labels that are added."""
    annotations: Annotated[Annotations, KEYS_ARE_NOT_OURS] = Field(default_factory=dict)
    """Annotations that are added."""


class TemplateSpec(Model):
    """Where and how the pods of servers are placed."""

    node_selector: Labels = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16), ATOMIC_LIST] = ()
    """Taints of nodes that are tolerated."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods, for sandboxed container runtimes."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""
    image_pull_secrets: Annotated[tuple[ImagePullSecret, ...], Field(max_length=8), list_map("name")] = ()
    """Secrets with the credentials of the registry that spec.server.image comes from."""


class PodTemplate(Model):
    """What is added to the pods of servers. Everything that is not here is the operator's."""

    metadata: TemplateMetadata = TemplateMetadata()
    """Labels and annotations that are added."""
    spec: TemplateSpec = TemplateSpec()
    """Placement and pull secrets."""
