"""Claims on a real directory, one at a time; what happens when everything happens at once is in tests/property."""

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.agent import claims as claims_module
from copilot_operator.agent.claim_files import ClaimFiles, name_of
from copilot_operator.agent.claims import Claimed, Claims, NotOurs, uid_of
from copilot_operator.agent.cli_lock import CliLock
from copilot_operator.rpc.errors import ConnectionLost, RpcError, ServerSilent
from tests.support.eventually import eventually

NAME = name_of("s")


class Unhelpful:
    """A file system that answers as one is told to: ``fails`` raises before or after a call is carried out."""

    def __init__(self) -> None:
        self.before: Callable[..., None] = lambda call, *args: None
        self.after: Callable[..., None] = lambda call, *args: None
        self.calls: list[str] = []

    async def __call__(self, call: Callable[..., Any], *args: Any) -> Any:
        self.calls.append(call.__name__)
        self.before(call, *args)
        found = call(*args)
        self.after(call, *args)
        return found


def never(holder: str) -> bool:
    return False


async def test_who_comes_first_has_it_until_it_is_released(tmp_path: Path) -> None:
    files = ClaimFiles(tmp_path)
    assert await files.claim(NAME, "a", never) == ""
    assert await files.claim(NAME, "b", never) == "a"
    assert await files.claim(NAME, "a", never) == "", "it has it"
    await files.release(NAME, "b")
    assert await files.holders(NAME) == ["a"], "nobody releases what is another's"
    await files.release(NAME, "a")
    assert await files.claim(NAME, "b", never) == ""
    assert os.listdir(tmp_path) == [NAME], "nothing else is left behind"


async def test_of_two_who_take_over_one_does(tmp_path: Path) -> None:
    one, other = ClaimFiles(tmp_path), ClaimFiles(tmp_path)
    await one.claim(NAME, "dead", never)
    assert await one.claim(NAME, "b", lambda holder: holder == "dead") == ""
    assert await other.claim(NAME, "c", lambda holder: holder == "dead") == "b"


async def test_an_answer_that_gets_lost_is_looked_for(tmp_path: Path) -> None:
    run = Unhelpful()

    def lose(call: Any, *args: Any) -> None:
        if call is os.rename:
            raise FileNotFoundError  # the client of the file system made it again

    run.after = lose
    files = ClaimFiles(tmp_path, run)
    assert await files.claim(NAME, "a", never) == ""
    assert await files.holders(NAME) == ["a"]
    assert await files.claim(NAME, "b", lambda holder: True) == "", "a takeover likewise"


async def test_a_server_that_renames_onto_no_directory_is_helped(tmp_path: Path) -> None:
    run = Unhelpful()

    def refuse(call: Any, *args: Any) -> None:
        if call is os.rename and Path(args[1]).exists():
            raise FileExistsError(17, "it is there")

    run.before = refuse
    (tmp_path / NAME).mkdir()
    assert await ClaimFiles(tmp_path, run).claim(NAME, "a", never) == ""


async def test_what_is_not_expected_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    run = Unhelpful()

    def fail(call: Any, *args: Any) -> None:
        if call is os.rename:
            raise OSError(5, "input/output error")

    run.before = fail
    with pytest.raises(OSError, match="input/output"):
        await ClaimFiles(tmp_path, run).claim(NAME, "a", never)
    assert os.listdir(tmp_path) == []


def test_names_on_disk_are_short_and_know_case() -> None:
    assert len(name_of("x" * 250)) == 64
    assert name_of("Session") != name_of("session")
    assert name_of("s").casefold() == name_of("s")


def test_uids_stand_in_the_middle() -> None:
    assert uid_of("copilot-a-7c9-x2x_0b1d-44_18f") == "0b1d-44"
    assert uid_of("junk") == ""


class TestLock:
    def test_it_is_free_once_its_process_has_ended(self, tmp_path: Path) -> None:
        lock = CliLock(tmp_path / "server.lock")
        assert (lock.incarnation(), lock.is_free()) == (None, False), "nothing is known of one that never was"
        held = os.open(tmp_path / "server.lock", os.O_CREAT | os.O_WRONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        first = lock.incarnation()
        assert first
        assert not lock.is_free()
        os.close(held)
        assert lock.is_free()
        os.utime(tmp_path / "server.lock")
        assert lock.incarnation() != first, "another process writes into it"


class Cli:
    """As an agent asks it. ``fails`` is raised, once per method."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()
        self.asked: list[str] = []
        self.fails: dict[str, Exception] = {}

    async def __call__(self, method: str, params: dict[str, Any]) -> Any:
        self.asked.append(method)
        if error := self.fails.pop(method, None):
            raise error
        if method == "session.metadata.activity" and params["sessionId"] not in self.loaded:
            raise RpcError(method, -32603, "Session not found for sessionId: s")
        return {}


class FixedLock:
    def __init__(self, incarnation: str | None = "1") -> None:
        self.now, self.free = incarnation, False

    def incarnation(self) -> str | None:
        return self.now

    def is_free(self) -> bool:
        return self.free


def an_agent(directory: Path, uid: str) -> tuple[Claims, FixedLock]:
    lock = FixedLock()
    return Claims(ClaimFiles(directory), lock, ("pod", uid)), lock


async def test_a_permission_that_is_out_keeps_a_session_here(tmp_path: Path) -> None:
    (claims, _), cli = an_agent(tmp_path, "u1"), Cli()
    await claims.met(cli)
    await claims.look_through()
    assert await claims.grant({"s": "p1"}) == {}
    assert not await claims.release("s")
    claims.settle(["p1"])
    cli.loaded = {"s"}
    assert not await claims.release("s"), "it is loaded"
    cli.loaded = set()
    assert await claims.release("s")
    other, _ = an_agent(tmp_path, "u2")
    await other.met(Cli())
    assert await other.grant({"s": "p2"}) == {}
    assert await claims.grant({"s": "p3", "t": "p4"}) == {"s": "pod_u2_1"}


async def test_only_what_is_claimed_here_may_be_loaded_once_that_is_known(tmp_path: Path) -> None:
    (claims, lock), (other, _) = an_agent(tmp_path, "u1"), an_agent(tmp_path, "u2")
    assert claims.may_be_loaded("s"), "an agent before it may have claimed it"
    for each in (claims, other):
        await each.met(Cli())
        await each.look_through()
    assert not claims.may_be_loaded("s")
    await claims.grant({"s": "p1"})
    assert (claims.may_be_loaded("s"), other.may_be_loaded("s")) == (True, False)
    again, _ = an_agent(tmp_path, "u1")
    await again.met(Cli())
    assert again.may_be_loaded("t")
    await again.look_through()
    assert (again.may_be_loaded("s"), again.may_be_loaded("t")) == (True, False), "it finds the claim of the one before"
    claims.settle(["p1"])
    assert await claims.release("s")
    assert not claims.may_be_loaded("s")
    lock.free = True
    claims.lost()
    claims.notice_end()
    assert claims.may_be_loaded("s"), "nothing is known of another process yet"


async def test_a_permission_settled_before_it_is_given_is_none(tmp_path: Path) -> None:
    (claims, _), cli = an_agent(tmp_path, "u1"), Cli()
    await claims.met(cli)
    await claims.look_through()
    claims.settle(["p1"])
    assert await claims.grant({"s": "p1"}) == {}
    assert await claims.release("s")


async def test_nothing_is_given_without_a_sign_of_the_cli_s_life(tmp_path: Path) -> None:
    (claims, lock), cli = an_agent(tmp_path, "u1"), Cli()
    with pytest.raises(ConnectionLost):
        await claims.grant({"s": "p1"})
    await claims.met(cli)
    cli.fails["ping"] = ConnectionLost("ping")
    with pytest.raises(ConnectionLost):
        await claims.grant({"s": "p1"})
    assert os.listdir(tmp_path) == []
    lock.now = None
    with pytest.raises(ConnectionLost, match="lock"):
        await claims.met(cli)


async def test_what_an_ended_cli_had_is_free_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    (claims, lock), (other, _) = an_agent(tmp_path, "u1"), an_agent(tmp_path, "u2")
    await claims.met(Cli())
    await other.met(Cli())
    await claims.grant({"s": "p1"})
    claims.lost()
    claims.notice_end()
    assert await other.grant({"s": "p2"}) == {"s": "pod_u1_1"}, "only the connection has ended"
    lock.free = True
    claims.notice_end()
    await claims.drop_void()
    assert await other.grant({"s": "p3"}) == {}


async def test_the_pod_that_is_gone_is_taken_over_from_and_no_other(tmp_path: Path) -> None:
    (claims, _), (other, _) = an_agent(tmp_path, "u1"), an_agent(tmp_path, "u2")
    await claims.met(Cli())
    await other.met(Cli())
    await claims.grant({"s": "p1"})
    assert await other.grant({"s": "p2"}, gone=["u3"]) == {"s": "pod_u1_1"}
    assert await other.grant({"s": "p3"}, gone=["u1"]) == {}
    assert other.counts == Claimed(held=1, refused=1, taken_over=1)
    assert claims.counts == Claimed(held=1)


async def test_an_agent_that_starts_again_keeps_what_its_cli_may_have_and_drops_the_rest(tmp_path: Path) -> None:
    before, lock = an_agent(tmp_path, "u1")
    await before.met(Cli())
    await before.grant({"old": "p1"})
    lock.now = "2"
    again, lock = an_agent(tmp_path, "u1")
    lock.now = "2"
    await again.met(Cli())
    await again.grant({"s": "p2"})
    third, lock = an_agent(tmp_path, "u1")
    lock.now = "2"
    await third.met(Cli())
    await third.look_through()
    assert await third.grant({"s": "p3"}) == {}
    third.settle(["p3"])
    assert not await third.release("s"), "a permission of the second may be out"
    other, _ = an_agent(tmp_path, "u2")
    await other.met(Cli())
    assert await other.grant({"old": "p4"}) == {}, "its process has ended"


async def test_a_call_of_our_own_that_is_not_answered_is_never_over(tmp_path: Path) -> None:
    (claims, _), (other, _) = an_agent(tmp_path, "u1"), an_agent(tmp_path, "u2")
    await claims.met(Cli())
    await claims.look_through()
    await other.met(Cli())
    with pytest.raises(RpcError):
        async with claims.loading("s"):
            raise RpcError("session.resume", -32603, "no")
    assert await claims.release("s")
    with pytest.raises(ServerSilent):
        async with claims.loading("s"):
            raise ServerSilent("session.resume", 5)
    assert not await claims.release("s")
    with pytest.raises(NotOurs):
        async with other.loading("s"):
            raise AssertionError("it is another's")


async def test_a_file_system_that_takes_no_writes_is_told_of_once_and_tried_again_now_and_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "AGAIN_EVERY_S", 0.3)
    disk, lock = Unhelpful(), FixedLock()
    claims = Claims(ClaimFiles(tmp_path, disk), lock, ("pod", "u1"))
    await claims.met(Cli())
    assert await claims.grant({"s": "p1"}) == {}
    claims.lost()
    lock.free = True

    def refuse(call: Callable[..., None], *args: Any) -> None:
        if call in (os.unlink, os.rmdir, os.mkdir, os.rename):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async def nothing() -> set[str]:
        return set()

    disk.before = refuse
    disk.calls.clear()
    running = asyncio.create_task(claims.run(nothing))
    try:
        await eventually(lambda: len(disk.calls) >= 3, within_s=20, what="it is tried again")
        said = [line for line in capsys.readouterr().out.splitlines() if "Read-only" in line]
        assert len(said) == 1
        disk.before = lambda call, *args: None
        await eventually(lambda: not os.listdir(tmp_path), within_s=20, what="it is free once that is mended")
    finally:
        running.cancel()
