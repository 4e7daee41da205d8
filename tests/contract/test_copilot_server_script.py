"""The script that starts the CLI in its container, with the real CLI: one CLI per state directory, logs, signals."""

import asyncio
import fcntl
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from copilot_operator.rpc.client import Connection
from tests.cluster.image_cache import cache_directory
from tests.cluster.images import RECIPES
from tests.support.cli import cli_binary, runtime_binary
from tests.support.eventually import eventually
from tests.support.model import ModelServer

SCRIPT: Final = RECIPES / "cli" / "copilot-server"
START_S: Final = 60.0
LISTENING: Final = re.compile(r"listening on port (\d+)")


class Server:
    """The script as a process, in a process session of its own, so that whatever it leaves behind can be found."""

    def __init__(
        self,
        data: Path,
        *,
        flags: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        inside: tuple[str, ...] = (),
    ) -> None:
        """``inside``: the words in front of the script, see ``tests/support/volume.py``."""
        self.data, self.flags, self.env, self.inside = data, flags, env or {}, inside
        self.output = data.parent / f"output-{os.urandom(4).hex()}"

    async def start(self) -> "Server":
        binaries = [await asyncio.to_thread(binary) for binary in (cli_binary, runtime_binary)]
        environment = {
            "PATH": ":".join([*(str(binary.parent) for binary in binaries), os.environ["PATH"]]),
            "HOME": str(self.data / "home"),
            "COPILOT_HOME": str(self.data / "copilot"),
            "COPILOT_CACHE_HOME": str(cache_directory() / "cli-unpacked"),
            "COPILOT_LOG_DIR": str(self.data.parent / "logs"),
            "COPILOT_CONNECTION_TOKEN": "token",
        } | self.env
        with open(self.output, "w") as output:  # noqa: ASYNC230  # a local file, at once
            self.process = await asyncio.create_subprocess_exec(
                *self.inside, SCRIPT, *self.chosen, "--host", "127.0.0.1", "--port", "0", *self.flags,
                env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        return self

    chosen: tuple[str, ...] = ()
    """What is said before all flags, such as ``--runtime``."""

    @property
    def said(self) -> str:
        return self.output.read_text()

    async def listening(self) -> int:
        """Wait until the CLI listens, and return its port."""
        found = await eventually(lambda: LISTENING.search(self.said), within_s=START_S, what=f"listening: {self.said}")
        return int(found[1])

    def processes(self) -> dict[int, str]:
        """Everything alive that this start brought about, by process id."""
        return {pid: command for pid, session, command in processes() if session == self.process.pid}

    async def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        async with asyncio.timeout(20):
            return await self.process.wait()


def environment_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def processes() -> list[tuple[int, int, str]]:
    """Process id, session and command line of everything that runs; zombies have ended."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if fields[0] not in "ZX":
                found.append((int(directory.name), int(fields[3]), command))
    return found


def holders(server: Server, lock: Path) -> list[tuple[int, str]]:
    """Who of a server's processes has the lock file open: process id and number of the descriptor."""
    found = []
    for pid in server.processes():
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                if os.readlink(link) == str(lock):
                    found.append((pid, link.name))
    return found


def flags_of(pid: int, descriptor: str) -> int:
    found = re.search(r"^flags:\s*(\d+)", Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text(), re.MULTILINE)
    assert found
    return int(found[1], 8)


def lock_is_free(data: Path) -> bool:
    with open(data / "server.lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start the script on one and the same state directory, as often as the test likes."""
    started: list[Server] = []

    async def start(*flags: str, **env: str) -> Server:
        server = await Server(tmp_path / "data", flags=flags, env=env).start()
        started.append(server)
        return server

    yield start
    for server in started:
        for pid in server.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await server.process.wait()


async def test_the_cli_is_the_process_that_was_started_and_holds_the_lock(start: Any, tmp_path: Path) -> None:
    server = await start()
    await server.listening()
    command = server.processes()[server.process.pid]
    assert command.startswith("copilot --headless"), "the script must become the CLI, so that signals reach it"
    assert not lock_is_free(tmp_path / "data")
    lock = tmp_path / "data" / "server.lock"

    def cli_alone() -> bool:  # a child of the CLI has it too, between its fork and its exec
        return [pid for pid, _ in holders(server, lock)] == [server.process.pid]

    await eventually(cli_alone, within_s=30, what="nothing but the CLI keeps the lock")
    [(pid, number)] = holders(server, lock)
    assert flags_of(pid, number) & os.O_CLOEXEC, "what the CLI's tools start must not keep the lock"


async def test_a_second_server_says_why_it_waits_and_proceeds_when_the_first_was_killed(start: Any) -> None:
    first = await start()
    await first.listening()
    second = await start()
    await eventually(lambda: "waiting until it has ended" in second.said, within_s=30, what="the second says why")
    assert f"another server works on {first.data} ({os.uname().nodename}, started " in second.said
    assert not LISTENING.search(second.said)
    assert await first.end(signal.SIGKILL) == -signal.SIGKILL
    await second.listening()


async def test_one_that_waits_can_be_stopped(start: Any) -> None:
    first = await start()
    await first.listening()
    second = await start()
    await eventually(lambda: "waiting until it has ended" in second.said, within_s=30, what="the second waits")
    assert await second.end(signal.SIGTERM) == 128 + signal.SIGTERM
    await eventually(lambda: not second.processes(), within_s=30, what="nothing is left of the second")
    assert first.process.returncode is None


async def test_logs_come_to_stdout_and_sigterm_ends_everything(start: Any, tmp_path: Path) -> None:
    server = await start("--log-level", "info")
    await server.listening()
    await eventually(lambda: "Server started, waiting for requests" in server.said, within_s=30, what="the CLI's log")
    assert await server.end(signal.SIGTERM) == 0
    await eventually(lambda: not server.processes(), within_s=30, what="no tail is left")
    assert lock_is_free(tmp_path / "data")
    assert server.said.count("Server started, waiting for requests") == 1


@pytest.mark.parametrize("variable", ["COPILOT_SDK_AUTH_TOKEN", "COPILOT_GITHUB_TOKEN"])
async def test_a_token_may_end_with_a_newline(start: Any, variable: str) -> None:
    server = await start(**{variable: "gho_mine\r\n"})
    await server.listening()
    assert f"{variable}=gho_mine".encode() in environment_of(server.process.pid)


async def test_a_restart_does_not_print_the_log_of_the_run_before(start: Any) -> None:
    first = await start()
    await first.listening()
    await first.end(signal.SIGKILL)
    second = await start()
    await second.listening()
    await eventually(lambda: "Server started, waiting" in second.said, within_s=30, what="the log of the second")
    assert second.said.count("Server started, waiting for requests") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up the right to write everywhere")
def test_a_state_directory_that_can_not_be_written_is_named() -> None:
    """The CLI itself exits without a word."""
    with tempfile.TemporaryDirectory() as directory:  # not pytest's own, which no other user may enter
        data = Path(directory) / "data"
        data.mkdir()
        Path(directory).chmod(0o755)
        done = subprocess.run(
            ["sh", "-s"],
            input=SCRIPT.read_bytes(),
            env={"PATH": os.environ["PATH"], "HOME": "/nowhere", "COPILOT_HOME": f"{data}/copilot"},
            cwd="/",
            capture_output=True,
            timeout=10,
            user=10001,
            group=10001,
            extra_groups=[],
        )
    assert done.returncode == 1
    assert done.stdout.decode() == f"copilot-server: uid 10001 cannot write to {data}/copilot: Permission denied\n"


async def test_names_of_sessions_can_be_read_by_the_group_and_nothing_else_can(start: Any, tmp_path: Path) -> None:
    """By the agent, of another user: it deletes by age. The CLI keeps the mode of the directory that it finds."""
    sessions = tmp_path / "data" / "copilot" / "session-state"
    sessions.mkdir(parents=True)
    sessions.chmod(0o700)  # as a CLI makes it that was started otherwise
    old = sessions / ".session-operation-locks" / "ephemeral-a.lock"
    old.parent.mkdir()
    old.touch()
    server = await start()
    connection = await Connection.open("127.0.0.1", await server.listening(), timeout_s=5)
    await connection.connect("token", timeout_s=5)
    session = {"sessionId": "a", "model": "none", "provider": {"type": "openai", "baseUrl": "http://127.0.0.1:9/v1"}}
    await connection.call("session.create", session, timeout_s=20)
    assert (sessions.stat().st_mode & 0o777, (sessions / "a").stat().st_mode & 0o777) == (0o750, 0o700)
    assert [path.name for path in old.parent.iterdir()] == ["a.lock"], "what is left of deleted sessions has gone"
    await connection.close()


async def test_what_a_crash_left_broken_is_set_aside_and_what_can_be_used_is_used(start: Any, tmp_path: Path) -> None:
    home = tmp_path / "data" / "copilot"
    state, quarantine = home / "session-state", home / "quarantine"
    names = ("good", "nul", "empty", "garbage", "torn", "padded", "yaml", "locked")
    async with ModelServer() as model:
        provider = {"type": "openai", "baseUrl": model.base_url, "apiKey": "not-a-key", "wireApi": "completions"}
        options = {"model": "fake-model", "provider": provider}
        server = await start()
        connection = await connected(server)
        for id in names:
            await connection.call("session.create", {"sessionId": id, **options}, timeout_s=20)
            await connection.call("session.send", {"sessionId": id, "prompt": "hi", "wait": True}, timeout_s=20)
        await server.end(signal.SIGKILL)  # its locks stay
        for id, break_ in BROKEN.items():
            events = state / id / "events.jsonl"
            events.write_bytes(break_(events.read_bytes()))
        (state / "yaml" / "workspace.yaml").write_bytes(bytes(193))
        (state / "locked" / f"inuse.{os.getpid()}.lock").write_text(str(os.getpid()))
        lost = (state / "nul" / "events.jsonl").read_bytes()

        server = await start()
        connection = await connected(server)
        aside = {path.name.split(".")[0]: path for path in quarantine.iterdir()}
        assert aside.keys() == {"nul", "empty", "garbage", "yaml"}
        assert (aside["nul"] / "events.jsonl").read_bytes() == lost
        assert [path.name for path in aside["yaml"].iterdir()] == ["workspace.yaml"]
        assert quarantine.stat().st_mode & 0o777 == 0o750
        listed = (await connection.call("session.list", {}, timeout_s=20))["sessions"]
        assert {each["sessionId"] for each in listed} == {"good", "torn", "padded", "yaml", "locked"}
        for id in ("good", "torn", "padded", "yaml", "locked"):
            await connection.call("session.resume", {"sessionId": id, **options}, timeout_s=20)
            await connection.call("session.send", {"sessionId": id, "prompt": "hi", "wait": True}, timeout_s=20)
        for method in ("session.create", "session.resume"):  # its name can be used again
            await connection.call(method, {"sessionId": "nul", **options}, timeout_s=20)
            await connection.call("session.send", {"sessionId": "nul", "prompt": "hi", "wait": True}, timeout_s=20)
            await connection.call("sessions.close", {"sessionId": "nul"}, timeout_s=20)
        await connection.call("sessions.close", {"sessionId": "locked"}, timeout_s=20)
        await connection.call("sessions.bulkDelete", {"sessionIds": ["locked"]}, timeout_s=20)
        assert not (state / "locked").exists()
        await connection.close()


BROKEN: Final[dict[str, Callable[[bytes], bytes]]] = {
    "nul": lambda events: bytes(len(events)),
    "empty": lambda _: b"",
    "garbage": lambda events: b"\xff\n" + events,
    "torn": lambda events: events[:-100],
    "padded": lambda events: events + bytes(5000),
}


async def connected(server: Server) -> Connection:
    connection = await Connection.open("127.0.0.1", await server.listening(), timeout_s=5)
    await connection.connect("token", timeout_s=5)
    return connection
