"""Between the frames of a server and the values the session machine works with. Pure, but for the time of an event."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.rules.ids import NameSpace
from copilot_operator.gateway.rules.methods import Rule
from copilot_operator.gateway.session.actions import Failure, Reply, refusal
from copilot_operator.gateway.session.machine import READ_RESULTS


def reply_of(method: str, body: bytes, space: NameSpace) -> Reply:
    """A server's reply; error texts name the client's ids already."""
    if wire.head(body).is_error:
        code, message, data = wire.error(body)
        return Reply(failure=Failure(code, space.error_text(message), data))
    return Reply(wire.result(body) if method in READ_RESULTS else None, raw=body)


def answer_of(body: bytes) -> Reply:
    """A client's reply to its server."""
    if wire.head(body).is_error:
        code, message, data = wire.error(body)
        return Reply(failure=Failure(code, message, data))
    return Reply(raw=body)


def lost() -> Reply:
    """The connection to the server ended before its answer."""
    return refusal("the server ended before it answered", "ServerLost")


def shown(id: bytes, rule: Rule, reply: Reply, space: NameSpace) -> bytes:
    """The body of what a client gets under its own request id."""
    if reply.failure is not None:
        return wire.error_reply(id, reply.failure.code, reply.failure.message, reply.failure.data)
    if reply.raw is None:
        return wire.good_reply(id, reply.result)
    if rule.keeps_result:
        return wire.with_id(reply.raw, id)
    return wire.good_reply(id, space.from_server_result(rule.method, wire.result(reply.raw)))


def made_event(session_id: str, type: str, data: Mapping[str, Any]) -> bytes:
    """A session.event of our own making; like a server's, but on no disk."""
    event = {
        "type": type,
        "data": data,
        "id": str(uuid.uuid4()),
        "timestamp": timestamp(),
        "parentId": None,
        "ephemeral": True,
    }
    return wire.notification("session.event", {"sessionId": session_id, "event": event})


def timestamp() -> str:
    """Now, as a CLI writes it in events."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
