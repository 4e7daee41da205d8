"""A client that sends whatever it likes gets nothing of another tenant, changes nothing of it, and ends nothing.

Frames are built from what a gateway could read differently from the CLI behind it: keys twice or escaped, ids of other
forms, broken JSON, headers in other spellings, requests cut at any byte, several connections mixed.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from copilot_operator.gateway.rules.methods import Verdict, rule, table
from tests.contract.gateway_bed import Gateway, code_of, token_of
from tests.contract.two_tenants import SECRET, VICTIM, Bed, two_tenants

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES: Final = 300
ANSWER_S: Final = 20.0
TOKEN: Final = token_of("mine")
CODE: Final = code_of("other")


@st.composite
def mostly(draw: st.DrawFn, usual: st.SearchStrategy[Any], rare: st.SearchStrategy[Any], one_in: int) -> Any:
    """``one_of`` takes all its branches for equally good."""
    return draw(rare) if draw(st.integers(1, one_in)) == one_in else draw(usual)


ids = mostly(
    st.sampled_from([CODE + VICTIM, VICTIM]),
    st.one_of(
        st.sampled_from([f"{CODE}{CODE}{VICTIM}", VICTIM.upper(), f"../{CODE}{VICTIM}", CODE, ""]),
        st.builds(lambda n: CODE + "a" * n, st.integers(200, 260)),
        st.text(max_size=12),
        st.none() | st.integers() | st.lists(st.just(CODE + VICTIM), max_size=2),
    ),
    3,
)
request_ids = mostly(
    st.integers(1, 2**53),
    st.integers(-3, 0) | st.text(max_size=8) | st.none() | st.floats(allow_nan=False) | st.just([]),
    8,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | ids,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
forwarded = [method for method in table().methods if rule(method, "Shared").verdict is Verdict.FORWARD]
methods = mostly(
    st.sampled_from(forwarded),
    st.sampled_from([*table().methods, "session.sendAndWait", "rpc.discover", "$/cancelRequest"]),
    4,
)
keys = mostly(
    st.just('"sessionId"'),
    st.sampled_from(['"s\\u0065ssionId"', '"sessionIds"', '"session_id"', '"prefix"', '"toSessionId"']),
    3,
)


@st.composite
def params(draw: st.DrawFn) -> str:
    """The text of an object, written by hand: keys may come twice, in any order, and escaped."""
    members = [f"{draw(keys)}:{json.dumps(draw(ids))}" for _ in range(draw(st.integers(1, 3)))]
    members += [
        f"{json.dumps(name)}:{json.dumps(draw(values))}" for name in draw(st.lists(st.text(max_size=6), max_size=2))
    ]
    return "{" + ",".join(draw(st.permutations(members))) + "}"


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    method, id = json.dumps(draw(methods)), json.dumps(draw(request_ids))
    members = ['"jsonrpc":"2.0"', f'"id":{id}', f'"method":{method}', f'"params":{draw(params())}']
    if draw(st.integers(1, 4)) == 4:
        members.append(f'"params":{draw(params())}')
    if draw(st.integers(1, 20)) == 20:
        members.append('"result":{}')
    return ("{" + ",".join(draw(st.permutations(members))) + "}").encode()


bodies = mostly(
    requests(),
    st.one_of(
        st.lists(requests(), max_size=2).map(lambda each: b"[" + b",".join(each) + b"]"),
        st.binary(max_size=40),
        requests().map(lambda body: body[: len(body) // 2]),
    ),
    12,
)
headers = st.sampled_from(
    [b"Content-Length: %d\r\n\r\n"] * 6 + [b"content-length:%d\r\n\r\n", b"X: y\r\nContent-Length: %d\r\n\r\n"]
)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """What one connection sends, in pieces."""
    stream = b"".join(draw(headers) % len(body) + body for body in draw(st.lists(bodies, min_size=1, max_size=8)))
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=3)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bed]:
    async with two_tenants(tmp_path_factory.mktemp("fuzz")) as made:
        yield made


async def test_no_stream_of_frames_reaches_another_tenant(bed: Bed) -> None:
    loop = asyncio.get_running_loop()

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(streams(), min_size=1, max_size=3), st.sampled_from([True, True, True, False]))
    def fuzz(connections: list[list[bytes]], authenticated: bool) -> None:
        received = b"".join(exchange(bed.gateway, connections, authenticated))
        assert SECRET.encode() not in received
        asyncio.run_coroutine_threadsafe(still_well(bed), loop).result(ANSWER_S)

    await asyncio.to_thread(fuzz)


async def still_well(bed: Bed) -> None:
    """The other tenant is as before, and the one that misbehaves may connect again."""
    await bed.assert_untouched()
    assert (await bed.mine("ping"))["protocolVersion"] == 3


def exchange(gateway: Gateway, connections: list[list[bytes]], authenticated: bool) -> list[bytes]:
    """Send the streams side by side; all that came until each connection had answered a last ping or ended."""
    opened = [socket.create_connection((gateway.host, gateway.port), timeout=ANSWER_S) for _ in connections]
    try:
        if authenticated:
            for each in opened:
                each.sendall(framed("connect", 0, {"token": TOKEN}))
                received_until(each, b'"id":0,')
        for turn in range(max(map(len, connections))):
            for each, pieces in zip(opened, connections, strict=True):
                if turn < len(pieces):
                    with suppress(OSError):  # closed for what was sent before
                        each.sendall(pieces[turn])
        for each in opened:
            with suppress(OSError):
                each.sendall(framed("ping", 987654321, {}))
        return [received_until(each, b'"id":987654321,') for each in opened]
    finally:
        for each in opened:
            each.close()


def framed(method: str, id: int, params: dict[str, Any]) -> bytes:
    body = json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def received_until(connection: socket.socket, end: bytes) -> bytes:
    """All bytes up to those, or up to the connection's end; half a frame sent before may have swallowed the ping."""
    connection.settimeout(0.5)
    received = b""
    with suppress(OSError):
        while end not in received:
            if not (data := connection.recv(65536)):
                break
            received += data
    return received
