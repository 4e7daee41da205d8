"""Sessions that several tenants of a pool share."""

from typing import Annotated, Final, Literal

from pydantic import Field

from copilot_operator.api.model import Model
from copilot_operator.api.names import ObjectName
from copilot_operator.api.network import LabelSelector
from copilot_operator.api.rules import LIST_SET, Rule, list_map

ONE_KIND_OF_MEMBERS: Final = Rule(
    "(has(self.tenants) && self.tenants.size() > 0) != has(self.tenantSelector)",
    "write exactly one of tenants and tenantSelector (tenantSelector: {} is every tenant of the pool)",
    lambda session: bool(session.tenants) != (session.tenant_selector is not None),
)


class SharedSession(Model):
    """One conversation of several tenants. One of them speaks at a time, all of them hear it; for other tenants it does
    not exist. It runs on the pool's credential, without tools and hooks of clients."""

    rules = (ONE_KIND_OF_MEMBERS,)

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    """The session's id for all members, by which they create and resume it; a session of their own that has it is
    hidden. A name that is taken out and comes back later finds the conversation again, unless it has expired."""
    tenants: Annotated[tuple[ObjectName, ...], Field(max_length=256), LIST_SET] = ()
    """Names of the members. One that does not exist yet is no error, and told of by the condition MembersFound."""
    tenant_selector: LabelSelector | None = None
    """Labels of the members, instead of their names."""
    when_busy: Literal["Reject", "Queue"] = "Reject"
    """What becomes of a member's message while another one speaks. Reject: it is refused with an error that says who
    speaks, since when, and when to try again. Queue: it waits for up to 40 seconds, in order of arrival."""


SharedSessions = Annotated[tuple[SharedSession, ...], Field(max_length=64), list_map("name")]
