"""What is to be written because of bytes that came in, written at once: a write costs more than most messages."""

import asyncio
from typing import Final
from weakref import WeakKeyDictionary

AT_ONCE_BYTES: Final = 256 * 1024  # more is written as it comes, so that the transport's own bounds are seen in time


class Round:
    """What one event loop has to write. Use it as a context while bytes that came in are handled.

    What is added at any other time (by a timer, a task) is written when the loop comes round.
    """

    def __init__(self) -> None:
        self._unsent: list[Outbox] = []
        self._handles_input = False

    def __enter__(self) -> None:
        self._handles_input = True

    def __exit__(self, *_: object) -> None:
        self._handles_input = False
        if self._unsent:
            self._flush()

    def add(self, outbox: "Outbox") -> None:
        """``outbox`` has something to write."""
        if not self._unsent and not self._handles_input:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(outbox)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        for outbox in unsent:
            outbox.flush()


_rounds: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Round]] = WeakKeyDictionary()


def current_round() -> Round:
    """That of the running loop: all connections write together."""
    loop = asyncio.get_running_loop()
    found = _rounds.get(loop)
    if found is None:
        found = _rounds[loop] = Round()
    return found


class Outbox:
    """Messages on their way to one transport, in order."""

    __slots__ = ("_parts", "_round", "_size", "_transport")

    def __init__(self, round: Round, transport: asyncio.Transport) -> None:
        self._round, self._transport = round, transport
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, body: bytes) -> None:
        """Write one message, at the latest when the present round is over."""
        if not self._parts:
            self._round.add(self)
        size = len(body)
        self._parts.append(b"Content-Length: %d\r\n\r\n" % size)
        self._parts.append(body)
        self._size += size
        if self._size > AT_ONCE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what there is now."""
        if self._parts:
            parts, self._parts, self._size = self._parts, [], 0
            if not self._transport.is_closing():
                self._transport.write(b"".join(parts))
