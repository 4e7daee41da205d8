"""Asking agents: one GET per connection over plain asyncio, every answer bounded in time and size.

What an agent says is not trusted to have any shape: a missing or strange field is "not known", never zero.

AgentError
├── AgentUnreachable   nobody listens there, the network says no, or the connection broke
│   └── AgentElsewhere     another pod has the address by now
├── AgentSilent        no whole answer within the time given
├── AgentOutdated      an agent older than the page
└── AgentFaulty        an answer that is none of ours
"""

import asyncio
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from copilot_operator.domain.desired.service import AGENT_PORT
from copilot_operator.domain.retention import Retention
from copilot_operator.domain.snapshot import Deletion, DrainPhase, ServerState
from copilot_operator.rpc.busy import Work

MAX_ANSWER_BYTES: Final = 64 * 1024  # /state has about 1 KiB
MAX_MESSAGE_CHARS: Final = 300
MAX_DEADLINE_S: Final = 86_400.0  # the agent takes no longer one
STATE_TIMEOUT_S: Final = 6.0  # the agent gives its own questions to the CLI 3 s
DRAIN_TIMEOUT_S: Final = 10.0  # beyond the time it was asked to wait: after Done it looks again first
CANCEL_TIMEOUT_S: Final = 5.0
RESTART_TIMEOUT_S: Final = 30.0  # it looks first; the CLI itself ends within 3 s with 300 sessions

MAX_LARGEST: Final = 3
MOST_CODES: Final = 400  # of deleted tenants at a time: a question has 8 KiB at most
TIME: Final = "%Y-%m-%dT%H:%M:%SZ"  # as the API server takes it

OnTimeout = Literal["Abort", "Wait"]


class AgentError(Exception):
    """An agent that could not be asked. Expected: it is tried again."""


class AgentUnreachable(AgentError):
    """No connection, or one that broke before the answer was whole."""


class AgentElsewhere(AgentUnreachable):
    """Another pod has the address by now (HTTP 421): addresses are given to new pods as soon as one is gone."""


class AgentSilent(AgentError):
    """No whole answer in time."""


class AgentOutdated(AgentError):
    """The agent is older than the page that was asked for."""


class AgentFaulty(AgentError):
    """The answer is not HTTP, not JSON, too long, or not what this page answers."""


class AgentAddress(NamedTuple):
    """Where an agent listens, and the name of its pod: an agent of another pod says that it is not meant."""

    host: str
    pod: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What ``/drain`` says. Counts of sessions, None: not counted yet; ``busy`` contains ``waiting``.

    ``gave_up`` says why it ended without having closed its sessions; "": it did not.
    """

    phase: DrainPhase
    busy: int | None = None
    waiting: int | None = None
    work: tuple[tuple[str, int], ...] = ()
    cut: int = 0
    gave_up: str = ""


class AgentClient:
    """Asks the agents that listen at ``port`` of their pods. Every method raises AgentError."""

    def __init__(self, port: int = AGENT_PORT) -> None:
        self._port = port

    async def state(
        self, at: AgentAddress, retention: Retention | None = None, erase: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The document of ``/state``. If it is told a retention, the agent goes by that as long as it runs, and has
        sessions erased whose ids begin with one of the codes ``erase``."""
        page = "/state"
        if retention:
            action = "DryRun" if retention.dry_run else "Delete"
            page += (
                f"?ttl_s={retention.ttl_s:.3f}&ttl_action={action}&high_water_percent={retention.high_water_percent}"
                f"&erase={','.join(erase[:MOST_CODES])}"
            )
        return document_of(await self._get(at, page, STATE_TIMEOUT_S), "/state")

    async def drain(self, at: AgentAddress, deadline_s: float, on_timeout: OnTimeout, wait_s: float) -> Progress:
        """Start or join the drain, set its deadline, and hear of the next change within ``wait_s`` seconds (0..30)."""
        deadline_s = min(max(deadline_s, 0.0), MAX_DEADLINE_S)
        page = f"/drain?deadline_s={deadline_s:.1f}&on_timeout={on_timeout}&wait_s={wait_s:g}"
        return progress_of(document_of(await self._get(at, page, wait_s + DRAIN_TIMEOUT_S), "/drain"))

    async def cancel(self, at: AgentAddress) -> bool:
        """Serve again. False: the sessions are just being closed, ask again later."""
        return await self._asked(at, "/drain/cancel", CANCEL_TIMEOUT_S)

    async def restart(self, at: AgentAddress) -> bool:
        """End the CLI process, kubelet starts another. False: something is loaded or busy."""
        return await self._asked(at, "/restart", RESTART_TIMEOUT_S)

    async def _asked(self, at: AgentAddress, page: str, timeout_s: float) -> bool:
        """200: done; 409: not now."""
        answer = await self._get(at, page, timeout_s)
        if answer.status == 409:
            return False
        document_of(answer, page)
        return True

    async def _get(self, at: AgentAddress, page: str, timeout_s: float) -> "Answer":
        name = f"[{at.host}]" if ":" in at.host else at.host
        page += f"{'&' if '?' in page else '?'}pod={at.pod}"
        request = f"GET {page} HTTP/1.1\r\nHost: {name}:{self._port}\r\nConnection: close\r\n\r\n".encode("ascii")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                transport, exchange = await loop.create_connection(lambda: _Exchange(request), at.host, self._port)
                try:
                    return await exchange.answer
                finally:
                    transport.abort()
        except TimeoutError as error:
            where = page.partition("?")[0]
            raise AgentSilent(f"no answer of the agent to {where} within {timeout_s:g} s") from error
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise AgentUnreachable(f"the agent at {name}:{self._port} can't be reached: {reason}") from error


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response."""

    status: int
    body: bytes


class _Exchange(asyncio.Protocol):
    """One request and its answer: as long as the answer says, or until the connection ends."""

    def __init__(self, request: bytes) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._request = request
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._settle(ended=False)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self.answer.done():
            self._fail(AgentUnreachable(f"the connection to the agent broke: {exc}"))
        self._settle(ended=True)

    def _settle(self, *, ended: bool) -> None:
        if self.answer.done():
            return
        try:
            if (answer := answer_of(bytes(self._received), ended=ended)) is not None:
                self.answer.set_result(answer)
        except AgentError as error:
            self._fail(error)

    def _fail(self, error: AgentError) -> None:
        self.answer.set_exception(error)
        self.answer.exception()  # retrieved, also when nobody waits any more


def answer_of(received: bytes, *, ended: bool) -> Answer | None:
    """The answer in what came so far; None: there is more to come. Raises AgentFaulty, AgentUnreachable."""
    if len(received) > MAX_ANSWER_BYTES:
        raise AgentFaulty(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    head, end, body = received.partition(b"\r\n\r\n")
    if end:
        status, length = _head(head)
        if length is not None and len(body) >= length:
            return Answer(status, body[:length])
        if length is None and ended:
            return Answer(status, body)
    if ended:
        raise AgentUnreachable("the connection to the agent ended before its answer did")
    return None


def _head(head: bytes) -> tuple[int, int | None]:
    """Status and length of the body; None: it ends with the connection. Raises AgentFaulty."""
    first, *rest = head.decode("latin-1").split("\r\n")
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/1.") or not _is_number(status[:3]):
        raise AgentFaulty(f"not an HTTP answer: {text_of(first)[:60]!r}")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    if "transfer-encoding" in fields:
        raise AgentFaulty("an encoded answer")
    length = fields.get("content-length")
    if length is not None and not (_is_number(length) and len(length) < 10):
        raise AgentFaulty("an answer without a proper length")
    return int(status[:3]), None if length is None else int(length)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def document_of(answer: Answer, page: str) -> dict[str, Any]:
    """The JSON object in an answer. Raises AgentOutdated for an unknown page, else AgentFaulty."""
    if answer.status == 404:
        raise AgentOutdated(f"the agent is too old for {page}")
    if answer.status == 421:
        raise AgentElsewhere("another pod has its address by now")
    if answer.status != 200:
        said = text_of(answer.body.decode("utf-8", "replace"))
        raise AgentFaulty(f"the agent answered {page} with {answer.status}: {said}")
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise AgentFaulty(f"the agent answered {page} with something else than JSON") from error
    if not isinstance(document, dict):
        raise AgentFaulty(f"the agent answered {page} with something else than an object")
    return document


KINDS_OF_WORK: Final = tuple(kind.value for kind in Work)


def progress_of(document: Mapping[str, Any]) -> Progress:
    """The answer of ``/drain``. Raises AgentFaulty.

    Agents before ``wait_s`` tell no phase, and answer when their drain is done.
    """
    try:
        phase = DrainPhase(document.get("phase", DrainPhase.DONE if "closed" in document else None))
    except ValueError as error:
        raise AgentFaulty("the agent told no phase of its drain") from error
    return Progress(
        phase,
        busy=count_of(document.get("busy")),
        waiting=count_of(document.get("waiting")),
        work=tuple(
            (kind, number) for kind in KINDS_OF_WORK if (number := count_of(_object(document.get("work")).get(kind)))
        ),
        cut=count_of(document.get("cut")) or 0,
        gave_up=text_of(document.get("gaveUp")),
    )


def state_of(document: Any, pod_uid: str, now: datetime) -> ServerState:
    """What ``/state`` says, read tolerantly: whatever is missing or not of its kind is not known."""
    top = _object(document)
    cli, sessions = _object(top.get("cli")), _object(top.get("sessions"))
    quarantined = _object(top.get("quarantined"))
    deep, disk, expiry = _object(cli.get("deep")), _object(top.get("disk")), _object(top.get("expiry"))
    return ServerState(
        pod_uid=pod_uid,
        taken_at=now,
        answering=cli.get("answering") is True,
        loaded=count_of(sessions.get("loaded")),
        busy=count_of(sessions.get("busy")),
        stored=count_of(sessions.get("stored")),
        waiting=count_of(sessions.get("waiting")),
        wait_for_room=count_of(sessions.get("waitForRoom")),
        quiet_s=number_of(sessions.get("secondsSinceActivity")),
        stalled_s=number_of(sessions.get("stalledSeconds")),
        age_s=number_of(cli.get("ageSeconds")),
        memory_bytes=count_of(top.get("memoryBytes")),
        processes=count_of(top.get("processes")),
        latency_factor=number_of(cli.get("latencyFactor")),
        draining=isinstance(top.get("draining"), dict),
        deep_failure=(text_of(deep.get("message")) or "it did not say why") if deep.get("ok") is False else "",
        failure=text_of(cli.get("failure")),
        disk_percent=_percent(count_of(disk.get("usedBytes")), count_of(disk.get("capacityBytes"))),
        read_only=disk.get("readOnly") is True,
        largest=_sizes(disk.get("largestSessions")),
        expired_kept=count_of(expiry.get("wouldDelete")),
        token_serial=text_of(top.get("tokenSerial")),
        credential_refused=top.get("credentialRefused") is True,
        deletion=_deletion(_object(expiry.get("lastDeletion"))),
        quarantined=count_of(quarantined.get("count")) or 0,
        quarantined_names=tuple(filter(None, map(text_of, _list(quarantined.get("latest"))[:MAX_LARGEST]))),
        erased=_erased(_object(_object(top.get("erasure")).get("erased"))),
    )


def _percent(part: int | None, whole: int | None) -> float | None:
    return 100 * part / whole if part is not None and whole else None


def _sizes(items: Any) -> tuple[tuple[str, int], ...]:
    found = [
        (text_of(each.get("id")), count_of(each.get("bytes"))) for each in map(_object, _list(items)[:MAX_LARGEST])
    ]
    return tuple((id, size) for id, size in found if id and size is not None)


def _deletion(told: Mapping[str, Any]) -> Deletion | None:
    at, sessions, freed = text_of(told.get("time")), count_of(told.get("sessions")), count_of(told.get("freedBytes"))
    if not _is_time(at) or sessions is None or freed is None:
        return None
    return Deletion(at, sessions, freed)


def _erased(told: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Sessions by code. A text is no longer than a key of JSON in an answer that is bounded."""
    return tuple(sorted((code, number) for code, each in told.items() if (number := count_of(each)) is not None))


def _is_time(text: str) -> bool:
    try:
        return datetime.strptime(text, TIME).strftime(TIME) == text
    except ValueError:
        return False


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def count_of(value: Any) -> int | None:
    """A whole number from 0 that fits into 64 bits."""
    return value if type(value) is int and 0 <= value < 1 << 63 else None


def number_of(value: Any) -> float | None:
    """A finite number from 0."""
    if type(value) not in (int, float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def text_of(value: Any) -> str:
    """A line for people, of at most 300 characters."""
    if not isinstance(value, str):
        return ""
    line = "".join(char if char.isprintable() else " " for char in value[: 2 * MAX_MESSAGE_CHARS])
    return " ".join(line.split())[:MAX_MESSAGE_CHARS]
