"""A world for one session machine: clients, CLI servers on one disk, connections that deliver when they are told to.

The servers do what was measured of CLI 1.0.102: the last owner's leaving ends a session, messages are stored some
time after they were accepted and announced, a close tells nobody, pending permissions outlive a reload. The world
is the driver of the machine as well, and complains about what must never happen.
"""

import copy
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from copilot_operator.gateway.session import actions as act
from copilot_operator.gateway.session.actions import Failure, Reply, Request, StoredMessage
from copilot_operator.gateway.session.calls import LEAVES, MAKES, SENDS
from copilot_operator.gateway.session.machine import WATCHED, Bounds, Phase, Session
from copilot_operator.gateway.session.owners import Owners
from copilot_operator.gateway.session.prompts import Prompts
from copilot_operator.gateway.session.turns import Turns
from copilot_operator.rpc.busy import Standing

UTILITY = 0
NOT_FOUND = Failure(-32603, "Request failed with message: Session not found for sessionId: x")
NOT_STORED = Failure(-32603, "Failed to load session events: Session not found: x")


@dataclass
class Turn:
    mark: str
    stored: bool = False
    waits_for: str | None = None  # requestId of a permission


@dataclass
class Loaded:
    """The session in the memory of a server."""

    owners: set[int] = field(default_factory=set)
    queue: list[str] = field(default_factory=list)
    running: Turn | None = None
    seen: list[str] = field(default_factory=list)  # marks of messages in memory


@dataclass
class Wire:
    """One connection to one server; what was sent and is not yet handled, both ways."""

    up: deque[Any] = field(default_factory=deque)
    down: deque[Any] = field(default_factory=deque)


class World:
    """Everything around one ``Session``. The methods are the things that may happen; ``calm`` lets all come to rest."""

    def __init__(self, servers: Sequence[str] = ("a", "b"), bounds: Bounds | None = None) -> None:
        self.now = 0.0
        self.session = Session("x", bounds or Bounds())
        self.alive = dict.fromkeys(servers, True)
        self.loaded: dict[str, Loaded] = {}
        self.disk: list[str] = []  # marks of stored messages
        self.disk_waits: Turn | None = None  # what of a turn outlives its server
        self.wires: dict[tuple[int, str], Wire] = {}
        self.timers: list[tuple[float, Any]] = []
        self.clients: set[int] = set()
        self.waiting: dict[int, int] = {}  # client: sends that were answered well and are not heard of
        self.answers: Counter[Request] = Counter()
        self.asked: list[Request] = []
        self.asked_as_owner: set[Request] = set()
        self.broken = 0  # connections
        self.broken_before: dict[Request, int] = {}  # when the request was sent
        self.accepted: dict[str, float] = {}  # marks of sends that were answered well, and when
        self.completed: list[str] = []
        self.failed_for_client: set[str] = set()
        self.told_error: Counter[int] = Counter()
        self.cut: list[str] = []  # turns ended by what may end a turn: a server's death, a foreign close
        self.prompts: dict[int, set[str]] = {}  # open permissions as each client knows them
        self.numbers = 0
        self.passed = self.passed_back = 0  # requests and answers that went the short way
        self.problems: list[str] = []
        self.log: list[str] = []

    # The driver

    def feed(self, todo: list[act.Action]) -> None:
        for action in todo:
            self.log.append(f"{self.now:g} {action}"[:160])
            self.execute(action)
        if self.session.forgotten:  # dropped; the next request finds a new one
            self.session = Session("x", self.session.bounds)
        for link, server in list(self.wires):
            gone = link != UTILITY and link not in self.clients
            if gone and link not in self.session.links and not self.wires[link, server].up:
                self.wires[link, server].up.append("fin")

    def execute(self, action: Any) -> None:
        match action:
            case act.Load() | act.Settle() | act.AskWork() if action.not_before > self.now:
                self.timers.append((action.not_before, action))
            case act.Forward(via, request):
                server = self.session.server or self.a_server()
                if server is None:
                    failed = act.refusal("no server", "NoServer")
                    self.timers.append((self.now, act.Answer(request, failed)))  # fed back below
                    return
                self.wire(UTILITY if via is None else via, server).up.append(action)
                self.broken_before[request] = self.broken
            case act.Load():
                server = self.a_server()
                if server is None:
                    self.timers.append((self.now, _LoadFailed()))
                else:
                    self.wire(action.via, server).up.append(action)
            case act.Attach(via) | act.Settle(via) | act.AskWork(via) | act.Replay(via):
                assert self.session.server is not None
                self.wire(via, self.session.server).up.append(action)
            case act.Close(server):
                self.wire(UTILITY, server).up.append(action)
            case act.Release(via) | act.HandOver(via):
                for (link, _), wire in self.wires.items():
                    if link == via:
                        wire.up.append("detach" if via in self.clients else "fin")
            case act.Answer(request, reply):
                self.answered(request, reply)
            case act.TellClient(client, type):
                self.hears(client, type, {})
            case act.ShowAgain(client, frame):
                self.prompts.setdefault(client, set()).add(frame.decode())
            case act.AnswerServer() | act.AskClient():
                pass
            case act.Disconnect(client, why):
                self.problems.append(f"client {client} was cut off: {why}")
            case _LoadFailed():
                self.feed(self.session.on_load_failed(Failure(-1, "no server"), True, self.now))

    def wire(self, link: int, server: str) -> Wire:
        return self.wires.setdefault((link, server), Wire())

    def a_server(self) -> str | None:
        """Where it is loaded, else the first that lives."""
        for name in self.loaded:
            return name
        return next((name for name, lives in self.alive.items() if lives), None)

    def answered(self, request: Request, reply: Reply) -> None:
        if request in self.session.flying:  # the driver's own failure of a Forward
            self.feed(self.session.on_reply(request, reply, self.now))
            return
        self.answers[request] += 1
        if self.answers[request] > 1:
            self.problems.append(f"{request.method} was answered twice")
        if request.method in SENDS and reply.failure is None:
            self.accepted[request.mark] = self.now
        if request.client not in self.clients:
            return
        if request.method in SENDS:
            if reply.failure is None:
                # One that did not own the session when it asked, or whose turn ended sooner, may hear of no end.
                if request in self.asked_as_owner and request.mark not in self.completed:
                    self.waiting[request.client] = self.waiting.get(request.client, 0) + 1
            else:
                self.failed_for_client.add(request.mark)
        if request.method in LEAVES and reply.failure is None:
            self.waiting.pop(request.client, None)

    def hears(self, client: int, type: str, data: dict[str, Any]) -> None:
        if type == "session.error":
            self.told_error[client] += 1
        if type in ("session.error", "session.idle"):
            self.waiting.pop(client, None)
        if type == "permission.requested":
            self.prompts.setdefault(client, set()).add(data["requestId"])

    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for server, session in self.loaded.items():
            if seconds >= 0.5 and session.running and not session.running.stored:
                self.stores(server)
        self.timers, due = (
            [timer for timer in self.timers if timer[0] > self.now],
            [action for at, action in self.timers if at <= self.now],
        )
        for action in due:
            if isinstance(action, act.Settle | act.AskWork) and self.session.server is None:
                continue  # its link is lost
            if isinstance(action, act.Settle | act.AskWork) and (action.via, self.session.server) not in self.wires:
                self.wire(action.via, str(self.session.server))
            self.execute(action)
        if self.session.wake_at is not None and self.session.wake_at <= self.now:
            before = self.session.wake_at
            self.feed(self.session.on_time(self.now))
            if self.session.wake_at == before:
                self.problems.append("on_time does not move wake_at")

    # Clients

    def asks(self, client: int, method: str, **params: Any) -> Request:
        self.clients.add(client)
        self.numbers += 1
        mark = f"m{self.numbers}" if method in SENDS else ""
        request = Request(client, method, {"sessionId": "x"} | params, self.now, mark, method in SENDS)
        self.asked.append(request)
        if client in self.session.owners.clients:
            self.asked_as_owner.add(request)
        self.feed(self.short_or_long_way(request))
        return request

    def short_or_long_way(self, request: Request) -> list[act.Action]:
        """The short way, where there is one, leaves the session as the long way does, and does the same."""
        session, asked = copy.deepcopy((self.session, request))
        via = self.session.passes(request, self.now)
        if via is None:
            return self.session.on_request(request, self.now)
        self.passed += 1
        actions: list[act.Action] = [act.Forward(via, request)]
        self.compare(session, session.on_request(asked, self.now), actions)
        return actions

    def short_or_long_way_back(self, request: Request, reply: Reply) -> list[act.Action]:
        """As ``short_or_long_way``, for the answer."""
        session, asked = copy.deepcopy((self.session, request))
        if reply.failure is not None or not self.session.passes_back(request):
            return self.session.on_reply(request, reply, self.now)
        self.passed_back += 1
        actions: list[act.Action] = [act.Answer(request, reply)]
        self.compare(session, session.on_reply(asked, reply, self.now), actions)
        return actions

    def compare(self, long: Session, said: list[act.Action], short: list[act.Action]) -> None:
        if (_shown(said), _shown(long)) != (_shown(short), _shown(self.session)):
            self.problems.append(f"the long way says {said} and leaves {_shown(long)}, not {_shown(self.session)}")

    def leaves(self, client: int) -> None:
        self.clients.discard(client)
        self.waiting.pop(client, None)
        self.prompts.pop(client, None)
        self.feed(self.session.on_client_gone(client, self.now))

    # Servers

    def handles(self, link: int, server: str) -> None:
        """The server handles the next thing that came over a connection."""
        wire = self.wires[link, server]
        item = wire.up.popleft()
        if item == "fin":
            del self.wires[link, server]
            self.owner_leaves(server, link, "its last owner closed")
            return
        if item == "detach":
            self.owner_leaves(server, link, "its last owner was released")
            return
        session = self.loaded.get(server)
        match item:
            case act.Load(_, method, params):
                wire.down.append((item, self.makes(server, link, method, params, item.by_client)))
            case act.Attach(_, params):
                wire.down.append((item, self.makes(server, link, "session.resume", params, False)))
            case act.Settle() | act.AskWork():
                wire.down.append((item, self.state(session)))
            case act.Close():
                if session is not None:
                    waits = session.running is not None and session.running.waits_for is not None
                    if session.queue or (session.running and not waits):
                        self.problems.append("closed while busy")
                    self.ends(server)
                wire.down.append((item, True))
            case act.Forward(_, request):
                wire.down.append((request, self.carries_out(server, link, request)))

    def carries_out(self, server: str, link: int, request: Request) -> Reply:
        session = self.loaded.get(server)
        if request.method in MAKES:
            failure = self.makes(server, link, request.method, request.params, True)
            return Reply(failure=failure) if failure else Reply(result={})
        if session is None:
            if request.method in LEAVES:
                return Reply(result={"success": request.method == "session.detach"})
            return Reply(failure=NOT_FOUND)
        match request.method:
            case "session.send":
                session.queue.append(request.mark)
                return Reply(result={"messageId": request.mark})
            case "session.detach" | "session.destroy":
                # Of two owners one may leave, and its detach be under way when the other's connection breaks.
                if self.broken_before[request] != self.broken and session.owners == {link}:
                    self.ends(server)
                    return Reply(result={"success": True})
                self.owner_leaves(server, link, f"the gateway sent {request.method}")
                return Reply(result={"success": True})
            case "session.permissions.handlePendingPermissionRequest":
                waits = session.running is not None and session.running.waits_for == request.params["requestId"]
                if session.running is not None and waits:
                    session.running.waits_for = None
                    self.emits(session, "permission.completed", {"requestId": request.params["requestId"]}, server)
                return Reply(result={"success": waits})
            case "session.abort":
                self.cut += session.queue + ([session.running.mark] if session.running else [])
                session.queue, session.running = [], None
                self.emits(session, "session.idle", {}, server)
                return Reply(result={"success": True})
            case _:
                return Reply(result={"events": []})

    def makes(self, server: str, link: int, method: str, params: Any, by_client: bool) -> Failure | None:
        session = self.loaded.get(server)
        if session is None:
            if method == "session.resume" and not self.disk:
                return NOT_STORED
            if method == "session.create" and self.disk and not by_client:
                self.problems.append("a stored session was made anew: its context is lost")
            if any(other != server for other in self.loaded):
                self.problems.append("loaded on two servers")
            session = self.loaded[server] = Loaded(seen=list(self.disk))
            session.running, self.disk_waits = self.disk_waits, None
        session.owners.add(link)
        return None

    def state(self, session: Loaded | None) -> tuple[list[StoredMessage], Standing] | None:
        if session is None:
            return None
        has = [StoredMessage(mark, mark) for mark in session.seen + session.queue]
        return has, Standing.BUSY if session.running or session.queue else Standing.IDLE

    def owner_leaves(self, server: str, link: int, why: str) -> None:
        session = self.loaded.get(server)
        if session is None or link not in session.owners:
            return
        session.owners.discard(link)
        if session.owners:
            return
        if session.running or session.queue:
            self.problems.append(f"a turn was ended: {why}")
        del self.loaded[server]

    def emits(self, session: Loaded, type: str, data: dict[str, Any], server: str) -> None:
        self.numbers += 1
        for link in session.owners:
            self.wire(link, server).down.append((type, f"e{self.numbers}", data))

    def begins(self, server: str) -> None:
        session = self.loaded[server]
        mark = session.queue.pop(0)
        session.running = Turn(mark)
        session.seen.append(mark)
        self.emits(session, "user.message", {"source": mark, "messageId": mark}, server)
        self.emits(session, "assistant.turn_start", {}, server)

    def stores(self, server: str) -> None:
        turn = self.loaded[server].running
        assert turn is not None
        turn.stored = True
        if turn.mark in self.disk:
            self.problems.append(f"{turn.mark} was run twice")
        self.disk.append(turn.mark)

    def wants_permission(self, server: str) -> None:
        session = self.loaded[server]
        assert session.running is not None
        session.running.waits_for = f"p{self.numbers}"
        self.emits(session, "permission.requested", {"requestId": session.running.waits_for}, server)

    def finishes(self, server: str) -> None:
        session = self.loaded[server]
        assert session.running is not None
        self.completed.append(session.running.mark)
        session.running = None
        if not session.queue:
            self.emits(session, "session.idle", {}, server)

    def ends(self, server: str) -> None:
        """The session is no longer in this server's memory: killed, or closed by somebody else."""
        session = self.loaded.pop(server, None)
        if session is None:
            return
        turn = session.running
        if turn is not None and turn.stored and turn.waits_for is not None:
            self.disk_waits = turn
        elif turn is not None:
            self.cut.append(turn.mark)

    def dies(self, server: str, heard: int) -> None:
        """The server is killed; ``heard`` of the frames it had sent over each connection still arrive."""
        self.alive[server] = False
        self.ends(server)
        mine = [key for key in self.wires if key[1] == server]
        for key in mine:
            self.wires[key].up.clear()
        for key in mine:
            for _ in range(min(heard, len(self.wires[key].down) if key in self.wires else 0)):
                self.arrives(*key)
        for key in mine:
            self.wires.pop(key, None)
        self.feed(self.session.on_server_lost(self.now, server))
        self.load_lost()
        for key in [key for key in self.wires if key[1] == server]:
            del self.wires[key]

    def load_lost(self) -> None:
        """A Load whose connection has gone is fed back as a failure; a Close as well."""
        under_way = [item for wire in self.wires.values() for item in wire.up]
        under_way += [frame[0] for wire in self.wires.values() for frame in wire.down]
        under_way += [action for _, action in self.timers]
        loading = self.session.loading
        if loading is not None and not any(isinstance(each, act.Load | _LoadFailed) for each in under_way):
            self.feed(self.session.on_load_failed(Failure(-1, "lost"), True, self.now))
        if self.session.phase is Phase.CLOSING and not any(isinstance(each, act.Close) for each in under_way):
            self.feed(self.session.on_closed(False, self.now))

    def breaks(self, link: int, server: str, handled: bool) -> None:
        """One connection ends; what was under way to the server was handled before, or was not."""
        while handled and (link, server) in self.wires and self.wires[link, server].up:
            self.handles(link, server)
        self.wires.pop((link, server), None)
        self.broken += 1
        session = self.loaded.get(server)
        if session is not None and session.owners == {link}:
            self.ends(server)
        elif session is not None:
            session.owners.discard(link)
        self.load_lost()
        self.feed(self.session.on_link_lost(None if link == UTILITY else link, self.now, server))

    def arrives(self, link: int, server: str) -> None:
        """The gateway gets the next frame of a connection."""
        frame = self.wires[link, server].down.popleft()
        what = frame[0]
        if isinstance(what, str):
            type, event_id, data = frame
            client = self.session.client_of(link)
            if client is not None and client in self.clients:
                self.hears(client, type, data)
            if type in WATCHED and self.session.server in (None, server):
                name = str(data.get("requestId")).encode()
                self.feed(self.session.on_event(link, type, event_id, data, name, self.now))
            return
        brought = frame[1]
        match what:
            case Request():
                self.feed(self.short_or_long_way_back(what, brought))
            case act.Load() if brought is None:
                self.feed(self.session.on_loaded(server, Reply(result={}), self.now))
            case act.Load():
                self.feed(self.session.on_load_failed(brought, False, self.now))
            case act.Attach() if brought is not None:
                self.feed(self.session.on_attach_failed(link, self.now, brought))
            case act.Settle() if brought is None:
                self.feed(self.session.on_settle_failed(self.now))
            case act.Settle():
                stored, standing = brought
                self.feed(self.session.on_settled(stored, standing, self.now))
            case act.AskWork():
                self.feed(self.session.on_work(brought[1] if brought else Standing.NOT_LOADED, self.now))
            case act.Close():
                self.feed(self.session.on_closed(True, self.now))

    # To the end

    def calm(self) -> None:
        """Servers live, frames arrive, people answer, time passes, until nothing more happens."""
        for name in self.alive:
            self.alive[name] = True
        for _ in range(4000):
            if not self.step():
                self.time_passes(0.3)
                if not self.timers and not self.step() and not self.session.held and not self.session.busy:
                    return
        work = self.session.work
        stages = [f"{send.request.mark} {send.stage}" for send in work.doubts or work.unbegun]
        self.problems.append(
            f"it does not come to rest: {self.session.phase}, running {work.running}, {work.count} turns {stages}, "
            f"in flight {[each.method for each in self.session.flying]}, {len(self.session.held)} held, {self.loaded}"
        )

    def step(self) -> bool:
        """Let one thing happen that is due; False: nothing is."""
        for key, wire in list(self.wires.items()):
            if wire.up:
                self.handles(*key)
                return True
            if wire.down:
                self.arrives(*key)
                return True
        for server, session in list(self.loaded.items()):
            turn = session.running
            if turn is None and session.queue:
                self.begins(server)
                return True
            if turn is not None and not turn.stored:
                self.stores(server)
                return True
            if turn is not None and turn.waits_for is not None:
                knowing = [client for client in self.clients if turn.waits_for in self.prompts.get(client, ())]
                if not knowing:
                    continue
                self.asks(knowing[0], "session.permissions.handlePendingPermissionRequest", requestId=turn.waits_for)
                self.prompts[knowing[0]].discard(turn.waits_for)
                return True
            if turn is not None:
                self.finishes(server)
                return True
        if self.disk_waits is not None and not self.loaded and not self.session.held:
            asked = self.disk_waits.waits_for
            knowing = [client for client in self.session.owners.clients if asked in self.prompts.get(client, ())]
            if knowing:
                self.asks(knowing[0], "session.permissions.handlePendingPermissionRequest", requestId=asked)
                return True
        return False


@dataclass(frozen=True)
class _LoadFailed:
    not_before: float = 0.0


def _shown(what: Any) -> Any:
    """A session, or what it says, as values that can be compared: requests are equal to their copies."""
    if isinstance(what, dict):
        return [(_shown(key), _shown(value)) for key, value in what.items()]
    if isinstance(what, list | tuple):
        return [_shown(each) for each in what]
    if isinstance(what, Session | Owners | Turns | Prompts):
        return _shown(vars(what))
    return repr(what)
