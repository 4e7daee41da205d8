"""The TLS listener: connections until their handshakes are done. Behind it there is the same front door as without TLS.

It accepts them itself: who shakes hands counts as a stranger already, and gets the certificate of that moment.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

from copilot_operator.gateway.front import ClientConnection
from copilot_operator.gateway.house import Bounds, House

Contexts = Callable[[], ssl.SSLContext | None]  # what a new connection gets; None: there is no certificate

_BACKLOG: Final = 4096
_AGAIN_S: Final = 0.1  # when there are no file descriptors left: those who wait stay in the kernel's queue


class TlsListener:
    """Listens from the beginning, so that its port is known; serves while ``run`` runs. Raises OSError."""

    def __init__(self, house: House, bounds: Bounds, context: Contexts, host: str, port: int) -> None:
        self._house, self._bounds, self._context = house, bounds, context
        self._shaking: set[asyncio.Task[None]] = set()
        self._socket = socket.create_server((host, port), backlog=_BACKLOG)
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]

    async def run(self) -> None:
        """Take connections until cancelled; those that shake hands are ended then."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, address = await loop.sock_accept(self._socket)
                except OSError:
                    await asyncio.sleep(_AGAIN_S)
                    continue
                self._arrived(connection, str(address[0]))
        finally:
            self._socket.close()
            for each in self._shaking:
                each.cancel()

    def _arrived(self, connection: socket.socket, peer: str) -> None:
        client, context = ClientConnection(self._house, self._bounds), self._context()
        if context is None:
            connection.close()
            return
        if not client.arrives(peer):
            client.why_closed = "no room"
            connection.close()
            client.connection_lost(None)
            return
        shaking = asyncio.get_running_loop().create_task(self._shake_hands(client, connection, context), name="tls")
        self._shaking.add(shaking)
        shaking.add_done_callback(self._shaking.discard)

    async def _shake_hands(self, client: ClientConnection, connection: socket.socket, context: ssl.SSLContext) -> None:
        loop, within_s = asyncio.get_running_loop(), self._bounds.handshake_s
        try:
            await loop.connect_accepted_socket(
                lambda: client, connection, ssl=context, ssl_handshake_timeout=within_s, ssl_shutdown_timeout=within_s
            )
        except (OSError, asyncio.CancelledError) as error:  # SSLError is an OSError
            client.why_closed = _why(error)
            client.connection_lost(None)


def _why(error: BaseException) -> str:
    """ "" for who only opens a port and closes it: balancers look so whether it is there."""
    if isinstance(error, ssl.SSLError):
        return "no TLS"
    return "no TLS handshake" if isinstance(error, ConnectionAbortedError) else ""
