"""Which sessions of a shared volume this server may load: those that it has claimed, so that no other has them.

The claim lies on the volume, beside what it guards (``claim_files``). It holds until it is released, never until a
time: its holder is one CLI process, named by its pod and its lock. It is released when that process has ended; or when
the session is not loaded and nobody has a permission left to load it.

Who loads a session has a *permission*, given here and bound to a connection that was open before. It counts until it is
settled: what was sent with it has been answered, or never will be sent. A gateway that stands still in between, or an
answer of ours that gets lost, keeps the session here and nothing worse.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from copilot_operator.agent.claim_files import ClaimFiles, name_of
from copilot_operator.agent.log import log
from copilot_operator.rpc.busy import says_not_loaded
from copilot_operator.rpc.errors import ConnectionLost, RpcError, ServerError

LOOK_EVERY_S: Final = 0.2  # whether the CLI lives, once it is not connected
RELEASE_EVERY_S: Final = 5.0  # what is not loaded any more
AGAIN_EVERY_S: Final = 2.0  # after a call of the file system has failed
CALL_S: Final = 5.0
MOST_SETTLED: Final = 10_000  # remembered, for a permission that is settled before it was given
INHERITED: Final = "of an agent that has ended"  # as a permission: nobody knows which were out

Call = Callable[[str, dict[str, Any]], Awaitable[Any]]
"""Asks one CLI process over one connection. Raises ServerError."""


@dataclass(slots=True)
class _Held:
    id: str
    permits: set[str] = field(default_factory=set)  # that are not settled


class NotOurs(ServerError):
    """Another server has the session; ``holder`` says which."""

    def __init__(self, id: str, holder: str) -> None:
        super().__init__(f"session {id} is held by {holder}")
        self.holder = holder


class Lock(Protocol):
    """See ``CliLock``."""

    def incarnation(self) -> str | None: ...

    def is_free(self) -> bool: ...


@dataclass(slots=True)
class Claimed:
    """What there is, and what came of those who asked since the agent started."""

    held: int = 0
    refused: int = 0  # another server had it
    taken_over: int = 0  # from a process that has ended


class Claims:
    """Those of the CLI beside us. ``pod`` is our pod's name and UID."""

    def __init__(self, files: ClaimFiles, lock: Lock, pod: tuple[str, str]) -> None:
        self._refused = self._taken_over = 0
        self._files, self._lock = files, lock
        self._us = f"{pod[0]}_{pod[1]}_"
        self._holder: str | None = None  # the CLI process that we speak with
        self._call: Call | None = None
        self._held: dict[str, _Held] = {}  # by name on disk
        self._dropping: set[tuple[str, str]] = set()  # names and holders of claims that are void
        self._settled: dict[str, None] = {}  # permissions, the oldest first
        self._alone: dict[str, tuple[asyncio.Lock, list[None]]] = {}
        self._numbers = itertools.count()
        self._looked_through = False
        self._woken = asyncio.Event()

    @property
    def held(self) -> list[str]:
        """Ids of the sessions that are claimed, as far as they are known."""
        return [held.id for held in self._held.values() if held.id]

    @property
    def counts(self) -> Claimed:
        return Claimed(len(self._held), self._refused, self._taken_over)

    def may_be_loaded(self, id: str) -> bool:
        """Whether the CLI beside us may have a session loaded: not what others have, nor what nobody has."""
        if not self._looked_through or self._holder is None:
            return True  # what agents before us have given is not known yet
        name = name_of(id)
        return name in self._held or (name, self._holder) in self._dropping

    async def met(self, call: Call) -> None:
        """We speak with a CLI; the same process as before, or another. Raises ServerError."""
        self._call = None
        incarnation = self._lock.incarnation()
        await call("ping", {})  # so what the lock said was said of this process: it lived all the time
        if incarnation is None:
            raise ConnectionLost("the server does not hold the lock of its state directory")
        holder = self._us + incarnation
        if holder != self._holder:
            self._void()
        self._holder, self._call = holder, call
        self._woken.set()

    def lost(self) -> None:
        """The connection has ended; the CLI perhaps not."""
        self._call = None
        self._woken.set()

    # Permissions

    async def grant(self, wanted: Mapping[str, str], gone: Collection[str] = ()) -> dict[str, str]:
        """Claim sessions and give the permissions to load them, by id. Returns who holds those that are not ours.

        ``gone``: UIDs of pods that the API server does not know any more. Raises ServerError, OSError; nothing is given
        then.
        """
        holder, call = self._holder, self._call
        if holder is None or call is None:
            raise ConnectionLost("the CLI is not connected")
        # The connection that is to be loaded over was open before we were asked. If this process answers now it is to
        # this process, or to an earlier one and so broken.
        await call("ping", {})
        others: dict[str, str] = {}
        try:
            for id, permit in wanted.items():
                if other := await self._grant(id, permit, holder, gone):
                    others[id] = other
        except BaseException:
            self.settle(wanted.values())
            raise
        return others

    async def _grant(self, id: str, permit: str, holder: str, gone: Collection[str]) -> str:
        name = name_of(id)
        async with self._by_oneself(name):
            if self._holder != holder:
                raise ConnectionLost("the CLI is another process by now")
            held = self._held.get(name)
            if held is None:
                if other := await self._claim(name, holder, gone):
                    return other
                held = self._held[name]
            held.id = id
            if permit not in self._settled:
                held.permits.add(permit)
            return ""

    async def _claim(self, name: str, holder: str, gone: Collection[str]) -> str:
        """Under the session's lock; fills ``_held``, or says who has it."""

        replaced = False

        def may_replace(other: str) -> bool:
            """Its process has ended: an earlier one of this pod, or one of a pod that is gone."""
            nonlocal replaced
            replaced = other.startswith(self._us) or uid_of(other) in gone
            return replaced

        known = self._looked_through or (name, holder) in self._dropping
        if not known and holder in await self._files.holders(name):
            self._held[name] = _Held("", {INHERITED})
            return ""
        self._dropping.add((name, holder))  # should this end in the middle of it
        other = await self._files.claim(name, holder, may_replace)
        if other:
            self._dropping.discard((name, holder))
            self._refused += 1
            return other
        self._taken_over += replaced
        if self._holder != holder:
            self._woken.set()
            raise ConnectionLost("the CLI is another process by now")
        self._dropping.discard((name, holder))
        self._held[name] = _Held("")
        return ""

    def settle(self, permits: Iterable[str]) -> None:
        """What these were for is over. One that is still to be given counts no more either."""
        over = set(permits)
        for permit in over:
            self._settled.pop(permit, None)
            self._settled[permit] = None
        while len(self._settled) > MOST_SETTLED:
            del self._settled[next(iter(self._settled))]
        for held in self._held.values():
            held.permits -= over

    def own_permit(self) -> str:
        """A name for a permission of our own."""
        return f"own-{next(self._numbers)}"

    @asynccontextmanager
    async def loading(self, id: str) -> AsyncIterator[None]:
        """Around a call of our own, over a connection that is open before, which may load a session or remove it.

        Raises ServerError, NotOurs among them. A call that was not answered is never over.
        """
        permit = self.own_permit()
        try:
            others = await self.grant({id: permit})
        except OSError as error:
            raise ConnectionLost(f"claims cannot be written: {error}") from error
        if others:
            raise NotOurs(id, others[id])
        try:
            yield
        except RpcError:
            self.settle([permit])
            raise
        self.settle([permit])

    # Releasing

    async def release(self, id: str) -> bool:
        """Let another server have a session. False: it may be loaded here, or somebody may load it.

        Raises ServerError and OSError; it is held as before then.
        """
        name = name_of(id)
        async with self._by_oneself(name):
            holder, call, held = self._holder, self._call, self._held.get(name)
            if holder is None or call is None:
                raise ConnectionLost("the CLI is not connected")
            if held is None:
                if holder not in await self._files.holders(name):
                    return True
                if not self._looked_through:
                    return False
                held = self._held[name] = _Held(id)  # of a claim that was given up half done
            if held.permits or not await _is_unloaded(call, id):
                return False
            if self._held.get(name) is not held:
                return False  # its process has ended meanwhile; it is being dropped
            del self._held[name]
            await self._drop(name, holder)
            return True

    async def run(self, loaded: Callable[[], Awaitable[Collection[str]]]) -> None:
        """Release what need not be held any more, until cancelled. ``loaded`` tells ids, and raises ServerError."""
        clock = asyncio.get_running_loop().time
        released_at, again_at, told = float("-inf"), float("-inf"), ""
        while True:
            await self._wake(LOOK_EVERY_S)
            self.notice_end()
            if clock() < again_at:
                continue
            try:
                await self.drop_void()
                if self._call is None:
                    continue
                if not self._looked_through:
                    await self.look_through()
                if clock() >= released_at + RELEASE_EVERY_S:
                    released_at = clock()
                    await self._release_unloaded(await loaded())
                told = ""
            except (ServerError, OSError) as error:
                if str(error) != told:
                    log("claims", message=str(error))
                told = str(error)
                if isinstance(error, OSError):  # of a read-only volume, say
                    again_at = clock() + AGAIN_EVERY_S

    def notice_end(self) -> None:
        """Look whether the CLI has ended, which sets free all that it had."""
        if self._holder is not None and self._call is None and self._lock.is_free():
            log("cli has ended, its sessions are free", sessions=len(self._held))
            self._void()

    async def drop_void(self) -> None:
        """Remove claims of processes that have ended. Raises OSError; another try goes on."""
        for name, holder in list(self._dropping):
            async with self._by_oneself(name):
                if (name, holder) in self._dropping:
                    await self._drop(name, holder)

    async def look_through(self) -> None:
        """Find what agents before us in this pod have left: of this CLI process it is kept, of others it is void."""
        holder = self._holder
        if holder is None:
            return
        await self._files.tidy(lambda each: each.startswith(self._us) and each != holder)
        for name in await self._files.all():
            async with self._by_oneself(name):
                if self._holder != holder:
                    return
                for found in await self._files.holders(name):
                    if found == holder and name not in self._held and (name, found) not in self._dropping:
                        self._held[name] = _Held("", {INHERITED})
                    elif found.startswith(self._us) and found != holder:
                        await self._files.release(name, found)
        self._looked_through = True

    async def _release_unloaded(self, loaded: Collection[str]) -> None:
        for held in list(self._held.values()):
            if held.id and not held.permits and held.id not in loaded:
                await self.release(held.id)

    def _void(self) -> None:
        """The CLI process has ended: nobody can load anything there any more."""
        if self._holder is not None:
            self._dropping |= {(name, self._holder) for name in self._held}
        self._holder, self._call, self._held = None, None, {}
        self._woken.set()

    async def _drop(self, name: str, holder: str) -> None:
        self._dropping.add((name, holder))
        await self._files.release(name, holder)
        self._dropping.discard((name, holder))

    async def _wake(self, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    @asynccontextmanager
    async def _by_oneself(self, name: str) -> AsyncIterator[None]:
        """One after the other what is done with a session."""
        lock, users = self._alone.setdefault(name, (asyncio.Lock(), []))
        users.append(None)
        try:
            async with lock:
                yield
        finally:
            users.pop()
            if not users:
                del self._alone[name]


def uid_of(holder: str) -> str:
    """UID of the pod whose process holds something: ``<pod>_<uid>_<process>``; names of pods have no underscores."""
    return holder.split("_")[1] if holder.count("_") == 2 else ""


async def _is_unloaded(call: Call, id: str) -> bool:
    """Raises ServerError. While a session is being closed the CLI says that it is not loaded, and writes still; another
    close is answered when that is over (1.0.102)."""
    for method in ("session.metadata.activity", "sessions.close", "session.metadata.activity"):
        try:
            await call(method, {"sessionId": id})
        except RpcError as error:
            if method == "sessions.close" or not says_not_loaded(error):
                raise
        else:
            if method != "sessions.close":
                return False
    return True
