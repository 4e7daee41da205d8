"""Where sessions are that no other server may load, as far as agents have told, and whether that server is still there.

A server that is not among ours may be gone. Its pod is, once the API server itself does not know it any more, or says
that all of its containers have ended; that it can't be reached says nothing.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

log = logging.getLogger(__name__)

MOST: Final = 50_000  # sessions that are remembered
ASK_EVERY_S: Final = 1.0  # about one pod, or one session
TELL_AFTER_S: Final = 5.0
WAITS_S: Final = 5.0  # who did not ask again does not wait any more


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that held something: ``<name>_<uid>_<process>``, as agents name their CLI."""

    name: str
    uid: str

    @staticmethod
    def of(holder: str) -> "Pod":
        name, _, rest = holder.partition("_")
        return Pod(name, rest.partition("_")[0])


class Pods(Protocol):
    """The API server, as far as pods that are gone are concerned."""

    async def why_there(self, pod: Pod) -> str:
        """ "": it is gone, for good. Else what is known of it. Raises OSError, ValueError: nobody says."""


class Unasked:
    """As long as nobody can be asked nothing is known to be gone."""

    async def why_there(self, pod: Pod) -> str:
        raise ValueError("it cannot be asked yet")


class PodsFile:
    """Without a cluster: ``pods.json`` in a directory lists the UIDs of all pods that there are. Read each time."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "pods.json"

    async def why_there(self, pod: Pod) -> str:
        there = json.loads(self._path.read_text())
        if not isinstance(there, list):
            raise ValueError(f"{self._path.name} is no list")
        return "(which there is)" if pod.uid in there else ""


@dataclass(slots=True)
class _Awaited:
    why: str
    since: float
    at: float  # asked again last


class Holders:
    """``release`` asks the agent of a server, by name, to give a session up; it tells whether it did. ``waited`` is
    told for how many seconds a session was refused before it was claimed."""

    def __init__(
        self,
        pods: Callable[[], Pods],
        release: Callable[[str, str], Coroutine[Any, Any, bool]],
        waited: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        self._pods, self._release, self._waited = pods, release, waited
        self._refused: dict[str, tuple[float, float]] = {}  # by session: the first time, and the last
        self._loop = asyncio.get_running_loop()
        self._holder: dict[str, Pod] = {}  # by session
        self._gone: set[str] = set()  # UIDs
        self._asked_at: dict[str, float] = {}  # by session or UID
        self._awaited: dict[str, _Awaited] = {}  # sessions that wait for somebody to give them up
        self._tasks: set[asyncio.Task[None]] = set()

    # What permits tell

    def held(self, id: str, holder: str) -> str:
        """A server was refused a session. Returns why, for people."""
        pod, now = Pod.of(holder), self._loop.time()
        self._holder.pop(id, None)
        self._holder[id] = pod
        if len(self._holder) > MOST:
            del self._holder[next(iter(self._holder))]
        first, last = self._refused.pop(id, (now, now))
        self._refused[id] = (first if now - last < WAITS_S else now, now)
        if len(self._refused) > MOST:
            del self._refused[next(iter(self._refused))]
        awaited = self._awaited.get(id)
        return f"it is held by {awaited.why if awaited else f'pod {pod.name}'}"

    def free(self, id: str) -> None:
        """A server has claimed it."""
        first, last = self._refused.pop(id, (0.0, float("-inf")))
        if (now := self._loop.time()) - last < WAITS_S:
            self._waited(now - first)
        self._given_up(id)

    def _given_up(self, id: str) -> None:
        self._holder.pop(id, None)
        self._awaited.pop(id, None)

    def gone(self, ids: Collection[str]) -> list[str]:
        return sorted({self._holder[id].uid for id in ids if id in self._holder} & self._gone)

    # What placement asks

    def of(self, id: str) -> Pod | None:
        """Who has a session, and is not known to be gone."""
        pod = self._holder.get(id)
        return None if pod is None or pod.uid in self._gone else pod

    def wait_for(self, id: str, pod: Pod, server: str | None, why: str) -> None:
        """A session has to wait for ``pod``: of ``server``, which leaves or can't be reached; None: it is none of ours.
        Asks what can be asked, now and then; whether it is free by then its next claim tells."""
        now = self._loop.time()
        before = self._awaited.get(id)
        said = before.why if before and server is None else f"pod {pod.name} {why}"
        self._awaited[id] = _Awaited(said, before.since if before else now, now)
        if id in self._refused:
            self._refused[id] = self._refused[id][0], now
        about = pod.uid if server is None else id
        if now < self._asked_at.get(about, float("-inf")) + ASK_EVERY_S:
            return
        self._asked_at[about] = now
        self._start(self._ask_about(id, pod) if server is None else self._ask_for(id, server))

    def waiting(self) -> dict[str, int]:
        """How many sessions have waited for a while, by what for."""
        now, found = self._loop.time(), dict[str, int]()
        self._awaited = {id: each for id, each in self._awaited.items() if now - each.at < WAITS_S}
        self._asked_at = {about: at for about, at in self._asked_at.items() if now - at < ASK_EVERY_S}
        for each in self._awaited.values():
            if now - each.since >= TELL_AFTER_S:
                found[each.why] = found.get(each.why, 0) + 1
        return found

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _ask_about(self, id: str, pod: Pod) -> None:
        try:
            why = await self._pods().why_there(pod)
        except (OSError, ValueError) as error:
            why = f"of which the API server does not say whether it is gone ({error})"
        if not why:
            log.info("pod %s is gone, its sessions are free", pod.name)
            self._gone.add(pod.uid)
            self._awaited.pop(id, None)
        elif id in self._awaited:
            self._awaited[id].why = f"pod {pod.name} {why}"

    async def _ask_for(self, id: str, server: str) -> None:
        if await self._release(server, id):
            self._given_up(id)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
