"""Whether a CLI server is alive: a fresh connection, ``connect``, ``ping``, and a reading that says what came of it.

A fresh connection each time, because an old one proves nothing about whether new clients get in.
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum

from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ProtocolError,
    RpcError,
    ServerError,
    ServerRefused,
    ServerSilent,
)
from copilot_operator.rpc.framing import KIB

_MAX_ANSWER_BYTES = 64 * KIB  # both answers have under 300; lifecycle notifications that pass by, under 1 KiB


class Failure(StrEnum):
    """Why a server gave no good answer: one word for programs."""

    REFUSED = "Refused"
    SILENT = "Silent"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    PROTOCOL_ERROR = "ProtocolError"
    LOST = "Lost"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one ping found.

    ``latency_s`` is the time from sending ``ping`` to its answer, without connecting. ``failure`` is None exactly
    when ``ok``; ``message`` then says for people what went wrong.
    """

    ok: bool
    latency_s: float | None = None
    version: str | None = None
    failure: Failure | None = None
    message: str = ""

    @property
    def answered(self) -> bool:
        """Whether a CLI server is alive there at all; one that rejects our token is."""
        return self.ok or self.failure is Failure.AUTHENTICATION_FAILED


async def ping(host: str, port: int, token: str | None, timeout_s: float) -> Reading:
    """Take a reading of one server within ``timeout_s`` in all. Raises nothing but CancelledError."""
    try:
        return await _measure(host, port, token, timeout_s)
    except ServerSilent as error:
        return Reading(ok=False, failure=Failure.SILENT, message=f"no answer to {error.what} within {timeout_s:.3g} s")
    except ServerError as error:
        return Reading(ok=False, failure=failure_of(error), message=str(error))


async def _measure(host: str, port: int, token: str | None, timeout_s: float) -> Reading:
    clock = asyncio.get_running_loop().time
    ends_at = clock() + timeout_s
    connection = await Connection.open(
        host, port, timeout_s=timeout_s, max_body_bytes=_MAX_ANSWER_BYTES, skip_oversized=True
    )
    try:
        info = await connection.connect(token, timeout_s=ends_at - clock())
        sent_at = clock()
        answer = await connection.call("ping", {}, timeout_s=ends_at - sent_at)
        if not isinstance(answer, dict):
            raise ProtocolError(f"expected an object in answer to ping, found {type(answer).__name__}")
        return Reading(ok=True, latency_s=clock() - sent_at, version=info.version)
    finally:
        connection.abort()


def failure_of(error: ServerError) -> Failure:
    """The word for an error; an error reply to ``connect`` or ``ping`` is not this protocol."""
    match error:
        case ServerRefused():
            return Failure.REFUSED
        case ServerSilent():
            return Failure.SILENT
        case AuthenticationFailed():
            return Failure.AUTHENTICATION_FAILED
        case ConnectionLost():
            return Failure.LOST
        case ProtocolError() | RpcError():
            return Failure.PROTOCOL_ERROR
        case _:
            raise AssertionError(f"a kind of error without a word: {type(error).__name__}")
