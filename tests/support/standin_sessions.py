"""The sessions of one stand-in server: what a CLI does with them as far as our code relies on it. No sockets.

Held to the real CLI by ``tests/contract``. A prompt may carry the directives of the stand-in model: ``SLEEP=<s>``,
``TOOL=`sleep 2```, ``ATOOL=`sleep 2```; of commands only ``sleep`` is understood, any other takes no time.
"""

import asyncio
import math
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

_EPHEMERAL: Final = {"session.idle", "assistant.idle", "assistant.message_delta", "permission.requested"}
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,250}\Z")
_INTERNAL_ERROR: Final = -32603
_PIECE_S: Final = 1.0  # between two pieces of an answer


class Refusal(Exception):
    """An error reply."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def failed(method: str, text: str) -> Refusal:
    """The form of the CLI's own errors."""
    return Refusal(_INTERNAL_ERROR, f"Request {method} failed with message: {text}")


@dataclass(eq=False)
class Message:
    """What was sent, until its turn is over. ``source`` is stored as it came."""

    prompt: str
    source: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(eq=False)
class Session:
    """One session; stored once it had a message, loaded while it has owners."""

    id: str
    owners: set[Hashable] = field(default_factory=set)
    loaded: bool = True
    asks_permission: bool = False
    approves_all: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)
    queue: deque[Message] = field(default_factory=deque)
    work: asyncio.Task[None] | None = None
    shells: set[asyncio.Task[None]] = field(default_factory=set)
    permissions: dict[str, asyncio.Future[bool]] = field(default_factory=dict)
    client_metadata: dict[str, str] = field(default_factory=dict)
    size: int = 27_000  # of its directory
    started_at: str = field(default_factory=lambda: timestamp())

    @property
    def stored(self) -> bool:
        return any(event["type"] == "user.message" for event in self.events)


Volume: TypeAlias = dict[str, Session]  # by id; a state directory between two processes holds unloaded ones only


def timestamp() -> str:
    """Now, as the CLI writes it."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"


class Sessions:
    """All sessions of one process. ``tell(to, method, params)`` sends a notification; ``to`` None is everybody.

    ``volume`` is its state directory: what is stored there, the next process on it finds. ``on_turn`` is called as
    each turn begins.
    """

    def __init__(
        self,
        tell: Callable[[set[Hashable] | None, str, Any], None],
        volume: Volume,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._all = volume
        self._tell, self._on_turn = tell, on_turn

    @property
    def loaded(self) -> list[Session]:
        return [session for session in self._all.values() if session.loaded]

    @property
    def stored(self) -> list[Session]:
        return [session for session in self._all.values() if session.stored]

    def end(self, *, killed: bool = False) -> None:
        """The process ends: every turn is dropped. One that is killed does not even write down its end."""
        for session in self.loaded:
            self._unload(session, killed=killed)
        for id in [id for id, session in self._all.items() if not session.stored]:
            del self._all[id]

    def owner_left(self, owner: Hashable) -> None:
        """The last-owner rule, for a connection that ended."""
        for session in self.loaded:
            self._let_go(session, owner)

    # Methods, by the name on the wire

    def create(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        id = params.get("sessionId") or str(uuid.uuid4())
        if not isinstance(id, str) or not _ID.match(id):
            raise failed("session.create", f"Rejected session.create request with invalid sessionId: {id}")
        session = self._all.get(id)
        if session is None:
            session = self._all[id] = Session(id)
        elif not session.loaded:
            session.loaded = True
        session.owners.add(owner)
        session.asks_permission = bool(params.get("requestPermission"))
        for kind in ("session.created", "session.updated", "session.created"):  # as the CLI sends them
            self._lifecycle(kind, session)
        return self._described(session)

    def resume(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._all.get(params.get("sessionId", ""))
        if session is None or not (session.loaded or session.stored):
            id = params.get("sessionId")
            raise failed("session.resume", f"Failed to load session events: Session not found: {id}")
        session.loaded = True
        session.owners.add(owner)
        if not params.get("disableResume"):
            self._event(session, "session.resume", {})
        return self._described(session)

    async def send(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._loaded("session.send", params)
        message = Message(str(params.get("prompt", "")), params.get("source"))
        session.queue.append(message)
        if session.work is None:
            session.work = asyncio.create_task(self._work(session))
        if params.get("wait"):
            await message.done
        return {"messageId": message.id}

    async def abort(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._loaded("session.abort", params)
        if session.work is not None:
            session.work.cancel()
            self._event(session, "abort", {})
            self._finished(session)
        return {"success": True}

    def detach(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._all.get(params.get("sessionId", ""))
        if session is not None and session.loaded:
            self._let_go(session, owner)
        return {"success": True}

    def destroy(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._all.get(params.get("sessionId", ""))
        if session is None or not session.loaded or owner not in session.owners:
            return {"success": False}
        self._let_go(session, owner)
        return {"success": True}

    def close(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._all.get(params.get("sessionId", ""))
        if session is not None and session.loaded:
            self._unload(session)
        return {}

    def delete(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        id = params.get("sessionId", "")
        session = self._all.pop(id, None)
        if session is None:
            return {"success": False, "error": f"Session file not found for {id}"}
        if session.loaded:
            self._unload(session)
        for _ in range(2):  # as the CLI sends it
            self._lifecycle("session.deleted", session)
        return {"success": True}

    def bulk_delete(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        """Loaded ones as well; of what is not there it is said that it is deleted, too."""
        ids = params.get("sessionIds", ())
        freed = {id: self._all[id].size if id in self._all else 0 for id in ids}
        for id in ids:
            self.delete(owner, {"sessionId": id})
        return {"freedBytes": freed}

    def sizes(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        return {"sizes": {session.id: session.size for session in self.stored}}

    def update_client_metadata(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._loaded("session.metadata.updateClientMetadata", params)
        session.client_metadata.update(params.get("set", {}))
        return dict(session.client_metadata)

    def client_metadata(self, owner: Hashable, params: dict[str, Any]) -> Any:
        def told(id: str) -> dict[str, Any]:
            session, keys = self._all.get(id), params.get("keys")
            if session is None:
                return {"sessionId": id, "status": "notFound"}
            kept = {key: value for key, value in session.client_metadata.items() if keys is None or key in keys}
            return {"sessionId": id, "status": "ok", "metadata": kept}

        return [told(id) for id in params.get("sessionIds", ())]

    def list(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        return {"sessions": [self._metadata(session) for session in reversed(self.stored)]}

    def metadata(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._all.get(params.get("sessionId", ""))
        return {"session": self._metadata(session)} if session is not None and session.stored else {}

    def tail(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._loaded("session.eventLog.tail", params)
        return {"cursor": f"{session.id}|{len(session.events)}"}

    def messages(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        return {"events": list(self._loaded("session.getMessages", params).events)}

    def persisted(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._all.get(params.get("sessionId", ""))
        events = [] if session is None else [each for each in session.events if not each.get("ephemeral")]
        return {"events": events}

    def log(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        """Ephemeral ones only: nothing stores them, and only owners hear of them."""
        session, id = self._loaded("session.log", params), str(uuid.uuid4())
        data = {"infoType": params.get("type", "notification"), "message": params.get("message", "")}
        event = {"type": "session.info", "data": data, "ephemeral": True, "id": id, "timestamp": timestamp()}
        self._tell(set(session.owners), "session.event", {"sessionId": session.id, "event": event})
        return {"eventId": id}

    def activity(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._loaded("session.metadata.activity", params)
        return {"abortable": session.work is not None, "hasActiveWork": session.work is not None}

    def tasks(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._loaded("session.tasks.list", params)
        return {"tasks": [{"type": "shell", "id": str(n), "status": "running"} for n, _ in enumerate(session.shells)]}

    def pending_items(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._loaded("session.queue.pendingItems", params)
        items = [
            {"id": str(n), "kind": "message", "displayText": each.prompt, "messageId": each.id, **_sourced(each)}
            for n, each in enumerate(session.queue)
        ]
        return {"items": items, "steeringMessages": [], "inFlightSteeringCount": 0}

    def pending_permissions(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._loaded("session.permissions.pendingRequests", params)
        return {"items": [{"requestId": id} for id in session.permissions]}

    def pending_tools(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        self._loaded("session.tools.listPendingRequests", params)
        return {"items": []}

    def approve_all(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._loaded("session.permissions.setApproveAll", params)
        session.approves_all = bool(params.get("enabled"))
        return {"success": True}

    def answer_permission(self, owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        session = self._loaded("session.permissions.handlePendingPermissionRequest", params)
        asked = session.permissions.pop(params.get("requestId", ""), None)
        if asked is None or asked.done():
            return {"success": False}
        asked.set_result(str(params.get("result", {}).get("kind", "")).startswith("approve"))
        return {"success": True}

    # Turns

    async def _work(self, session: Session) -> None:
        while session.queue:
            message = session.queue.popleft()
            try:
                await self._turn(session, message)
            finally:
                if not message.done.done():
                    message.done.set_result(None)
        self._finished(session)

    async def _turn(self, session: Session, message: Message) -> None:
        self._on_turn()
        prompt = message.prompt
        self._event(session, "user.message", {"content": prompt, "messageId": message.id, **_sourced(message)})
        self._event(session, "assistant.turn_start", {"turnId": "0"})
        if (found := re.search(r"\bATOOL=`([^`]*)`", prompt)) and await self._permitted(session):
            shell = asyncio.create_task(self._background(session, found[1]))
            session.shells.add(shell)
        elif (found := re.search(r"\bTOOL=`([^`]*)`", prompt)) and await self._permitted(session):
            await asyncio.sleep(_duration(found[1]))
        if found := re.search(r"\bSLEEP=([0-9.]+)", prompt):
            await self._stream(session, float(found[1]))
        if found := re.search(r"\bERR=(\d+)", prompt):
            failure = {"errorType": "query", "message": "the model refused", "statusCode": int(found[1])}
            self._event(session, "session.error", failure)
        else:
            self._event(session, "assistant.message", {"content": f"you said: {prompt}"})
        self._event(session, "assistant.turn_end", {"turnId": "0"})

    async def _stream(self, session: Session, seconds: float) -> None:
        """An answer that comes in pieces."""
        pieces = max(1, math.ceil(seconds / _PIECE_S))
        for _ in range(pieces):
            await asyncio.sleep(seconds / pieces)
            self._event(session, "assistant.message_delta", {})

    async def _permitted(self, session: Session) -> bool:
        if session.approves_all or not session.asks_permission:
            return session.approves_all
        id, asked = str(uuid.uuid4()), asyncio.get_running_loop().create_future()
        session.permissions[id] = asked
        self._event(session, "permission.requested", {"requestId": id})
        try:
            return bool(await asked)
        finally:
            session.permissions.pop(id, None)

    async def _background(self, session: Session, command: str) -> None:
        await asyncio.sleep(_duration(command))
        session.shells.clear()
        session.queue.append(Message("the shell has ended"))
        if session.work is None:  # its end starts another turn by itself
            session.work = asyncio.create_task(self._work(session))

    def _finished(self, session: Session) -> None:
        session.work = None
        if session.loaded and not session.shells:
            self._event(session, "session.idle", {"mode": "interactive"})

    # Loading and telling

    def _let_go(self, session: Session, owner: Hashable) -> None:
        if owner in session.owners:
            session.owners.discard(owner)
            if not session.owners:
                self._unload(session)

    def _unload(self, session: Session, *, killed: bool = False) -> None:
        for task in (session.work, *session.shells):
            if task is not None:
                task.cancel()
        session.work = None
        session.shells.clear()
        session.queue.clear()
        if session.stored and not killed:
            self._event(session, "session.shutdown", {"reason": "routine"}, silently=True)
        session.owners.clear()
        session.loaded = False

    def _loaded(self, method: str, params: dict[str, Any]) -> Session:
        id = params.get("sessionId")
        session = self._all.get(id) if isinstance(id, str) else None
        if session is None or not session.loaded:
            raise failed(method, f"Session not found for sessionId: {id}")
        return session

    def _event(self, session: Session, kind: str, data: dict[str, Any], *, silently: bool = False) -> None:
        event: dict[str, Any] = {"type": kind, "data": data, "id": str(uuid.uuid4()), "timestamp": timestamp()}
        if kind in _EPHEMERAL:
            event["ephemeral"] = True
        session.events.append(event)
        if silently:
            return
        self._tell(set(session.owners), "session.event", {"sessionId": session.id, "event": event})
        if kind not in _EPHEMERAL:
            self._lifecycle("session.updated", session)

    def _lifecycle(self, kind: str, session: Session) -> None:
        self._tell(None, "session.lifecycle", {"type": kind, "sessionId": session.id})

    def _metadata(self, session: Session) -> dict[str, Any]:
        modified = session.events[-1]["timestamp"]
        return {"sessionId": session.id, "startTime": session.started_at, "modifiedTime": modified, "isRemote": False}

    def _described(self, session: Session) -> dict[str, Any]:
        return {
            "sessionId": session.id,
            "nativeSessionId": session.id,
            "startTime": session.started_at,
            "isRemote": False,
            "mode": "interactive",
        }


def _sourced(message: Message) -> dict[str, str]:
    return {} if message.source is None else {"source": message.source}


def _duration(command: str) -> float:
    """Seconds that a command takes."""
    found = re.match(r"sleep ([0-9.]+)", command)
    return float(found[1]) if found else 0.0
