"""Frames survive any cut; an envelope says to the gateway what it says to the CLI; of a frame only its id changes."""

import itertools
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.frames.wire import BadFrame, BadMessage, EventHead, Head, Splitter
from copilot_operator.rpc.framing import MAX_HEADER_BYTES

ID_FORMS = [b"1", b"-3", b"0", b"9007199254740993", b'"a-uuid"', b'""', b'"\\u00e9\\""', '"\u00e9"'.encode()]


def framed(*bodies: bytes) -> bytes:
    """Written anew and not with the module's own helper: a fault that both share would not be seen."""
    return b"".join(b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body for body in bodies)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def compact(**fields: object) -> bytes:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


# Splitter


@given(sent=st.lists(st.binary(max_size=50)), places=st.lists(st.integers(0, 10_000)))
def test_frames_survive_any_cut_of_the_stream(sent: list[bytes], places: list[int]) -> None:
    splitter = Splitter(max_body_bytes=50)
    taken = [body for piece in cut(framed(*sent), places) for body in splitter.feed(piece)]
    assert taken == sent
    assert not splitter.in_frame


@given(body=st.binary(min_size=1, max_size=40), at=st.integers(0, 10_000))
def test_part_of_a_frame_is_known_as_such(body: bytes, at: int) -> None:
    stream = framed(body)
    begun = stream[: 1 + at % (len(stream) - 1)]
    splitter = Splitter(max_body_bytes=50)
    assert splitter.feed(begun) == []
    assert splitter.in_frame
    assert splitter.feed(stream[len(begun) :]) == [body]
    assert not splitter.in_frame


@given(junk=st.binary(max_size=200), places=st.lists(st.integers(0, 10_000)))
def test_any_bytes_give_frames_or_a_bad_frame_and_nothing_else(junk: bytes, places: list[int]) -> None:
    splitter = Splitter(max_body_bytes=50)
    try:
        taken = [body for piece in cut(junk, places) for body in splitter.feed(piece)]
    except BadFrame:
        return
    assert sum(map(len, taken)) <= len(junk)


@pytest.mark.parametrize("header", [b"content-length: 2", b"CONTENT-LENGTH:2", b"X: y\r\nContent-Length: 2"])
def test_other_forms_of_a_header_are_read_too(header: bytes) -> None:
    assert Splitter(max_body_bytes=2).feed(header + b"\r\n\r\n{}" + framed(b"[]")) == [b"{}", b"[]"]


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n", "Message header must separate key and value using ':'", id="HTTP, early"),
        pytest.param(b"\r\n\r\n", "Message header must separate key and value using ':'", id="empty header"),
        pytest.param(b"X: y\r\n\r\n", "expected one Content-Length, found 0", id="no length"),
        pytest.param(b"Content-Length: -1\r\n\r\n", "Content-Length is not a length: b'-1'", id="negative"),
        pytest.param(b"Content-Length: 1e3\r\n\r\n", "Content-Length is not a length: b'1e3'", id="not a number"),
        pytest.param(
            b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n", "expected one Content-Length, found 2", id="two lengths"
        ),
        pytest.param(
            b"Content-Length: 1073741824\r\n\r\n",
            "body of 1073741824 bytes, expected no more than 50",
            id="a GiB announced",
        ),
        pytest.param(
            b"a" * MAX_HEADER_BYTES, f"Message header exceeds maximum length {MAX_HEADER_BYTES}", id="endless header"
        ),
    ],
)
def test_a_stream_that_is_none_ends_with_a_reply_for_the_peer(stream: bytes, said: str) -> None:
    with pytest.raises(BadFrame) as caught:
        Splitter(max_body_bytes=50).feed(stream)
    assert json.loads(caught.value.reply) == {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": said}}


def test_the_bound_may_be_raised_between_frames() -> None:
    splitter = Splitter(max_body_bytes=2)
    assert splitter.feed(framed(b"{}")) == [b"{}"]
    splitter.max_body_bytes = 3
    assert splitter.feed(framed(b"[1]")) == [b"[1]"]
    with pytest.raises(BadFrame):
        splitter.feed(framed(b"[12]"))


# Heads


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (compact(jsonrpc="2.0", id=7, method="ping"), Head(b"7", "ping", {})),
        (compact(jsonrpc="2.0", id="u", method="m", params={"sessionId": "s"}), Head(b'"u"', "m", {"sessionId": "s"})),
        (compact(params={"x": {"y": "z"}}, method="m", jsonrpc="2.0"), Head(None, "m", {"x": {"y": "z"}})),
        (compact(jsonrpc="2.0", id=1, method="m", params="x"), Head(b"1", "m", "x")),
        (compact(jsonrpc="2.0", id=1, method="m", params=["sessionId"]), Head(b"1", "m", ["sessionId"])),
        (compact(jsonrpc="2.0", id=1, method="m", params=None), Head(b"1", "m", {})),
        (compact(jsonrpc="2.0", id=1, result=None), Head(b"1")),
        (compact(jsonrpc="2.0", id=1, error={"code": 1}), Head(b"1", is_error=True)),
        (compact(jsonrpc="2.0", id=None, error={"code": 1}), Head(None, is_error=True)),
    ],
)
def test_a_head_says_what_a_message_is(body: bytes, expected: Head) -> None:
    assert wire.head(body) == expected
    assert expected.is_reply == (b"method" not in body)
    assert expected.is_notification == (b"method" in body and b'"id"' not in body)


def test_of_a_key_that_stands_twice_or_in_escapes_the_last_counts_as_it_does_for_the_cli() -> None:
    body = rb'{"jsonrpc":"2.0","id":1,"method":"a","params":{"sessionId":"aa","s\u0065ssionId":"bb"},"m\u0065thod":"b"}'
    assert wire.head(body) == Head(b"1", "b", {"sessionId": "bb"})
    assert wire.params(body) == {"sessionId": "bb"}


NOT_RECOGNISABLE = "not a recognizable JSON-RPC request, notification, or response"


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b"[]", -32600, NOT_RECOGNISABLE),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600, NOT_RECOGNISABLE),
        (b"5", -32600, NOT_RECOGNISABLE),
        (b"null", -32600, NOT_RECOGNISABLE),
        (compact(jsonrpc="2.0"), -32600, NOT_RECOGNISABLE),
        (compact(jsonrpc="2.0", id=1), -32600, NOT_RECOGNISABLE),
        (compact(jsonrpc="2.0", result=1), -32600, NOT_RECOGNISABLE),
        (compact(jsonrpc="2.0", id=None, result=1), -32600, NOT_RECOGNISABLE),
        (compact(jsonrpc="2.0", id=1, method=5), -32600, NOT_RECOGNISABLE),
        (compact(jsonrpc="2.0", id=None, method="m"), -32600, NOT_RECOGNISABLE),
        (compact(jsonrpc="2.0", id=True, method="m"), -32600, NOT_RECOGNISABLE),
        (compact(jsonrpc="2.0", id={}, method="m"), -32600, NOT_RECOGNISABLE),
        (
            compact(jsonrpc="2.0", id=1.5, method="m"),
            -32600,
            "data did not match any variant of untagged enum RequestId",
        ),
        (
            compact(jsonrpc="2.0", id=2**64, method="m"),
            -32600,
            "data did not match any variant of untagged enum RequestId",
        ),
        (compact(id=1, method="m"), -32600, "missing field `jsonrpc`"),
        (compact(jsonrpc="1.0", id=1, method="m"), -32600, 'unsupported jsonrpc version: expected "2.0", got "1.0"'),
    ],
)
def test_what_is_no_message_is_answered_as_by_the_cli(body: bytes, code: int, said: str) -> None:
    with pytest.raises(BadMessage) as caught:
        wire.head(body)
    assert caught.value.code == code
    assert json.loads(caught.value.reply) == {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": said}}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{nope",
        b'{"jsonrpc":"2.0","id":1,"method":"m"} x',
        rb'{"jsonrpc":"2.0","id":"\ud800","method":"m"}',
        b'{"jsonrpc":"2.0","id":"\xff","method":"m"}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":' + b"[" * 100_000 + b"}",
    ],
    ids=["empty", "malformed", "trailing", "lone surrogate", "not UTF-8", "deep"],
)
def test_what_is_not_json_is_a_parse_error(body: bytes) -> None:
    with pytest.raises(BadMessage) as caught:
        wire.head(body)
    assert caught.value.code == -32700


@pytest.mark.parametrize("value", [b'"\xff"', b"9" * 10_000], ids=["not UTF-8", "too many digits"])
def test_parameters_that_cannot_be_read_are_a_parse_error(value: bytes) -> None:
    with pytest.raises(BadMessage) as caught:
        wire.head(b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":' + value + b"}}")
    assert caught.value.code == -32700


@given(body=st.binary(max_size=100))
def test_any_body_has_a_head_or_is_bad(body: bytes) -> None:
    with suppress(BadMessage):
        wire.head(body)


# Ids


@pytest.mark.parametrize("new", [b"42", b'"u-1"'])
@pytest.mark.parametrize("old", ID_FORMS)
@pytest.mark.parametrize("rest", [b'"result":{"id":1,"a":[1.0,"\\u00e9"]}', b'"error":{"code":-1,"message":"x"}'])
def test_a_servers_id_is_exchanged_and_the_rest_stays(old: bytes, new: bytes, rest: bytes) -> None:
    body = b'{"jsonrpc":"2.0","id":' + old + b"," + rest + b"}"
    assert wire.reply_id(body) == old
    renumbered = wire.with_id(body, new)
    assert json.loads(renumbered) == json.loads(body) | {"id": json.loads(new)}
    if b"\\" not in old:
        assert renumbered == b'{"jsonrpc":"2.0","id":' + new + b"," + rest + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":1,"jsonrpc":"2.0","result":{}}',
        b'{ "jsonrpc": "2.0", "id": 1, "result": {} }',
        b'{"jsonrpc":"2.0","id":1 ,"result":{}}',
    ],
)
def test_another_form_of_a_servers_frame_is_understood_as_well(body: bytes) -> None:
    assert wire.reply_id(body) == b"1"
    assert json.loads(wire.with_id(body, b'"n"')) == {"jsonrpc": "2.0", "id": "n", "result": {}}


@pytest.mark.parametrize(
    "body",
    [
        compact(jsonrpc="2.0", id=17, error={"code": 1}),
        compact(jsonrpc="2.0", id=17, method="m", params={"x": 1}),
        compact(jsonrpc="2.0", method="m", params={"id": 17, "result": 1}),
        b'{"id":17,"jsonrpc":"2.0","result":{}}',
        b'{"jsonrpc":"2.0","id": 17 ,"result":{}}',
        b'{"jsonrpc":"2.0","id":17,"x":{"y":1,"result":2}}',
    ],
)
def test_only_a_good_reply_in_the_known_form_is_passed_on_unread(body: bytes) -> None:
    assert body[wire.ID_BEGIN : wire.good_id_end(body)] != b"17"  # what is looked up among our own ids, and not found
    known = compact(jsonrpc="2.0", id=17, result={"result": 1})
    end = wire.good_id_end(known)
    assert known[wire.ID_BEGIN : end] == b"17"
    assert wire.good_with_id(known, end, b'"u"') == known.replace(b"17", b'"u"')


def test_a_clients_reply_is_written_anew() -> None:
    twice = b'{"jsonrpc":"2.0","id":5,"method2":1,"result":{"a":1,"a":2},"id":7}'
    assert wire.renumbered(twice, b"3") == b'{"jsonrpc":"2.0","id":3,"result":{"a":2}}'
    refused = compact(jsonrpc="2.0", id=5, error={"code": -32601, "message": "no", "data": {"x": 1}, "more": 1})
    expected = b'{"jsonrpc":"2.0","id":3,"error":{"code":-32601,"message":"no","data":{"x":1}}}'
    assert wire.renumbered(refused, b"3") == expected
    with pytest.raises(BadMessage):
        wire.renumbered(compact(jsonrpc="2.0", id=5, error="no"), b"3")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            compact(jsonrpc="2.0", method="session.event", params={"sessionId": "s", "event": {"type": "a.b"}}),
            EventHead("s", "a.b"),
        ),
        (
            compact(method="session.event", params={"event": {"type": "a", "sessionId": "no"}, "sessionId": "s"}),
            EventHead("s", "a"),
        ),
        (
            rb'{"jsonrpc":"2.0","method":"session.event","params":{"sessionId":"s","event":{"type":"\u0061"}}}',
            EventHead("s", "a"),
        ),
        (compact(jsonrpc="2.0", method="other", params={"sessionId": "s", "event": {"type": "a"}}), None),
        (compact(jsonrpc="2.0", method="session.event", params={"sessionId": "s"}), None),
        (b"{", None),
    ],
)
def test_session_and_type_of_an_event_are_found(body: bytes, expected: EventHead | None) -> None:
    assert wire.event_head(body) == expected


def test_what_is_composed_is_in_the_clis_own_form() -> None:
    assert wire.request(1, "m", {"a": "é"}) == '{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"é"}}'.encode()
    assert wire.notification("m", {}) == b'{"jsonrpc":"2.0","method":"m","params":{}}'
    assert wire.good_reply(b'"u"', None) == b'{"jsonrpc":"2.0","id":"u","result":null}'
    assert wire.error_reply(None, -1, "x") == b'{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"x"}}'
    assert wire.result(wire.good_reply(b"1", [1])) == [1]
    assert wire.error(wire.error_reply(b"1", -1, "x", {"d": 1})) == (-1, "x", {"d": 1})
