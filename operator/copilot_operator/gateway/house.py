"""What a front door and the house behind it say to each other, and the bounds on a client."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from copilot_operator.rpc.framing import KIB, MIB

if TYPE_CHECKING:
    from copilot_operator.gateway.front import ClientConnection


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one client may cost. Bytes and seconds."""

    body_before: int = 16 * KIB  # of a frame, before authentication: a token, and who the client is
    body: int = 16 * MIB
    handshake_s: float = 10.0  # until it is authenticated
    frame_s: float = 30.0  # from the first byte of a frame to its last
    unread: int = 1 * MIB  # what may wait for a client to read it, before its servers wait as well
    unread_s: float = 30.0  # how long it may be so


@dataclass(frozen=True, slots=True)
class Admitted:
    """The token is good. ``result`` answers ``connect``."""

    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rejected:
    """No such token. The answer comes ``after_s`` seconds later, and nothing else is read meanwhile."""

    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """The token is good, but there is no room; the connection ends with this error."""

    code: int
    message: str


Reception = Admitted | Rejected | TurnedAway


class House(Protocol):
    """What is behind the door. None of these may block or raise."""

    def came(self, client: "ClientConnection") -> bool:
        """Whether there is room for another connection at all."""

    def connect(self, client: "ClientConnection", token: str) -> Reception:
        """Whose token it is."""

    def requested(self, client: "ClientConnection", id: bytes, method: str, params: Any) -> None:
        """An authenticated client wants an answer under ``id`` (raw JSON)."""

    def replied(self, client: "ClientConnection", id: bytes, body: bytes) -> None:
        """The client answers a request of its server."""

    def notified(self, client: "ClientConnection", method: str, body: bytes) -> None:
        """The client tells something."""

    def reads(self, client: "ClientConnection", does: bool) -> None:
        """The client has stopped reading what it is sent, or reads again."""

    def gone(self, client: "ClientConnection") -> None:
        """The connection has ended, whoever ended it; called once for each that came."""
