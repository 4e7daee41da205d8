"""What is to be written in one round of the event loop, written at once: a write costs more than most messages."""

import asyncio
from typing import Final

AT_ONCE_BYTES: Final = 256 * 1024  # more is written as it comes, so that the transport's own bounds are seen in time


class Outbox:
    """Messages on their way to one transport, in order."""

    __slots__ = ("_frames", "_loop", "_size")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._frames: list[bytes] = []
        self._size = 0

    def add(self, transport: asyncio.Transport, body: bytes) -> None:
        """Write one message, at the latest when the present round of the loop is over."""
        if not self._frames:
            self._loop.call_soon(self.flush, transport)
        self._frames.append(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._size += len(body)
        if self._size > AT_ONCE_BYTES:
            self.flush(transport)

    def flush(self, transport: asyncio.Transport) -> None:
        """Write what there is now."""
        if self._frames:
            frames, self._frames, self._size = self._frames, [], 0
            if not transport.is_closing():
                transport.write(b"".join(frames))
