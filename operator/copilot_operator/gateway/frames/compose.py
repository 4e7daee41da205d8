"""Bodies of JSON-RPC messages out of values, in the CLI's own form: compact, ids as raw JSON. Pure."""

from typing import Any, Final

import msgspec
from msgspec import Raw

encode: Final = msgspec.json.Encoder().encode


class _Request(msgspec.Struct, gc=False):
    jsonrpc: str
    id: int
    method: str
    params: Any


def request(id: int, method: str, params: Any) -> bytes:
    """The body of a request of our own."""
    return encode(_Request("2.0", id, method, params))


def notification(method: str, params: Any) -> bytes:
    """The body of a notification."""
    return encode({"jsonrpc": "2.0", "method": method, "params": params})


def good_reply(id: bytes, result: Any) -> bytes:
    """The body of a good reply; ``id`` is raw JSON."""
    return encode({"jsonrpc": "2.0", "id": Raw(id), "result": result})


def error_reply(id: bytes | None, code: int, message: str, data: Any = None) -> bytes:
    """The body of an error reply; ``id`` is raw JSON, None where it could not be read."""
    said = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return encode({"jsonrpc": "2.0", "id": None if id is None else Raw(id), "error": said})
