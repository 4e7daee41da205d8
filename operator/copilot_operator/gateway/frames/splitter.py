"""``Content-Length`` frames out of a client's or a server's bytes, fast and bounded. Pure.

``rpc.framing`` reads headers of every form; here the form that CLIs and SDKs write has a short way, and what is
said of a bad header is said in the CLI's words.
"""

import re
from typing import Final

from copilot_operator.gateway.frames.compose import error_reply
from copilot_operator.rpc.errors import PARSE_ERROR, ProtocolError
from copilot_operator.rpc.framing import MAX_HEADER_BYTES, content_length, header_field

_HEADER_END: Final = b"\r\n\r\n"
_known_header: Final = re.compile(rb"Content-Length: ([0-9]{1,18})\r\n\r\n").match


class BadFrame(ProtocolError):
    """The stream is no stream of frames; ``reply`` is the body of what a CLI says before it closes."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.reply = error_reply(None, PARSE_ERROR, message)


class Splitter:
    """Cuts a stream into the bodies of its frames; bounded, and quick for the header that CLIs and SDKs write.

    ``max_body_bytes`` may be set at any time, and holds for frames whose header has not been read.
    """

    def __init__(self, *, max_body_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self._kept = bytearray()  # of a frame that has begun
        self._due = 0  # bytes of that frame in all, header included; 0: its header is not complete

    @property
    def in_frame(self) -> bool:
        """Whether part of a frame is kept: its rest is due."""
        return bool(self._kept)

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that ``data`` completes. Raises BadFrame; then the position in the stream is lost.

        Frames that were complete before the bad one are lost with it: the connection ends in either case.
        """
        if self._kept:
            self._kept += data
            if len(self._kept) < self._due:
                return []
            data = bytes(self._kept)
            self._kept.clear()
            self._due = 0
        bodies = []
        at, size, most = 0, len(data), self.max_body_bytes
        while at < size:
            known = _known_header(data, at)
            if known is not None:
                begin, length = known.end(), int(known[1])
            else:
                end = data.find(_HEADER_END, at, at + MAX_HEADER_BYTES)
                if end < 0:
                    _check_unfinished(data[at : at + MAX_HEADER_BYTES])
                    break
                begin, length = end + len(_HEADER_END), _announced(data[at:end])
            if length > most:
                raise BadFrame(f"body of {length} bytes, expected no more than {most}")
            after = begin + length
            if after > size:
                self._due = after - at
                break
            bodies.append(data[begin:after])
            at = after
        if at < size:
            self._kept += data[at:]
        return bodies


def _announced(header: bytes) -> int:
    _check_lines(header.split(b"\r\n"))
    try:
        return content_length(header)
    except ProtocolError as error:
        raise BadFrame(str(error)) from error


def _check_unfinished(header: bytes) -> None:
    """Whole lines are looked at early: a peer of another protocol would else look like one that is silent."""
    if len(header) >= MAX_HEADER_BYTES:
        raise BadFrame(f"Message header exceeds maximum length {MAX_HEADER_BYTES}")
    _check_lines(header.split(b"\r\n")[:-1])


def _check_lines(lines: list[bytes]) -> None:
    for line in lines:
        try:
            header_field(line)
        except ProtocolError as error:
            raise BadFrame("Message header must separate key and value using ':'") from error
