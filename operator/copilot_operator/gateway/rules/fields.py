"""Which fields of a request go to the server, and what the gateway sets itself: the door to the modules that decide.

Fields only: ids are ``ids``', methods ``methods``'. What a client may not have is refused if it asks for something,
and left out if it asks for nothing (null, false, empty), because SDKs send such fields unasked. What the pinned CLI
does not know is left out, too: the CLI would ignore it, and a newer one might not.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from copilot_operator.gateway.rules.create_fields import resume_params, sanitised_create, sanitised_resume, tool_names
from copilot_operator.gateway.rules.methods import rules
from copilot_operator.gateway.rules.policy import Credential, Policy, Refused
from copilot_operator.gateway.rules.request_fields import (
    plain_fields,
    sanitised_other,
    sanitised_send,
    sanitised_send_messages,
)

__all__ = [
    "Credential",
    "Policy",
    "Refused",
    "plain",
    "resume_params",
    "sanitised",
    "sanitised_create",
    "sanitised_resume",
    "sanitised_send",
    "sanitised_send_messages",
    "tool_names",
]

# Methods that have a function of their own; for all others there is one.
_OWN: Final = frozenset(("session.create", "session.resume", "session.send", "session.sendMessages"))


def sanitised(
    method: str,
    params: Any,
    policy: Policy,
    credential: Credential | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    mark: str | None = None,
    known: Iterable[str] = (),
) -> dict[str, Any]:
    """Parameters of any forwarded method, by the function that is there for it. Raises Refused.

    Ids are left as they are. ``defaults`` and ``known`` are for create and resume, ``mark`` is for messages.
    """
    given = params if isinstance(params, Mapping) else {}
    if method not in _OWN:
        return sanitised_other(method, given, policy, credential)
    match method:
        case "session.create":
            return sanitised_create(given, policy, credential, defaults or {})
        case "session.resume":
            return sanitised_resume(given, policy, credential, defaults or {}, known)
        case "session.send":
            return sanitised_send(given, policy, mark)
        case _:
            return sanitised_send_messages(given, policy, mark)


@cache
def plain(isolation: str) -> Mapping[str, frozenset[str]]:
    """Methods of which ``sanitised`` and ``NameSpace.to_server`` change nothing but the session's id, whatever the
    policy, if a request has no other parameters than these."""
    forwarded = [each for each in rules(isolation).values() if each.method not in _OWN and each.names_session_only]
    return {each.method: fields for each in forwarded if (fields := plain_fields(each)) is not None}
