"""What a status tells of sessions that were kept for as long as ``spec.sessions.ttl`` says."""

from typing import Annotated

from pydantic import Field

from copilot_operator.api.model import Model


class ExpiredSessions(Model):
    """Sessions that nobody had used for spec.sessions.ttl of the pool."""

    last_deletion_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When some were deleted last."""
    last_deleted: Annotated[int, Field(ge=0)] | None = None
    """How many were deleted then."""
    kept: Annotated[int, Field(ge=0)] | None = None
    """How many are there still, of the oldest 5000 of each server, because spec.sessions.ttlAction is DryRun. Counted
    once an hour; absent with Delete."""
