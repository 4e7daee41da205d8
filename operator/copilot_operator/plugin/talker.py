"""A connection to a tenant's endpoint for a terminal: opened through a forward, and opened again when it is lost."""

import asyncio
import queue
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from copilot_operator.plugin.endpoint import Endpoint
from copilot_operator.plugin.errors import PluginError
from copilot_operator.plugin.forward import START_S, forwarded
from copilot_operator.plugin.kube import Kubectl
from copilot_operator.plugin.loop import LoopThread
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import AuthenticationFailed, ServerError

CONNECT_S: Final = 10.0
CALL_S: Final = 60.0  # a gateway holds a request this long while a server starts
OPEN_S: Final = START_S + 3 * CONNECT_S + CALL_S
LOST: Final = "connection.lost"  # beside the types of session events
Event = tuple[str, Mapping[str, Any]]  # session, event


class Talker:
    """Calls from the terminal's thread; events of sessions come into ``events``."""

    def __init__(
        self, loop: LoopThread, kube: Kubectl, endpoint: Endpoint, token: Callable[[], str], *, call_s: float = CALL_S
    ) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.endpoint = endpoint
        self._loop, self._kube, self._token, self._call_s = loop, kube, token, call_s
        self._connection: Connection | None = None
        self._stack = AsyncExitStack()
        self.version: str | None = None

    def open(self) -> None:
        """Connect, again if need be. Raises PluginError."""
        token = self._token()
        try:
            self._loop.run(self._open(token), OPEN_S)
        except ServerError as error:
            raise _told(self.endpoint, error) from None

    def call(self, method: str, timeout_s: float | None = None, **params: Any) -> Any:
        """Raises ServerError."""
        connection = self._connection
        assert connection is not None, "open it first"
        seconds = timeout_s or self._call_s
        return self._loop.run(connection.call(method, params, timeout_s=seconds), seconds + CONNECT_S)

    def close(self) -> None:
        self._loop.run(self._close(), CONNECT_S)

    async def _open(self, token: str) -> None:
        await self._close()
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(forwarded(self._kube, self.endpoint))
            connection = await Connection.open("127.0.0.1", port, timeout_s=CONNECT_S, on_notification=self._notified)
            stack.push_async_callback(connection.close)
            self.version = (await connection.connect(token, timeout_s=self._call_s)).version
            self._stack = stack.pop_all()
        self._connection = connection
        self._stack.callback(asyncio.create_task(self._watch(connection), name="watch").cancel)

    async def _watch(self, connection: Connection) -> None:
        await connection.wait_closed()
        self.events.put(("", {"type": LOST}))

    async def _close(self) -> None:
        stack, self._stack, self._connection = self._stack, AsyncExitStack(), None
        await stack.aclose()

    def _notified(self, method: str, params: Any) -> None:
        if method == "session.event" and isinstance(params, dict) and isinstance(params.get("event"), dict):
            self.events.put((str(params.get("sessionId", "")), params["event"]))


def _told(endpoint: Endpoint, error: ServerError) -> PluginError:
    if isinstance(error, AuthenticationFailed):
        return PluginError(
            f"{endpoint.what} does not take the token of Secret {endpoint.secret}: {error.message}. If the token has "
            f"just changed try again; else see: kubectl copilot explain {endpoint.tenant} -n {endpoint.namespace}"
        )
    notice = f" ({endpoint.notice})" if endpoint.notice else ""
    return PluginError(
        f"{endpoint.what} does not answer for tenant {endpoint.tenant}{notice}: {error}; "
        f"see: kubectl copilot explain {endpoint.tenant} -n {endpoint.namespace}"
    )
