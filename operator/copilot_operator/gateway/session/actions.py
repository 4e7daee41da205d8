"""What goes into the session machine and what comes out of it, as values (see ``machine``).

Inputs are a client's ``Request``, a server's ``Reply`` and a server's own request (``Reverse``); outputs are the
actions, which the driver executes in the order in which they are given. Everything the machine knows of ids is the
client's own: putting them into the tenant's name space, and credentials into parameters, is the driver's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

ClientId: TypeAlias = int  # number of a client's connection, never used again within a process
Link: TypeAlias = int  # an upstream connection, by the number of the client connection for which it was opened

GATEWAY_ERROR: Final = -32010  # ours: the CLI's own codes are those of JSON-RPC, -32001 and -32002
INTERNAL_ERROR: Final = -32603  # what the CLI answers when a method failed
NOT_LOADED_TEXT: Final = "Session not found for sessionId"  # CLI 1.0.102: every method on an unloaded session
TOOLS_TAKEN_TEXT: Final = "External tool name clash"  # a client's tool belongs to one connection
ELSEWHERE: Final = "HeldElsewhere"  # reason of a failure of ours: it was unloaded, and another server has it by now
NOT_STORED_TEXT: Final = "Failed to load session events: Session not found"  # resume of what is not on disk


class Request(msgspec.Struct, eq=False, gc=False):
    """A client's request for a session. Compared by identity; one object from arrival to answer.

    ``params`` are the client's; what the server gets is made of them whenever they are sent (``fields``: by then
    the credential may be another). ``mark`` names a send for good: unique, put into the message by the driver
    (``fields.sanitised_send``), stored by the CLI as ``source``, and found there by ``Settle``. ``counts_as_turn``
    is the method's (``methods``). ``handle`` is the driver's: whatever it needs to answer (the client's request id).
    What follows is the machine's.
    """

    client: ClientId
    method: str
    params: Mapping[str, Any]
    arrived_at: float
    mark: str = ""
    counts_as_turn: bool = False
    handle: Any = None
    sends: int = 0  # how often it went to a server
    server: str | None = None  # to which it went last
    epoch: int = -1  # during which loading of the session that was
    abandoned: bool = False  # its client has gone, or has been answered: it does not wait

    def __repr__(self) -> str:
        return f"Request({self.client}, {self.method!r}, arrived_at={self.arrived_at})"


@dataclass(frozen=True, slots=True)
class Failure:
    """An error reply: what JSON-RPC calls ``error``."""

    code: int
    message: str
    data: Any = field(default=None, repr=False)

    @property
    def says_not_loaded(self) -> bool:
        return NOT_LOADED_TEXT in self.message

    @property
    def says_tools_are_taken(self) -> bool:
        return TOOLS_TAKEN_TEXT in self.message

    @property
    def says_not_stored(self) -> bool:
        elsewhere = isinstance(self.data, dict) and self.data.get("reason") == ELSEWHERE
        return elsewhere or NOT_STORED_TEXT in self.message


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request: ``failure``, else ``result``.

    ``raw`` is the driver's: the body as it came, to be spliced instead of encoded. It is None when the machine made
    the answer itself. The machine looks into ``result`` for the methods of ``calls.READ_RESULTS`` only; for all
    others the driver may leave it undecoded (None) and fill ``raw``.
    """

    result: Any = field(default=None, repr=False)
    failure: Failure | None = None
    raw: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Reverse:
    """A request of the server to whoever owns a session: ``hooks.invoke``, ``userInput.request`` and the like.

    ``id`` is the server's, unique within ``link`` as long as the session is loaded.
    """

    link: Link
    id: int | str
    method: str
    params: Any = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message that a session has: ``source`` and ``messageId`` of a ``user.message`` event or a queued item."""

    mark: str
    message_id: str


# Actions: the driver executes them in order.


@dataclass(frozen=True, slots=True)
class Forward:
    """Send ``request`` to the session's server over ``via``; the answer goes to ``Session.on_reply``.

    ``via`` None: over any connection to that server (the utility upstream): the client owns nothing of this session.
    ``Session.server`` None as well (a method that reads the disk): to the server that placement gives.
    ``again``: it was sent before; a count for the metrics, nothing else.
    """

    via: Link | None
    request: Request
    again: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the client; dropped if its connection has gone."""

    request: Request
    reply: Reply


@dataclass(frozen=True, slots=True)
class Load:
    """Place the session, open ``via`` to that server if need be, and call ``method`` there.

    ``params`` are those of a client's create or resume, to be sanitised like them. With ``by_client`` that is all.
    Otherwise the gateway does it behind the client's back: of ``params`` is made what brings an unloaded session back
    (``fields.resume_params``) if ``method`` is ``session.resume``; a ``session.create`` repeats that of a session
    of which nothing was ever stored. Not before ``not_before``: so long the old server may still be storing.
    Feed ``on_loaded`` or ``on_load_failed``, exactly one of them.
    """

    via: Link
    method: str
    params: Mapping[str, Any] = field(repr=False)
    by_client: bool = False
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Attach:
    """Make ``via`` an owner of the loaded session once more, quietly.

    ``session.resume`` with ``fields.resume_params`` of ``params``, as for ``Load``. Nobody waits for it, but if it is
    answered with an error ``on_attach_failed`` must be fed: its client would hear nothing any more.
    """

    via: Link
    params: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Replay:
    """Call ``method`` for what a reload loses (approve-all). Its failure is logged, not fed back."""

    via: Link
    method: str
    params: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Settle:
    """Ask which messages the loaded session has and whether it works, not before ``not_before``.

    It has the ``user.message`` events of ``session.getMessages`` and the items of ``session.queue.pendingItems`` (ask
    for the queue first: a message goes from there to the events). The newest hundred are plenty. Whether it works is
    ``rpc.busy.standing``. Feed ``on_settled`` or ``on_settle_failed``.
    """

    via: Link
    not_before: float


@dataclass(frozen=True, slots=True)
class AskWork:
    """Ask whether the session works (``rpc.busy.standing``), not before ``not_before``; feed ``on_work``."""

    via: Link
    not_before: float


@dataclass(frozen=True, slots=True)
class TellClient:
    """Send the client a ``session.event`` of our own making.

    The driver adds what an event needs besides: ``id`` (a UUID), ``timestamp``, ``parentId`` null, ``ephemeral`` true.
    """

    client: ClientId
    type: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ShowAgain:
    """Send the client a frame that was given to ``on_event`` before; its prompt is still open."""

    client: ClientId
    frame: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AskClient:
    """Put the server's request to the client; its answer goes to ``on_reverse_reply``."""

    client: ClientId
    reverse: Reverse


@dataclass(frozen=True, slots=True)
class AnswerServer:
    """Answer the server's request over its link; dropped if that has gone."""

    reverse: Reverse
    reply: Reply


@dataclass(frozen=True, slots=True)
class Release:
    """``via`` owns this session no longer.

    If its client is still connected, or another session has it in ``links``: send ``session.detach`` over it and drop
    the answer. Else close it (the CLI then unloads what nobody else owns).
    """

    via: Link


@dataclass(frozen=True, slots=True)
class HandOver:
    """As ``Release``, once the session is kept on ``server`` as another gateway's: its client has come back there."""

    via: Link
    server: str


@dataclass(frozen=True, slots=True)
class Close:
    """Unload the idle session: ``sessions.close`` over any connection to ``server``; feed ``on_closed``."""

    server: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the client's connection: it can no longer be served truthfully. ``why`` is for the log."""

    client: ClientId
    why: str


Action: TypeAlias = (
    Forward
    | Answer
    | Load
    | Attach
    | Replay
    | Settle
    | AskWork
    | TellClient
    | ShowAgain
    | AskClient
    | AnswerServer
    | Release
    | HandOver
    | Close
    | Disconnect
)


def refusal(message: str, reason: str) -> Reply:
    """An answer of the gateway's own: ``reason`` is a word for programs, in the error's data."""
    return Reply(failure=Failure(GATEWAY_ERROR, message, {"reason": reason}))


def not_loaded(method: str, session_id: str) -> Reply:
    """What the CLI answers for a session it has not loaded, word for word."""
    message = f"Request {method} failed with message: {NOT_LOADED_TEXT}: {session_id}"
    return Reply(failure=Failure(INTERNAL_ERROR, message))
