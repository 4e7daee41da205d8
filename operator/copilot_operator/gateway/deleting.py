"""``sessions.bulkDelete`` where all servers have all sessions: each is deleted by the server that has claimed it."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from copilot_operator.gateway.loads import entered, sent
from copilot_operator.gateway.server import Server
from copilot_operator.rpc.errors import ServerError

log = logging.getLogger(__name__)

METHOD: Final = "sessions.bulkDelete"
AT_ONCE: Final = 8
WITHIN_S: Final = 20.0
AGAIN_S: Final = 0.2
CALL_S: Final = 20.0


async def deleted(ids: Iterable[str], place: Callable[[str], Server | None]) -> list[Any]:
    """The results of servers; a session that could not be claimed or deleted in time is in none of them.

    ``place`` names the server to ask for a session (its own id), which may change with what agents say.
    """
    busy, ends_at = asyncio.Semaphore(AT_ONCE), asyncio.get_running_loop().time() + WITHIN_S

    async def delete(id: str) -> Any:
        async with busy:
            while (left_s := ends_at - asyncio.get_running_loop().time()) > 0:
                if server := place(id):
                    link = server.utility
                    failure, again, permit = await entered(server.permits, link, id, None, within_s=left_s)
                    if failure is None:
                        return await sent(permit, link, METHOD, {"sessionIds": [id]}, timeout_s=CALL_S)
                    if not again:
                        break
                await asyncio.sleep(AGAIN_S)
        return None

    found = await asyncio.gather(*map(delete, dict.fromkeys(ids)), return_exceptions=True)
    for each in found:
        if isinstance(each, ServerError):
            log.warning("a session could not be deleted: %s", each)
        elif isinstance(each, BaseException):
            raise each
    return [each for each in found if isinstance(each, dict)]
