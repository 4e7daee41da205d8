"""Frames survive any cut of the stream, and every buffer has a bound."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.rpc.errors import ProtocolError
from copilot_operator.rpc.framing import MAX_HEADER_BYTES, FrameReader, frame


def bodies(reader: FrameReader, *pieces: bytes) -> list[bytes]:
    """Feed piece by piece and take whatever is complete after each."""
    taken = []
    for piece in pieces:
        reader.feed(piece)
        while (body := reader.take()) is not None:
            taken.append(body)
    return taken


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """The stream in pieces, cut at the places (taken modulo its length)."""
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


@given(sent=st.lists(st.binary(max_size=50)), places=st.lists(st.integers(0, 10_000)))
def test_frames_survive_any_cut_of_the_stream(sent: list[bytes], places: list[int]) -> None:
    # Written anew and not with frame(): a fault that both share would not be seen.
    stream = b"".join(b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body for body in sent)
    assert bodies(FrameReader(), *cut(stream, places)) == sent


@given(sent=st.lists(st.binary(max_size=30)), places=st.lists(st.integers(0, 10_000)))
def test_oversized_bodies_are_dropped_and_the_others_kept_whatever_the_cut(
    sent: list[bytes], places: list[int]
) -> None:
    reader = FrameReader(max_body_bytes=15, skip_oversized=True)
    taken = bodies(reader, *cut(b"".join(map(frame, sent)), places))
    assert taken == [body for body in sent if len(body) <= 15]
    assert reader.skipped == sum(len(body) > 15 for body in sent)


@given(junk=st.binary(max_size=200), places=st.lists(st.integers(0, 10_000)))
def test_any_bytes_give_frames_or_a_protocol_error_and_nothing_else(junk: bytes, places: list[int]) -> None:
    reader = FrameReader()
    try:
        taken = bodies(reader, *cut(junk, places))
    except ProtocolError:
        return
    assert sum(map(len, taken)) <= len(junk)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"content-length: 2", id="lower case"),
        pytest.param(b"CONTENT-LENGTH:2", id="upper case, no space"),
        pytest.param(b"Content-Type: application/vscode-jsonrpc\r\nContent-Length: 2", id="another header before"),
        pytest.param(b"Content-Length: 2\r\nX: y", id="another header after"),
        pytest.param(b"Content-Length: 2\r\nContent-Length: 2", id="said twice alike"),
    ],
)
def test_header_is_read_as_leniently_as_the_cli_reads_it(header: bytes) -> None:
    assert bodies(FrameReader(), header + b"\r\n\r\n{}") == [b"{}"]


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "without a colon"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "without a colon"),
        (b"Content-Length: -1\r\n\r\n", "not a length"),
        (b"Content-Length: 1_0\r\n\r\n", "not a length"),
        (b"Content-Length: +5\r\n\r\n", "not a length"),
        ("Content-Length: \u0665\r\n\r\n".encode(), "not a length"),
        (b"Content-Length: " + b"9" * 100 + b"\r\n\r\n", "not a length"),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "found 2"),
        (b"Content-Type: x\r\n\r\n", "found 0"),
        (b"Content-Length: 101\r\n\r\n", "expected no more than 100"),
        (b"x" * MAX_HEADER_BYTES, "header does not end"),
    ],
)
def test_a_stream_that_is_lost_says_why(stream: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        bodies(FrameReader(max_body_bytes=100), stream)


def test_a_body_that_is_too_long_is_refused_before_it_comes() -> None:
    reader = FrameReader(max_body_bytes=100)
    reader.feed(b"Content-Length: 99999999999\r\n\r\n")
    with pytest.raises(ProtocolError):
        reader.take()
