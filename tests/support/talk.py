"""An application in the cluster's network: connects with the official SDK, has conversations, tells the answers.

One process for many conversations, since importing the SDK takes seconds. It reads one JSON line per :class:`Talk`,
with an ``id``, and answers with a line ``{"id": ..., "answers": [...]}`` or ``{"id": ..., "error": "..."}``.
"""

import asyncio
import itertools
import json
import logging
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Final

from tests.cluster.api import Cluster
from tests.cluster.layout import ROOT

TURN_S: Final = 60.0
START_S: Final = 65.0  # longer than a gateway holds a request
TALK_S: Final = 180.0
END_S: Final = 10.0


@dataclass(frozen=True)
class Talk:
    """What to say to which server; without prompts it is connected to and pinged. ``token`` stays out of logs.

    ``server_stops``: it is to stop with the last turn, and may be gone before the client could detach its session.
    """

    url: str  # host:port
    token: str = field(repr=False)
    session: str = "none"
    prompts: tuple[str, ...] = ()
    resume: bool = False
    model: str | None = "fake-model"
    provider: dict[str, Any] | None = field(default=None, repr=False)
    server_stops: bool = False


class TalkFailed(Exception):
    """The conversation broke off; the message ends with what the SDK raised."""


class Application:
    """The caller's side: any thread may talk."""

    def __init__(self, cluster: Cluster) -> None:
        argv = [sys.executable, "-m", "tests.support.talk"]
        self._process = cluster.start_in_network(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self._lock = threading.Lock()
        self._ids = itertools.count()
        self._open: dict[int, Future[list[str]]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Application":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def talk(self, what: Talk, *, timeout_s: float = TALK_S) -> list[str]:
        """The answers, one for each prompt. Raises TalkFailed."""
        answers: Future[list[str]] = Future()
        with self._lock:
            number = next(self._ids)
            self._open[number] = answers
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps({"id": number} | asdict(what)) + "\n")
                self._process.stdin.flush()
            except OSError as error:
                raise TalkFailed(f"{what}: the application has ended") from error
        try:
            return answers.result(timeout_s)
        except TimeoutError as error:
            raise TalkFailed(f"{what}: no end within {timeout_s:g} s") from error

    def close(self) -> None:
        """End the application; its input's end is its sign."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_S)
        self._reader.join(END_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            document = json.loads(line)
            answers = self._open.pop(document["id"])
            if "error" in document:
                answers.set_exception(TalkFailed(document["error"]))
            else:
                answers.set_result(document["answers"])
        for left in list(self._open.values()):
            left.set_exception(TalkFailed("the application has ended"))


def talk(cluster: Cluster, what: Talk, *, timeout_s: float = TALK_S) -> list[str]:
    """One conversation by an application that comes and goes. Raises TalkFailed."""
    with Application(cluster) as application:
        return application.talk(what, timeout_s=timeout_s)


async def converse(what: Talk) -> list[str]:
    """One conversation on a connection of its own."""
    from copilot import CopilotClient, RuntimeConnection
    from copilot.session import PermissionHandler

    client = CopilotClient(connection=RuntimeConnection.for_uri(what.url, connection_token=what.token))
    async with asyncio.timeout(START_S):
        await client.start()
        await client.ping()
        settings: dict[str, Any] = {
            "model": what.model,
            "provider": what.provider,
            "on_permission_request": PermissionHandler.approve_all,
        }
        settings = {name: value for name, value in settings.items() if value is not None}
        session = None
        if what.prompts and what.resume:
            session = await client.resume_session(what.session, **settings)
        elif what.prompts:
            session = await client.create_session(session_id=what.session, **settings)
    answers = []
    for prompt in what.prompts:
        assert session is not None
        answer = await session.send_and_wait(prompt, timeout=TURN_S)
        if answer is None:
            raise TalkFailed(f"no answer to: {prompt}")
        answers.append(str(getattr(answer.data, "content", "")))
    async with asyncio.timeout(START_S):
        await (client.force_stop() if what.server_stops else client.stop())
    return answers


async def answer(line: str) -> None:
    """Have the conversation that a line asks for, and print its outcome."""
    document = json.loads(line)
    number = document.pop("id")
    what = Talk(**document | {"prompts": tuple(document["prompts"])})
    outcome: dict[str, Any]
    try:
        outcome = {"answers": await converse(what)}
    except Exception as error:  # whatever the SDK raises is for the caller to judge
        outcome = {"error": f"{what}: {type(error).__name__}: {error}"}
    print(json.dumps({"id": number} | outcome), flush=True)


async def serve() -> None:
    """Until the end of standard input; conversations go on at the same time."""
    import copilot  # noqa: F401 - the costly part, before anybody waits for it

    logging.getLogger("copilot").setLevel(logging.CRITICAL)  # failures are answers here; the SDK logs each as well

    async with asyncio.TaskGroup() as group:
        while line := await asyncio.to_thread(sys.stdin.readline):
            group.create_task(answer(line))


if __name__ == "__main__":
    asyncio.run(serve())
