"""Messages are told apart by their fields, and what is no message is refused."""

import json
from typing import Any

import pytest

from copilot_operator.rpc import messages
from copilot_operator.rpc.errors import ProtocolError
from copilot_operator.rpc.messages import ErrorReply, Message, Notification, Reply, Request


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": 1, "method": "ping"}, Request(1, "ping", None)),
        ({"id": "a", "method": "ping", "params": {"x": 1}}, Request("a", "ping", {"x": 1})),
        ({"method": "session.event", "params": {}}, Notification("session.event", {})),
        ({"id": 7, "result": None}, Reply(7, None)),
        ({"id": 7, "error": {"code": -1, "message": "no", "data": [1]}}, ErrorReply(7, -1, "no", [1])),
        ({"id": None, "error": {"code": -32700, "message": "bad"}}, ErrorReply(None, -32700, "bad", None)),
    ],
)
def test_each_kind_is_recognised(fields: dict[str, Any], message: Message) -> None:
    assert messages.parse(json.dumps({"jsonrpc": "2.0", **fields}).encode()) == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"null",
        b"{}",
        b'{"id":1}',
        b'{"method":1}',
        b'{"id":true,"result":1}',
        b'{"id":[1],"result":1}',
        b'{"id":1,"error":"no"}',
        b'{"id":1,"error":{"message":"no code"}}',
    ],
)
def test_what_is_no_message_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        messages.parse(body)


def test_what_is_built_can_be_read_back() -> None:
    assert messages.parse(messages.request(1, "ping", {"message": "ü"})) == Request(1, "ping", {"message": "ü"})
    assert messages.parse(messages.request(1, "ping")) == Request(1, "ping", None)
    assert messages.parse(messages.notification("n", [])) == Notification("n", [])
    assert messages.parse(messages.result("a", 3)) == Reply("a", 3)
    assert messages.parse(messages.failure(None, -1, "no", {"why": 1})) == ErrorReply(None, -1, "no", {"why": 1})
