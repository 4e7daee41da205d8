"""The tenant's name space of session ids on servers that it shares with others. Pure.

A server knows a session as ``code + id of the client``. All codes of a pool have one length, so none begins another.
Ids are rewritten where ``methods.json`` and ``places`` say that ids stand, and nowhere else.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.frames.wire import EVENT_MIDDLE, EVENT_OPENING
from copilot_operator.gateway.rules import places
from copilot_operator.gateway.rules.methods import Isolation, Rule, rule
from copilot_operator.gateway.rules.places import LIFECYCLE_ID, LIFECYCLE_OPENING, MARK
from copilot_operator.rpc.ids import MAX_ID_LENGTH, is_id

_CODE: Final = re.compile(r"[A-Za-z0-9_-]*")
# Types whose data may hold an id; all other events are spliced.
_INNER_TYPES: Final = frozenset(kind.encode() for kind in (*places.EVENT_PLACES, places.SOURCED, places.FAILED))
_SOURCED: Final = places.SOURCED.encode()
_MARKED: Final = b'"source":"' + MARK.encode()
# The hand-written methods, whose errors differ from those of the schema's.
_HAND_WRITTEN: Final = frozenset(
    f"session.{verb}" for verb in ("resume", "getMessages", "getMetadata", "detach", "destroy", "delete")
)
# What the CLI answers to an id that cannot exist, where that is no error.
_UNKNOWN: Final[Mapping[str, Mapping[str, Any]]] = {
    "session.detach": {"success": True},
    "session.destroy": {"success": False},
    "session.delete": {"success": False, "error": "Invalid sessionId"},
    "sessions.findByPrefix": {},
}


class InvalidId(Exception):
    """A client's id that cannot be one. If ``result`` is None, ``code`` and ``message`` are the error reply, worded
    as the CLI does; else ``result`` is the good reply that the CLI gives to such an id.
    """

    code: Final = -32603

    def __init__(self, method: str, reason: str, result: Mapping[str, Any] | None = None) -> None:
        self.message = f"Request {method} failed with message: {reason}"
        self.result = result
        super().__init__(self.message)


class SessionEvent(msgspec.Struct, frozen=True, gc=False):
    """A session.event as its client may read it: ``frame``, of which session (the client's id), and its type."""

    session_id: str
    type: str
    frame: bytes


class NameSpace:
    """Between a client's ids and a server's. An empty ``code`` is a Dedicated tenant's: ids stay as they are."""

    def __init__(self, code: str) -> None:
        if not _CODE.fullmatch(code) or len(code) >= MAX_ID_LENGTH:
            raise ValueError("a code has letters, digits, '_' and '-', fewer than 250")
        self.code = code
        self._isolation = Isolation.SHARED if code else Isolation.DEDICATED
        self._longest = MAX_ID_LENGTH - len(code)
        self._code = code.encode()
        self._inner_types = _INNER_TYPES if code else frozenset((_SOURCED,))
        self._event_opening = EVENT_OPENING + self._code
        self._lifecycle_id = LIFECYCLE_ID + self._code

    def outer(self, client_id: object, method: str = "session.create") -> str:
        """The server's id; raises InvalidId, worded as the answer to ``method``."""
        if isinstance(client_id, str) and is_id(client_id, longest=self._longest):
            return self.code + client_id
        raise self._invalid(client_id, method)

    def inner(self, server_id: str) -> str | None:
        """The client's id; None: a session of somebody else."""
        return server_id[len(self.code) :] or None if server_id.startswith(self.code) else None

    def to_server(self, method: str, params: Any) -> dict[str, Any]:
        """The parameters with the server's ids at every place where ids stand; raises InvalidId.

        ``session.create`` must have an id: who calls gives one to clients that leave the choice to the server.
        """
        given: Mapping[str, Any] = params if isinstance(params, Mapping) else {}
        sent = dict(given)
        for place in rule(method, self._isolation).ids:
            name = place.removesuffix("[]")
            if place.endswith("[]"):
                sent[name] = self._outer_each(given.get(name), name, method)
            elif name == "prefix":
                sent[name] = self._outer_prefix(given.get(name), method)
            elif name == "sessionId" or given.get(name) is not None:  # only the session's own is a must
                sent[name] = self.outer(given.get(name), method)
        return sent

    def from_server_result(self, method: str, result: Any) -> Any:
        """The result with the client's ids; entries of others are left out of lists and maps.

        A result that is as a whole of somebody else becomes {}, as the CLI answers for a session nobody has. In
        Shared pools members that tell of the pool's own identity are left out, too.
        """
        known = rule(method, self._isolation)
        if self.code:
            result = self._own(known, result)
        if known.result_events and isinstance(result, dict):
            for event in result.get(known.result_events) or ():
                if self.code or _is_marked(event):
                    places.change_event(event, "", self.inner)
        if method == "session.queue.pendingItems" and isinstance(result, dict):
            places.unmark(result.get("items"))
        return result

    def event(self, body: bytes) -> bytes | None:
        """A notification of the server as its client may read it; None: not for this tenant.

        Of the frames that servers write only those are decoded whose type carries ids inside.
        """
        if (known := self._spliced(body)) is not None:
            return known.frame
        if body.startswith(LIFECYCLE_OPENING):
            id_at = body.find(b'"', len(LIFECYCLE_OPENING))
            if body.startswith(LIFECYCLE_ID, id_at):
                return self._spliced_lifecycle(body, id_at)
        elif self._is_of_another(body):
            return None
        return self._decoded_event(body)

    def session_event(self, body: bytes) -> SessionEvent | None:
        """A session.event, read once; None: no such event, or not of this tenant."""
        if (known := self._spliced(body)) is not None:
            return known
        head, frame = wire.event_head(body), self.event(body)
        id = self.inner(head.session_id) if head is not None else None
        return None if head is None or id is None or frame is None else SessionEvent(id, head.type, frame)

    def _spliced(self, body: bytes) -> SessionEvent | None:
        """An event of this tenant's in the form that servers write; None: another form, or ids may be inside."""
        if not body.startswith(self._event_opening):
            return None
        begin = len(self._event_opening)
        id_end = body.find(b'"', begin)
        type_begin = id_end + len(EVENT_MIDDLE)
        type_end = body.find(b'"', type_begin)
        if id_end <= begin or type_end < 0 or not body.startswith(EVENT_MIDDLE, id_end):
            return None
        kind = body[type_begin:type_end]
        if (kind in self._inner_types and (self.code or _MARKED in body)) or b"\\" in body[begin:type_end]:
            return None
        frame = EVENT_OPENING + body[begin:] if self.code else body
        return SessionEvent(body[begin:id_end].decode(), kind.decode(), frame)

    def _is_of_another(self, body: bytes) -> bool:
        opening = self._event_opening
        known = body.startswith(EVENT_OPENING) and not body.startswith(opening)
        return known and b"\\" not in body[: len(opening)]

    def reverse(self, params: Any) -> dict[str, Any] | None:
        """The parameters of a server's request with the client's ids; None: not about a session of this tenant."""
        session = params.get("sessionId") if isinstance(params, dict) else None
        own = self.inner(session) if isinstance(session, str) else None
        if own is None:
            return None
        told: dict[str, Any] = params | {"sessionId": own}
        if self.code and isinstance(told.get("input"), dict):
            told["input"] = dict(told["input"])
            places.change(told, places.REVERSE_PLACES, own, self.inner)
        return told

    def error_text(self, text: str) -> str:
        """An error message with the client's id, if it has one of the CLI's exact forms; else as it is."""
        return places.error_shown(text, self.inner) if self.code else text

    def _spliced_lifecycle(self, body: bytes, id_at: int) -> bytes | None:
        begin = id_at + len(self._lifecycle_id)
        if not body.startswith(self._lifecycle_id, id_at) or body[begin : begin + 1] == b'"':
            return None
        return body[: id_at + len(LIFECYCLE_ID)] + body[begin:]

    def _decoded_event(self, body: bytes) -> bytes | None:
        try:
            message = wire.decoded(body)
        except wire.BadMessage:
            return None
        method, params = message.get("method"), message.get("params")
        if method not in ("session.event", "session.lifecycle"):
            return None if self.code else body  # nothing else is known to be about one tenant alone
        told = self.reverse(params)
        if told is None:
            return None
        if method == "session.event":
            places.change_event(told.get("event"), told["sessionId"], self.inner)
        return wire.notification(method, told)

    def _own(self, known: Rule, result: Any) -> Any:
        result = places.result_shown(result, known.result_ids, self.inner)
        if not isinstance(result, dict):
            return result
        shown = {name: value for name, value in result.items() if name not in known.hidden}
        text = shown.get(known.result_text) if known.result_text else None
        if known.result_text and isinstance(text, str):
            shown[known.result_text] = self.error_text(text)
        return shown

    def _outer_each(self, ids: object, name: str, method: str) -> list[str]:
        if not isinstance(ids, list):
            raise InvalidId(method, f"missing or non-array parameter '{name}'")
        return [self.outer(id, method) for id in ids]

    def _outer_prefix(self, prefix: object, method: str) -> str:
        if not isinstance(prefix, str):
            raise InvalidId(method, "missing or non-string parameter 'prefix'")
        if prefix and not is_id(prefix, longest=self._longest):
            raise self._invalid(prefix, method)
        return self.code + prefix

    def _invalid(self, id: object, method: str) -> InvalidId:
        if not isinstance(id, str):
            return InvalidId(method, _not_a_string(id, method))
        if method in _UNKNOWN:
            return InvalidId(method, "", _UNKNOWN[method])
        if method in ("session.create", "session.resume"):
            too_long = len(id) > self._longest and is_id(id, longest=len(id))
            limit = f" (at most {self._longest} characters here)" if too_long else ""
            return InvalidId(method, f"Rejected {method} request with invalid sessionId: {id}{limit}")
        if method == "session.getMessages":
            return InvalidId(method, f"Session not found: {id}")
        if method == "session.getMetadata" or method.startswith("sessions."):
            return InvalidId(method, f'Invalid sessionId: "{id}"')
        return InvalidId(method, f"Session not found for sessionId: {id}")


def _not_a_string(id: object, method: str) -> str:
    if method == "session.create":
        return "session.create sessionId must be a string"
    if method in _HAND_WRITTEN:
        return "Missing sessionId parameter"
    if method.startswith("sessions."):
        return f"Invalid sessionId: {msgspec.json.encode(id).decode()}"
    return f"Missing sessionId in {method} request"


def _is_marked(event: Any) -> bool:
    data = event.get("data") if isinstance(event, dict) else None
    return isinstance(data, dict) and str(data.get("source", "")).startswith(MARK)
