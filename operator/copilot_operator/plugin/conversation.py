"""A conversation at a terminal: a prompt goes out, the turn is shown as it comes, Ctrl-C aborts it."""

import contextlib
import queue
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

from copilot_operator.plugin.errors import PluginError
from copilot_operator.plugin.tables import say
from copilot_operator.plugin.talker import LOST, Talker
from copilot_operator.plugin.turns import Shown, Turn, What, answer_to
from copilot_operator.rpc.errors import RpcError, ServerError

ABORT_S: Final = 15.0
RECONNECT_S: Final = 60.0
PAUSE_S: Final = 1.0
OPTIONS: Final[dict[str, Any]] = {"clientName": "kubectl-copilot", "streaming": True, "requestPermission": True}


class Decision(StrEnum):
    """Answers to a tool that asks for a permission."""

    ALLOWED = "approve-once"
    REFUSED = "reject"  # ends the turn: its user will say what to do instead
    NOBODY_THERE = "user-not-available"  # the turn goes on without


class Conversation:
    """One session. ``may``: whether a tool may do what it asks for."""

    def __init__(self, talker: Talker, session: str, *, model: str = "", may: Callable[[str], Decision]) -> None:
        self.talker, self.session, self.may = talker, session, may
        self._options = OPTIONS | ({"model": model} if model else {})

    def create(self) -> None:
        self._call("session.create", **self._options)

    def resume(self) -> None:
        self._call("session.resume", **self._options)

    def turn(self, prompt: str, timeout_s: float) -> Turn:
        """Send a prompt and show the turn. Raises PluginError."""
        self._forget()
        turn = Turn(prompt)
        deadline = time.monotonic() + timeout_s
        try:
            self._send(prompt)
            self._show(turn, deadline)
        except KeyboardInterrupt:
            say("\naborting; Ctrl-C again leaves", style="yellow", out=sys.stderr)
            self._abort(turn)
        except TimeoutError:
            self._abort(turn)
            raise PluginError(
                f"the turn took more than {timeout_s:g} s and was aborted; --turn-timeout allows more"
            ) from None
        return turn

    def _send(self, prompt: str) -> None:
        try:
            self._call("session.send", prompt=prompt)
        except RpcError:
            raise
        except ServerError as error:  # nothing of it was heard: a server that was being replaced, say
            self._back(str(error))
            self._call("session.send", prompt=prompt)

    def _show(self, turn: Turn, deadline: float) -> None:
        """Until the turn ends."""
        open_line = False
        while True:
            for shown in self._next(turn, deadline):
                if shown.what is What.TEXT:
                    sys.stdout.write(shown.text)
                    sys.stdout.flush()
                    open_line = not shown.text.endswith("\n")
                    continue
                if open_line:
                    print(flush=True)
                    open_line = False
                match shown.what:
                    case What.TOOL:
                        say(f"  {shown.text}", style="dim", out=sys.stderr)
                    case What.ERROR:
                        say(f"  {shown.text}", style="Error", out=sys.stderr)
                    case What.ASK:
                        self._answer(shown)
                    case What.END:
                        return

    def _next(self, turn: Turn, deadline: float) -> list[Shown]:
        left_s = deadline - time.monotonic()
        try:
            session, event = self.talker.events.get(timeout=max(0.01, left_s))
        except queue.Empty:
            raise TimeoutError from None
        if event.get("type") == LOST:
            return self._found_again(turn)
        return turn.feed(event) if session == self.session else []

    def _found_again(self, turn: Turn) -> list[Shown]:
        """The connection broke in the turn. A gateway has let it go on; what was missed is stored once it is done."""
        self._back("the connection was lost")
        activity = self._call("session.metadata.activity")
        if isinstance(activity, dict) and activity.get("hasActiveWork"):
            return []
        stored = self._call("session.getMessages")
        text = answer_to(turn.prompt, stored.get("events") if isinstance(stored, dict) else None)
        if text is None:
            raise PluginError("the turn ended with the connection, and has no answer; what was said before is kept")
        turn.answer = text
        return [Shown(What.TEXT, f"\n{text}"), Shown(What.END)]

    def _back(self, why: str) -> None:
        """Connect again, for as long as a pod may take to be replaced."""
        say(f"  {why}; connecting again", style="dim", out=sys.stderr)
        end = time.monotonic() + RECONNECT_S
        while True:
            try:
                self.talker.open()
                self._forget()
                self.resume()
                return
            except (PluginError, ServerError):
                if time.monotonic() > end:
                    raise
                time.sleep(PAUSE_S)

    def _answer(self, asked: Shown) -> None:
        decision = self.may(asked.text)
        with contextlib.suppress(RpcError):  # somebody else has answered
            self._call(
                "session.permissions.handlePendingPermissionRequest",
                requestId=asked.id,
                result={"kind": decision.value},
            )

    def _abort(self, turn: Turn) -> None:
        try:
            self._call("session.abort", timeout_s=ABORT_S)
            self._show(turn, time.monotonic() + ABORT_S)
        except (TimeoutError, ServerError):
            say("  the turn has not ended yet", style="yellow", out=sys.stderr)
        turn.aborted = turn.interrupted = True

    def _forget(self) -> None:
        """What came while nobody looked."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.talker.events.get_nowait()

    def _call(self, method: str, timeout_s: float | None = None, **params: Any) -> Any:
        return self.talker.call(method, timeout_s, sessionId=self.session, **params)
