"""Which fields of a request go to the server, and what the gateway sets itself: the door to the modules that decide.

Fields only: ids are ``ids``', methods ``methods``'. What a client may not have is refused if it asks for something,
and left out if it asks for nothing (null, false, empty), because SDKs send such fields unasked. What the pinned CLI
does not know is left out, too: the CLI would ignore it, and a newer one might not.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from copilot_operator.gateway.rules.create_fields import resume_params, sanitised_create, sanitised_resume, tool_names
from copilot_operator.gateway.rules.policy import Credential, Policy, Refused
from copilot_operator.gateway.rules.request_fields import sanitised_other, sanitised_send, sanitised_send_messages

__all__ = [
    "Credential",
    "Policy",
    "Refused",
    "resume_params",
    "sanitised",
    "sanitised_create",
    "sanitised_resume",
    "sanitised_send",
    "sanitised_send_messages",
    "tool_names",
]


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
    match method:
        case "session.create":
            return sanitised_create(given, policy, credential, defaults or {})
        case "session.resume":
            return sanitised_resume(given, policy, credential, defaults or {}, known)
        case "session.send":
            return sanitised_send(given, policy, mark)
        case "session.sendMessages":
            return sanitised_send_messages(given, policy, mark)
        case _:
            return sanitised_other(method, given, policy, credential)
