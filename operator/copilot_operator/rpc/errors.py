"""What can go wrong with a call to a CLI server, by who is at fault.

ServerError
├── ServerRefused          nobody listens there, or the network says no
├── ServerSilent           no answer within the time given
├── ConnectionLost         the connection ended before the answer came
├── ProtocolError          the peer does not speak this protocol; the connection is of no more use
└── RpcError               the server answered with an error
    └── AuthenticationFailed   ... namely that the connection token is missing or wrong
"""

from typing import Any, Final

PARSE_ERROR: Final = -32700
METHOD_NOT_FOUND: Final = -32601
AUTHENTICATION_REQUIRED: Final = -32001  # any method before a good ``connect``
AUTHENTICATION_FAILED: Final = -32002  # ``connect`` with a wrong or missing token


class ServerError(Exception):
    """A call to a CLI server that brought no result."""


class ServerRefused(ServerError):
    """No connection could be opened to ``host:port``."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"cannot connect to {host}:{port}: {reason}")
        self.host, self.port, self.reason = host, port, reason


class ServerSilent(ServerError):
    """No answer to ``what`` came in time; seconds waited in ``waited_s``."""

    def __init__(self, what: str, waited_s: float) -> None:
        super().__init__(f"no answer to {what} within {waited_s:.3g} s")
        self.what, self.waited_s = what, waited_s


class ConnectionLost(ServerError):
    """The connection ended while an answer was outstanding, or before the call was made."""


class ProtocolError(ServerError):
    """Bytes or messages that this protocol does not allow."""


class RpcError(ServerError):
    """The server's error reply to ``method``."""

    def __init__(self, method: str, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{method}: {message} ({code})")
        self.method, self.code, self.message, self.data = method, code, message, data


class AuthenticationFailed(RpcError):
    """The server does not take our connection token. It is alive all the same."""


def error_reply(method: str, code: int, message: str, data: Any = None) -> RpcError:
    """The error to raise for an error reply: typed, so that nobody needs to compare codes."""
    rejected = code in (AUTHENTICATION_REQUIRED, AUTHENTICATION_FAILED)
    return (AuthenticationFailed if rejected else RpcError)(method, code, message, data)
