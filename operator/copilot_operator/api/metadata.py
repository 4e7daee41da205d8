"""The part of ``metadata`` that decisions look at. The API server checked it; nothing is checked here."""

from pydantic import Field

from copilot_operator.api.model import Model


class Metadata(Model):
    """Metadata of a stored object."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
