"""Statuses of what deleted tenants have left, and of servers that do not run."""

from typing import Annotated

from pydantic import Field

from copilot_operator.api.model import Model
from copilot_operator.api.rules import ATOMIC_LIST, list_map

ServerName = Annotated[str, Field(max_length=253)]


class PendingErasure(Model):
    """A deleted tenant whose sessions are not yet erased everywhere."""

    tenant: Annotated[str, Field(max_length=253)]
    """Name that it had."""
    since: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When it was found deleted."""
    servers: Annotated[tuple[ServerName, ...], Field(max_length=20), ATOMIC_LIST] = ()
    """Servers that may still store sessions of it, at most 20 of them. One that does not run erases them when it starts
    next."""


class PendingErasures(Model):
    """Deleted tenants of a Shared pool whose sessions are not yet erased everywhere."""

    count: Annotated[int, Field(ge=0)]
    """Number of such tenants."""
    oldest: Annotated[tuple[PendingErasure, ...], Field(max_length=10), ATOMIC_LIST] = ()
    """Those that were deleted first, at most ten."""


class ParkedServer(Model):
    """A server of a Shared pool that does not run, and keeps its volume."""

    server: ServerName
    """Name of the server (its Deployment and volume)."""
    sessions: Annotated[int, Field(ge=0)]
    """Sessions that it stored when it was asked last."""


class ParkedServers(Model):
    """Servers of a Shared pool that do not run, and whose volumes hold sessions. A request for one of these starts its
    server."""

    count: Annotated[int, Field(ge=0)]
    """Number of such servers."""
    sessions: Annotated[int, Field(ge=0)]
    """Sessions on all of them, as far as they are known."""
    most: Annotated[tuple[ParkedServer, ...], Field(max_length=20), list_map("server")] = ()
    """Those with the most sessions, at most twenty."""
