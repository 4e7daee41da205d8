"""``Content-Length`` frames out of bytes and back (LSP 3.17, "Base Protocol"). No I/O.

Every buffer has a bound: the header, because a peer that never ends it must be cut off; the body, because the
peer must not choose how much we keep in memory.
"""

from typing import Final

from copilot_operator.rpc.errors import ProtocolError

KIB: Final = 1024
MIB: Final = 1024 * KIB

MAX_HEADER_BYTES: Final = 4 * KIB  # a CLI server's header has under 40
MAX_BODY_BYTES: Final = 16 * MIB  # a snapshot of a conversation as long as a model can take stays below

_END_OF_HEADER: Final = b"\r\n\r\n"


class FrameReader:
    """Cuts a stream into the bodies of its frames.

    With ``skip_oversized`` a body above ``max_body_bytes`` is dropped while it arrives, in constant memory, and
    counted in ``skipped``; without it such a body is an error before any of it is kept.
    After a ProtocolError the position in the stream is lost: the connection must be closed.
    """

    def __init__(self, *, max_body_bytes: int = MAX_BODY_BYTES, skip_oversized: bool = False) -> None:
        self.skipped = 0
        self._max_body_bytes = max_body_bytes
        self._skip_oversized = skip_oversized
        self._buffer = bytearray()
        self._body_bytes: int | None = None  # of the frame whose header has been read
        self._left_to_skip = 0

    def feed(self, data: bytes) -> None:
        """Take in what was received; ``take`` then gives the frames that are complete."""
        if self._left_to_skip:
            dropped = min(self._left_to_skip, len(data))
            self._left_to_skip -= dropped
            data = data[dropped:]
        self._buffer += data

    def take(self) -> bytes | None:
        """The body of the next complete frame; None: feed more."""
        while self._body_bytes is None:
            header = self._take_header()
            if header is None:
                return None
            self._begin_body(content_length(header))
        if len(self._buffer) < self._body_bytes:
            return None
        body = bytes(self._buffer[: self._body_bytes])
        del self._buffer[: self._body_bytes]
        self._body_bytes = None
        return body

    def _take_header(self) -> bytes | None:
        end = self._buffer.find(_END_OF_HEADER, 0, MAX_HEADER_BYTES)
        if end < 0:
            if len(self._buffer) >= MAX_HEADER_BYTES:
                raise ProtocolError(f"header does not end within {MAX_HEADER_BYTES} bytes")
            # Whole lines are looked at early: a peer of another protocol that greets and waits (SSH, SMTP) would
            # otherwise look like one that is merely silent.
            self._check_lines(bytes(self._buffer[: max(0, self._buffer.rfind(b"\r\n"))]))
            return None
        header = bytes(self._buffer[:end])
        del self._buffer[: end + len(_END_OF_HEADER)]
        return header

    @staticmethod
    def _check_lines(lines: bytes) -> None:
        for line in lines.split(b"\r\n") if lines else ():
            header_field(line)

    def _begin_body(self, length: int) -> None:
        if length <= self._max_body_bytes:
            self._body_bytes = length
        elif self._skip_oversized:
            self.skipped += 1
            here = min(length, len(self._buffer))
            del self._buffer[:here]
            self._left_to_skip = length - here
        else:
            raise ProtocolError(f"body of {length} bytes, expected no more than {self._max_body_bytes}")


def header_field(line: bytes) -> tuple[bytes, bytes]:
    """Name (in lower case) and value of one header line."""
    name, colon, value = line.partition(b":")
    if not colon:
        raise ProtocolError(f"header line without a colon: {line[:60]!r}")
    return name.strip().lower(), value.strip()


def content_length(header: bytes) -> int:
    """The length that a header (its lines, without the empty one) announces for its body, in bytes."""
    lengths = {value for name, value in map(header_field, header.split(b"\r\n")) if name == b"content-length"}
    if len(lengths) != 1:
        raise ProtocolError(f"expected one Content-Length, found {len(lengths)}")
    value = lengths.pop()
    if not value.isdigit() or len(value) > 18:  # 18 digits: an exabyte; more is an attack on int()
        raise ProtocolError(f"Content-Length is not a length: {value[:60]!r}")
    return int(value)


def frame(body: bytes) -> bytes:
    """One frame, ready to be sent."""
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
