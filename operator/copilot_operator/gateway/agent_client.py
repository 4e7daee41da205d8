"""The agent beside a server, as a gateway asks it: one HTTP client for all that it decides (``permits``, ``locks``,
``openings``)."""

import asyncio
from typing import Any, Final

import httpx

LAST_WORDS_S: Final = 10.0
MOST_SAID: Final = 300  # of what an agent says that went wrong

ERRORS: Final = (httpx.HTTPError, ValueError, KeyError, TypeError)
"""What asking an agent, and reading what it says, raises."""


class AgentClient:
    """``url`` is the agent's, without a path."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: httpx.AsyncClient | None = None  # made when it is needed: most pools ask agents nothing
        self._closing: asyncio.Task[None] | None = None

    async def get(self, page: str, *, timeout_s: float) -> Any:
        """The JSON of a page. Raises httpx.HTTPError, and ValueError with what an agent says that refuses."""
        if self._client is None:  # agents speak plain HTTP; to read certificates would stop the loop for a while
            self._client = httpx.AsyncClient(verify=False)
        answer = await self._client.get(self._url + page, timeout=timeout_s)
        if answer.is_error:
            raise ValueError(f"its agent says: {answer.text.strip()[:MOST_SAID]}")
        return answer.json()

    def end(self, after: "asyncio.Task[None] | None" = None) -> None:
        """The server has left. ``after``: what is to be told it still, if it is there."""
        self._closing = asyncio.get_running_loop().create_task(self._close(after))

    async def _close(self, after: "asyncio.Task[None] | None") -> None:
        if after is not None:
            await asyncio.wait({after}, timeout=LAST_WORDS_S)
        if self._client is not None:
            await self._client.aclose()
