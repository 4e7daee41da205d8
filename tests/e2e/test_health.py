"""What does not answer is found and replaced; what works is left alone; what is worn out is renewed when idle."""

import asyncio
import contextlib
import os
import signal
import time
import uuid
from typing import Any

from tests.support.kube import conditions, is_ready
from tests.support.node import cli_of
from tests.support.place import Place
from tests.support.talk import Talk, TalkFailed

FOUND_S = 15.0
REPLACED_S = 45.0
TURNS = 50


def a_pool(place: Place, **more: Any) -> None:
    """With the health checks of the API's defaults."""
    place.pool(health={"interval": "5s"} | more.pop("health", {}), **more)


async def test_a_frozen_server_is_found_and_replaced_with_its_sessions(place: Place, provider: Any) -> None:
    a_pool(place)
    place.tenant("sam")
    await place.until_ready("sam")
    word = f"w{uuid.uuid4().hex[:8]}"
    await place.say("sam", provider, f"remember NOTE={word}")
    (pod,) = place.pods("sam")
    began = time.monotonic()
    os.kill(cli_of(pod), signal.SIGSTOP)
    await place.until(lambda: not is_ready(place.get("sam")), within_s=40, what="it is found", about="sam")
    found_s = time.monotonic() - began
    await place.until_ready("sam", within_s=90)
    ready_s = time.monotonic() - began
    print(f"health: a frozen server was found after {found_s:.1f} s, and Ready again after {ready_s:.1f} s")
    assert found_s < FOUND_S
    assert ready_s < FOUND_S + REPLACED_S
    assert [each["metadata"]["uid"] for each in place.pods("sam")] != [pod["metadata"]["uid"]]
    assert await place.say("sam", provider, "RECALL", resume=True) == [f"notes: {word}"]


async def test_a_killed_server_is_ready_again_soon(place: Place, provider: Any) -> None:
    a_pool(place)
    place.tenant("tom")
    await place.until_ready("tom")
    await place.say("tom", provider, "remember NOTE=walnut")
    (pod,) = place.pods("tom")
    began = time.monotonic()
    os.kill(cli_of(pod), signal.SIGKILL)
    await place.until(lambda: place.running("tom")[0][1] == 1, within_s=45, what="its container was started again")
    # Status may still be that of the process before: what counts is that clients get in again.
    await place.until(lambda: answers(place, "tom"), within_s=60, what="clients get in again", about="tom")
    await place.until_ready("tom", within_s=60)
    ready_s = time.monotonic() - began
    print(f"health: a killed server was Ready again after {ready_s:.1f} s")
    assert ready_s < REPLACED_S
    assert await place.say("tom", provider, "RECALL", resume=True) == ["notes: walnut"]


async def answers(place: Place, tenant: str) -> bool:
    try:
        await place.ping(tenant)
    except TalkFailed:
        return False
    return True


async def test_restarts_are_counted_and_end(place: Place, provider: Any) -> None:
    a_pool(place, health={"maxRestartsPerHour": 0})
    place.tenant("uma")
    await place.until_ready("uma")
    (pod,) = place.pods("uma")
    cli = cli_of(pod)
    os.kill(cli, signal.SIGSTOP)
    try:
        told = await place.until_reason("uma", "RestartBudgetSpent", within_s=30)
        assert "health.maxRestartsPerHour" in told["message"]
        assert place.get("uma")["status"]["phase"] == "Failed"
        assert place.running("uma") == [(pod["metadata"]["uid"], 0)]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(cli, signal.SIGCONT)
    await place.until_ready("uma")


async def test_a_server_with_fifty_turns_at_once_is_left_alone(place: Place, provider: Any) -> None:
    a_pool(place)
    place.tenant("vik")
    await place.until_ready("vik")
    before, since = place.running("vik"), len(place.kube.events(place.namespace, "vik"))
    connection = place.connection("vik")

    async def turn(number: int) -> list[str]:
        what = Talk(connection.address, connection.token, f"many-{number}", ("hello SLEEP=5",), provider=provider)
        return await asyncio.to_thread(place.application.talk, what)

    began = time.monotonic()
    answers = await asyncio.gather(*(turn(number) for number in range(TURNS)))
    print(f"health: {TURNS} turns at once took {time.monotonic() - began:.1f} s")
    assert all(len(answer) == 1 and answer[0] for answer in answers)
    assert place.running("vik") == before, "it was restarted"
    assert [each["reason"] for each in place.kube.events(place.namespace, "vik")[since:]] == []
    assert conditions(place.get("vik"))["ServerHealthy"]["status"] == "True"


async def test_a_worn_out_server_is_started_again_in_place_once_it_is_idle(place: Place, provider: Any) -> None:
    a_pool(place)
    place.tenant("wes")
    await place.until_ready("wes")
    (pod,) = place.pods("wes")
    old = cli_of(pod)
    turn = await place.in_a_turn(provider, "wes", "walnut", 20)
    a_pool(place, recycle={"maxMemory": "256Mi"})  # no CLI that has worked stays below that
    await turn
    await place.until(
        lambda: place.running("wes")[0][1] == 1, within_s=90, what="the CLI was started again", about="wes"
    )
    assert [each["metadata"]["uid"] for each in place.pods("wes")] == [pod["metadata"]["uid"]], "in the same pod"
    a_pool(place)
    await place.until(  # the tenant's status may not have heard of the restart yet
        lambda: conditions(place.pods("wes")[0])["Ready"]["status"] == "True", within_s=60, what="its pod is ready"
    )
    assert cli_of(pod) != old
    await place.until_reason("wes", "ServerReady")
    assert await place.say("wes", provider, "RECALL", resume=True) == ["notes: first walnut"]
