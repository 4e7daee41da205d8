"""What the gateway asks a server about one session on its own account. Ids are the server's. All raise ServerError."""

from typing import Any, Final

from copilot_operator.gateway.link import Link
from copilot_operator.gateway.rules.places import MARK
from copilot_operator.gateway.session.actions import StoredMessage
from copilot_operator.rpc.busy import Answer, Evidence, Standing, standing
from copilot_operator.rpc.errors import ConnectionLost, ProtocolError, ServerError

NEWEST: Final = 100


async def standing_of(link: Link, id: str, timeout_s: float) -> Standing:
    """Whether the session works; what could not be asked is uncounted. Raises ConnectionLost only."""

    async def ask(method: str) -> Answer:
        try:
            answer = await link.call(method, {"sessionId": id}, timeout_s=timeout_s)
        except ConnectionLost:
            raise
        except ServerError as error:
            return error
        return answer if isinstance(answer, dict) else None

    return standing(
        Evidence(
            activity=await ask("session.metadata.activity"),
            tasks=await ask("session.tasks.list"),
            queue=await ask("session.queue.pendingItems"),
            permissions=await ask("session.permissions.pendingRequests"),
            tools=await ask("session.tools.listPendingRequests"),
        )
    )


async def messages_of(link: Link, id: str, timeout_s: float) -> list[StoredMessage]:
    """The messages of a loaded session that bear a mark of the gateway, queued ones first; at most NEWEST."""
    queue = await link.call("session.queue.pendingItems", {"sessionId": id}, timeout_s=timeout_s)
    history = await link.call("session.getMessages", {"sessionId": id}, timeout_s=timeout_s)
    if not isinstance(queue, dict) or not isinstance(history, dict):
        raise ProtocolError("neither a queue nor a history")
    said = [each.get("data") for each in history.get("events") or () if each.get("type") == "user.message"]
    found = [*map(_message, queue.get("items") or ()), *map(_message, said[-NEWEST:])]
    return [message for message in found if message is not None]


def without_mark(data: dict[str, Any]) -> dict[str, Any]:
    """Data of an event whose ``source`` is the bare mark of a send."""
    source = data.get("source")
    return data | {"source": source.removeprefix(MARK)} if isinstance(source, str) else data


def _message(item: Any) -> StoredMessage | None:
    if not isinstance(item, dict) or not str(item.get("source", "")).startswith(MARK):
        return None
    return StoredMessage(without_mark(item)["source"], str(item.get("messageId", "")))
