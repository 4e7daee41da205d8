"""What one core does with messages of 1 KB in the gateway's own code, sockets left out: messages a second.

``python -m tests.scale.gateway_wire`` prints one JSON line. ``copy_msgs_s``, a bare copy of the message, is the floor.
"""

import json
import time
from collections.abc import Callable
from typing import Any, Final

from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.frames.wire import Splitter
from copilot_operator.gateway.rules.ids import NameSpace

CODE: Final = "k3f9x0q7m2zp"
SIZE_BYTES: Final = 1024
ROUND_S: Final = 0.4
ROUNDS: Final = 5  # the best counts: other work on the machine only ever takes away
BATCH: Final = 16  # frames that come with one read


def message(**fields: Any) -> bytes:
    """A message of about ``SIZE_BYTES`` in the CLI's form."""
    body = json.dumps(fields, separators=(",", ":"))
    return body.replace("PAD", "x" * (SIZE_BYTES - len(body) + 3)).encode()


def pushed(session: str, type: str) -> bytes:
    """A session.event as a server writes it."""
    event = {"type": type, "data": {"deltaContent": "PAD", "sessionId": session}, "id": "e-1", "parentId": "e-0"}
    return message(jsonrpc="2.0", method="session.event", params={"sessionId": session, "event": event})


def per_second(work: Callable[[], object], messages: int = 1) -> int:
    """Messages a second of a call that handles so many."""
    best = 0.0
    for _ in range(ROUNDS):
        calls, started = 0, time.perf_counter()
        while (passed_s := time.perf_counter() - started) < ROUND_S:
            for _ in range(200):
                work()
            calls += 200
        best = max(best, calls * messages / passed_s)
    return round(best)


def measure() -> dict[str, int]:
    """One line's figures."""
    space = NameSpace(CODE)
    delta, start = pushed(f"{CODE}chat-1", "assistant.message_delta"), pushed(f"{CODE}chat-1", "session.start")
    foreign = pushed("000000000000chat-1", "assistant.message_delta")
    request = message(
        jsonrpc="2.0", id="8f14e45f-ceea-467f", method="session.send", params={"sessionId": "a", "p": "PAD"}
    )
    reply = message(jsonrpc="2.0", id=17, result={"text": "PAD"})
    stream = b"".join(b"Content-Length: %d\r\n\r\n%b" % (len(delta), delta) for _ in range(BATCH))
    splitter = Splitter(max_body_bytes=SIZE_BYTES * 2)

    def to_server() -> bytes:
        head = wire.head(request)
        assert head.method is not None
        return wire.request(17, head.method, space.to_server(head.method, wire.params(request)))

    assert space.event(delta) == delta.replace(CODE.encode(), b"", 1)
    return {
        "copy_msgs_s": per_second(lambda: delta[:1] + delta[1:]),
        "split_msgs_s": per_second(lambda: splitter.feed(stream), BATCH),
        "head_msgs_s": per_second(lambda: wire.head(request)),
        "with_id_msgs_s": per_second(lambda: wire.with_id(reply, b'"8f14e45f-ceea-467f"')),
        "event_msgs_s": per_second(lambda: space.event(delta)),
        "event_foreign_msgs_s": per_second(lambda: space.event(foreign)),
        "event_decoded_msgs_s": per_second(lambda: space.event(start)),
        "session_event_msgs_s": per_second(lambda: space.session_event(delta)),
        "request_anew_msgs_s": per_second(to_server),
    }


if __name__ == "__main__":
    print(json.dumps({"bench": "gateway_wire", "bytes": SIZE_BYTES, **measure()}))
