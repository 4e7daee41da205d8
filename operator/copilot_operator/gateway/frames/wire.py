"""The envelopes of messages, fast: what routing must know of a body; the door to ``splitter`` and ``compose``.

Pure. A server's frame may be spliced, for servers write one known form. A client's may not: a key that stands twice
or is written with escapes means something else to the CLI than to a search for bytes. So what clients say is
decoded, and written anew by ``request`` and ``renumbered``.
"""

import re
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from copilot_operator.gateway.frames.compose import encode, error_reply, good_reply, notification, request
from copilot_operator.gateway.frames.splitter import BadFrame, Splitter
from copilot_operator.rpc.errors import PARSE_ERROR, ProtocolError

__all__ = [
    "EVENT_MIDDLE",
    "EVENT_OPENING",
    "ID_BEGIN",
    "INVALID_REQUEST",
    "BadFrame",
    "BadMessage",
    "EventHead",
    "Head",
    "Splitter",
    "decoded",
    "error",
    "error_reply",
    "event_head",
    "good_id_end",
    "good_reply",
    "good_with_id",
    "head",
    "notification",
    "params",
    "renumbered",
    "reply_id",
    "request",
    "result",
    "with_id",
]

INVALID_REQUEST: Final = -32600

# How a server begins a session.event, up to the session's id; and what it writes between that and the type.
EVENT_OPENING: Final = b'{"jsonrpc":"2.0","method":"session.event","params":{"sessionId":"'
EVENT_MIDDLE: Final = b'","event":{"type":"'

_ID_OPENING: Final = b'{"jsonrpc":"2.0","id":'
_RESULT: Final = b',"result":'
_ID_DIGITS: Final = 20  # of the longest integer id, its sign included
ID_BEGIN: Final = len(_ID_OPENING)
_MOST_GOOD_ID: Final = ID_BEGIN + _ID_DIGITS + len(_RESULT)  # where the longest id of a good reply is over
_INTEGER: Final = re.compile(rb"-?(0|[1-9][0-9]{0,18})")  # what the CLI takes: 64 bits with sign, about
_SURE_DIGITS: Final = 19  # fewer are an integer for certain: JSON has no zeros in front
_ABSENT: Final = Raw(b"")
_NOT_JSON: Final = (msgspec.DecodeError, ValueError, RecursionError)  # ValueError: not UTF-8, too many digits


class BadMessage(ProtocolError):
    """The body of one frame is no message; the connection may go on. ``code`` is -32700 or -32600."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reply = error_reply(None, code, message)


class Head(msgspec.Struct, frozen=True, gc=False):
    """A message, read once: ``id`` is raw JSON; ``method`` None: a reply, whose result is left unread."""

    id: bytes | None = None
    method: str | None = None
    params: Any = None  # decoded in full; {} when absent or null
    is_error: bool = False

    @property
    def is_reply(self) -> bool:
        return self.method is None

    @property
    def is_notification(self) -> bool:
        return self.method is not None and self.id is None


class EventHead(msgspec.Struct, frozen=True, gc=False):
    """Of which session a session.event is, and its type."""

    session_id: str
    type: str


class _Envelope(msgspec.Struct, gc=False):
    jsonrpc: Any = UNSET
    id: Raw = _ABSENT
    method: Any = UNSET
    params: Any = None
    result: Raw = _ABSENT
    error: Raw = _ABSENT


class _Event(msgspec.Struct, gc=False):
    type: str


class _EventParams(msgspec.Struct, gc=False):
    sessionId: str
    event: _Event


class _EventFrame(msgspec.Struct, gc=False):
    method: str
    params: _EventParams


_envelope: Final = msgspec.json.Decoder(_Envelope)
_event_frame: Final = msgspec.json.Decoder(_EventFrame)


def head(body: bytes) -> Head:
    """What any message says; raises BadMessage. Results are only looked over: ``result`` reads them."""
    try:
        message: _Envelope = _envelope.decode(body)
    except msgspec.ValidationError as error:
        _decoded(body)  # a number too long to be read is no parse error to a decoder that knows what to expect
        raise _unrecognisable() from error
    except _NOT_JSON as error:
        raise BadMessage(PARSE_ERROR, str(error)) from error
    if message.jsonrpc != "2.0":
        raise BadMessage(INVALID_REQUEST, _version_fault(message.jsonrpc))
    raw = bytes(message.id)
    id = raw if raw.isdigit() and len(raw) < _SURE_DIGITS else _id(raw)
    if message.method is UNSET:
        return _reply_head(message, id)
    if not isinstance(message.method, str) or (id is None and message.id):
        raise _unrecognisable()
    return Head(id, message.method, {} if message.params is None else message.params)


def _reply_head(message: _Envelope, id: bytes | None) -> Head:
    is_error = bool(message.error)
    if not message.id or not (is_error or message.result) or (id is None and not is_error):
        raise _unrecognisable()
    return Head(id, is_error=is_error)


def _id(raw: bytes) -> bytes | None:
    """The id as it stands; None: absent or null."""
    if not raw or raw == b"null":
        return None
    if raw[:1] == b'"':
        if not raw.isascii():
            _decoded(raw)
        return raw
    if _INTEGER.fullmatch(raw):
        return raw
    if raw[:1].isdigit() or raw[:1] == b"-":
        raise BadMessage(INVALID_REQUEST, "data did not match any variant of untagged enum RequestId")
    raise _unrecognisable()


def _version_fault(version: Any) -> str:
    if version is UNSET:
        return "missing field `jsonrpc`"
    return f'unsupported jsonrpc version: expected "2.0", got {encode(version)[:60].decode(errors="replace")}'


def _unrecognisable() -> BadMessage:
    return BadMessage(INVALID_REQUEST, "not a recognizable JSON-RPC request, notification, or response")


def event_head(body: bytes) -> EventHead | None:
    """Session and type of a server's session.event, before or after ``NameSpace.event``; None: no such frame."""
    if body.startswith(EVENT_OPENING):
        id_begin = len(EVENT_OPENING)
        id_end = body.find(b'"', id_begin)
        type_begin = id_end + len(EVENT_MIDDLE)
        type_end = body.find(b'"', type_begin)
        known = id_end > 0 and body.startswith(EVENT_MIDDLE, id_end) and type_end > 0
        if known and b"\\" not in body[id_begin:type_end]:
            return EventHead(body[id_begin:id_end].decode(), body[type_begin:type_end].decode())
    try:
        frame = _event_frame.decode(body)
    except _NOT_JSON:
        return None
    return EventHead(frame.params.sessionId, frame.params.event.type) if frame.method == "session.event" else None


def decoded(body: bytes) -> dict[str, Any]:
    """A whole message; raises BadMessage."""
    message = _decoded(body)
    if not isinstance(message, dict):
        raise _unrecognisable()
    return message


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except _NOT_JSON as error:
        raise BadMessage(PARSE_ERROR, str(error)) from error


def params(body: bytes) -> Any:
    """The parameters of a request, decoded in full ({} when absent or null); raises BadMessage."""
    value = decoded(body).get("params")
    return {} if value is None else value


def result(body: bytes) -> Any:
    """The result of a good reply, decoded in full; raises BadMessage."""
    return decoded(body).get("result")


def error(body: bytes) -> tuple[int, str, Any]:
    """Code, message and data of an error reply; raises BadMessage."""
    said = decoded(body).get("error")
    if not isinstance(said, dict) or not isinstance(said.get("code"), int):
        raise BadMessage(INVALID_REQUEST, "error reply without a code")
    return said["code"], str(said.get("message", "")), said.get("data")


def reply_id(body: bytes) -> bytes | None:
    """Raw JSON of the id of a server's reply or request; None: it has none. Raises BadMessage."""
    end = _id_end(body)
    return body[len(_ID_OPENING) : end] if end else head(body).id


def with_id(body: bytes, new_id: bytes) -> bytes:
    """A server's reply or request under another id (raw JSON); the rest stays, byte for byte in the known form."""
    end = _id_end(body)
    if end:
        return _ID_OPENING + new_id + body[end:]
    return encode({"jsonrpc": "2.0", "id": Raw(new_id)} | {k: v for k, v in decoded(body).items() if k not in _FIXED})


_FIXED: Final = frozenset(("jsonrpc", "id"))


def good_id_end(body: bytes) -> int:
    """Where the id ends (it begins at ``ID_BEGIN``) of a good reply in the form that servers write; 0: something else.

    No more is read of it; whether the id is an integer shows when it is looked up.
    """
    end = body.find(_RESULT, ID_BEGIN, _MOST_GOOD_ID)
    return end if end > 0 and body.startswith(_ID_OPENING) else 0


def good_with_id(body: bytes, id_end: int, new_id: bytes) -> bytes:
    """A good reply under another id (raw JSON). ``id_end`` is what ``good_id_end`` says, and not 0."""
    return _ID_OPENING + new_id + body[id_end:]


def _id_end(body: bytes) -> int:
    """Where the id ends in the form that servers write; 0: another form."""
    if not body.startswith(_ID_OPENING):
        return 0
    begin = len(_ID_OPENING)
    if body[begin : begin + 1] == b'"':
        end = body.find(b'"', begin + 1) + 1
        known = b"\\" not in body[begin:end]
    else:
        end = body.find(b",", begin, begin + _ID_DIGITS + 1)
        known = _INTEGER.fullmatch(body, begin, end) is not None if end > 0 else False
    return end if known else 0


def renumbered(body: bytes, new_id: bytes) -> bytes:
    """A client's reply under another id (raw JSON), written anew: nothing of its form reaches the server."""
    message = decoded(body)
    if "error" in message:
        return error_reply(new_id, *error(body))
    return good_reply(new_id, message.get("result"))
