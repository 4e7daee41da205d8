"""An authenticated client of one tenant: its number, what it was asked, and how much it has under way."""

from collections.abc import Mapping
from typing import Any, Protocol

from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.session.actions import ClientId, Reverse


class Wire(Protocol):
    """The client's connection, as far as answers need it."""

    def send(self, body: bytes) -> None:
        """Write one message; after the end of the connection it goes nowhere."""

    def abort(self, why: str) -> None:
        """End the connection now."""

    def listen(self, does: bool) -> None:
        """Read the client's requests, or let them wait."""


class Client:
    """``number`` is never used again within a process."""

    def __init__(self, number: ClientId, connection: Wire) -> None:
        self.number, self.connection = number, connection
        self.under_way = 0  # requests that have not been answered
        self.reads = True
        self._asked: dict[bytes, tuple[str, Reverse]] = {}
        self._last_id = 0

    def answer(self, body: bytes) -> None:
        """Answer one of the requests that it has under way."""
        self.under_way -= 1
        self.connection.send(body)

    def ask(self, session_id: str, reverse: Reverse, params: Mapping[str, Any]) -> None:
        """Put a server's request to it, under a number of this connection."""
        self._last_id += 1
        self._asked[b"%d" % self._last_id] = session_id, reverse
        self.connection.send(wire.request(self._last_id, reverse.method, params))

    def answered(self, id: bytes) -> tuple[str, Reverse] | None:
        """Which request of which session (the client's id) it has answered; None: none."""
        return self._asked.pop(id, None)

    def cancel(self, link: int, reverse_id: int | str) -> None:
        """The server no longer waits for an answer."""
        for id, (_, reverse) in list(self._asked.items()):
            if (reverse.link, reverse.id) == (link, reverse_id):
                del self._asked[id]
                self.connection.send(wire.notification("$/cancelRequest", {"id": int(id)}))
