"""JSON-RPC 2.0 messages as values: built from fields, and told apart when they come in. No I/O.

A CLI server knows no batches. Ids are strings or integers and belong to one direction of one connection.
"""

import json
from dataclasses import dataclass
from typing import Any, TypeAlias

from copilot_operator.rpc.errors import ProtocolError

Id: TypeAlias = str | int


@dataclass(frozen=True, slots=True)
class Request:
    """The peer wants an answer under ``id``."""

    id: Id
    method: str
    params: Any


@dataclass(frozen=True, slots=True)
class Notification:
    """The peer tells something and wants no answer."""

    method: str
    params: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """The good answer to our request ``id``."""

    id: Id
    result: Any


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """The error answer to our request ``id``; None when the peer could not read which one."""

    id: Id | None
    code: int
    message: str
    data: Any


Message: TypeAlias = Request | Notification | Reply | ErrorReply


def parse(body: bytes) -> Message:
    """What the body of a frame says; ProtocolError if it is no message of JSON-RPC 2.0."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, not UTF-8
        raise ProtocolError(f"a body of {len(body)} bytes is not JSON") from error
    if not isinstance(fields, dict):
        raise ProtocolError(f"expected a JSON object, found {type(fields).__name__}")
    if "method" in fields:
        return _asked(fields)
    if "error" in fields:
        return _failure(fields)
    if "result" in fields and "id" in fields:
        return Reply(_id(fields["id"]), fields["result"])
    raise ProtocolError(f"neither request, notification nor response: fields {sorted(fields)[:8]}")


def _asked(fields: dict[str, Any]) -> Request | Notification:
    method, params = fields["method"], fields.get("params")
    if not isinstance(method, str):
        raise ProtocolError("method is not a string")
    return Request(_id(fields["id"]), method, params) if "id" in fields else Notification(method, params)


def _failure(fields: dict[str, Any]) -> ErrorReply:
    error, answered = fields["error"], fields.get("id")
    if not isinstance(error, dict) or not isinstance(error.get("code"), int):
        raise ProtocolError("error reply without a code")
    message = str(error.get("message", ""))
    return ErrorReply(None if answered is None else _id(answered), error["code"], message, error.get("data"))


def _id(value: Any) -> Id:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return value
    raise ProtocolError(f"id is neither string nor integer but {type(value).__name__}")


def request(id: Id, method: str, params: Any = None) -> bytes:
    """The body of a request; parameters may be absent."""
    return _body({"jsonrpc": "2.0", "id": id, "method": method} | ({} if params is None else {"params": params}))


def notification(method: str, params: Any = None) -> bytes:
    """The body of a notification; parameters may be absent."""
    return _body({"jsonrpc": "2.0", "method": method} | ({} if params is None else {"params": params}))


def result(id: Id, value: Any) -> bytes:
    """The body of a good answer."""
    return _body({"jsonrpc": "2.0", "id": id, "result": value})


def failure(id: Id | None, code: int, message: str, data: Any = None) -> bytes:
    """The body of an error answer."""
    error = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return _body({"jsonrpc": "2.0", "id": id, "error": error})


def _body(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
