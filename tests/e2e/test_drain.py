"""No turn is lost: whatever stops a server, running turns finish first, up to the deadline; and it says why."""

import os
import signal
import time
import uuid
from typing import Any

import pytest

from copilot_operator.domain.kinds import DEPLOYMENT
from copilot_operator.domain.naming import server_of
from tests.cluster.layout import ROOT
from tests.support.installation import install_api
from tests.support.kube import NAMESPACE, Object, conditions
from tests.support.node import agent_of
from tests.support.place import Place
from tests.support.talk import TalkFailed


def a_word() -> str:
    return f"w{uuid.uuid4().hex[:8]}"


async def recalls(place: Place, provider: Any, tenant: str, *words: str) -> None:
    await place.until_ready(tenant)
    assert await place.say(tenant, provider, "RECALL", resume=True) == [f"notes: {' '.join(words)}"]


async def test_a_busy_server_is_suspended_once_its_turn_is_done(place: Place, provider: Any) -> None:
    place.pool()
    place.tenant("jan")
    await place.until_ready("jan")
    word = a_word()
    turn = await place.in_a_turn(provider, "jan", word, 12)
    place.tenant("jan", suspended=True)
    told = await place.until_reason("jan", "Draining")
    assert "spec.suspended is true" in told["message"]
    await place.until(lambda: drain_of(place, "jan").get("busy") == 1, within_s=10, what="it is counted", about="jan")
    assert drain_of(place, "jan")["cause"] == "Suspension"
    service = place.service("jan")
    assert service
    assert "copilot-operator.io/cordoned" in service["spec"]["selector"], "it still takes new connections"
    assert not turn.done()
    (answer,) = await turn
    answered_at = time.monotonic()
    assert answer
    await place.until_reason("jan", "Suspended", within_s=30)
    print(f"drain: suspended {time.monotonic() - answered_at:.1f} s after the turn")
    assert "drain" not in place.get("jan")["status"]
    assert [event["reason"] for event in place.kube.events(place.namespace, "jan")] == [
        "ServerReady",
        "Draining",
        "Stopping",
        "Suspended",
    ]
    place.tenant("jan", suspended=False)
    await recalls(place, provider, "jan", "first", word)


async def test_a_cause_that_goes_away_ends_the_drain_and_the_server_serves_again(place: Place, provider: Any) -> None:
    place.pool()
    place.tenant("kim")
    await place.until_ready("kim")
    before, word = place.running("kim"), a_word()
    turn = await place.in_a_turn(provider, "kim", word, 15)
    place.tenant("kim", suspended=True)
    await place.until_reason("kim", "Draining")
    place.tenant("kim", suspended=False)
    await place.until_ready("kim", within_s=15)
    assert not turn.done(), "the turn was over: nothing was tested"
    await turn
    assert place.running("kim") == before
    await recalls(place, provider, "kim", "first", word)


async def test_the_deadline_cuts_and_the_client_hears_an_end(place: Place, provider: Any) -> None:
    place.pool(drain={"timeout": "3s"})
    place.tenant("lea")
    await place.until_ready("lea")
    turn = await place.in_a_turn(provider, "lea", a_word(), 50)
    began = time.monotonic()
    place.tenant("lea", suspended=True)
    with pytest.raises((TalkFailed, IndexError)):
        _ = (await turn)[0][1]
    heard_s = time.monotonic() - began
    await place.until_reason("lea", "Suspended", within_s=30)
    assert heard_s < 20, "silence instead of an end"
    told = [event["message"] for event in place.kube.events(place.namespace, "lea") if event["reason"] == "Stopping"]
    assert ["1 turns were cut at the deadline" in message for message in told] == [True]
    place.tenant("lea", suspended=False)
    await place.until_ready("lea")
    await place.say("lea", provider, "hello", resume=True)


async def test_wait_waits_says_for_what_and_the_way_out(place: Place, provider: Any) -> None:
    place.pool(drain={"timeout": "1s", "onTimeout": "Wait"})
    place.tenant("mia")
    await place.until_ready("mia")
    word = a_word()
    turn = await place.in_a_turn(provider, "mia", word, 12)
    place.tenant("mia", suspended=True)
    await place.until_reason("mia", "DrainOverdue")
    await place.until(  # with so short a timeout it may be overdue before its sessions were counted
        lambda: "1 sessions left: 1 in a turn" in conditions(place.get("mia"))["Ready"]["message"],
        within_s=10, what="it says what it waits for", about="mia",
    )  # fmt: skip
    told = conditions(place.get("mia"))["Ready"]
    assert "drain.onTimeout: Abort" in told["message"]
    await turn
    await place.until_reason("mia", "Suspended", within_s=30)
    place.tenant("mia", suspended=False)
    await recalls(place, provider, "mia", "first", word)


async def test_another_timeout_reaches_a_drain_under_way(place: Place, provider: Any) -> None:
    place.pool(drain={"timeout": "5m"})
    place.tenant("ned")
    await place.until_ready("ned")
    turn = await place.in_a_turn(provider, "ned", a_word(), 55)
    place.tenant("ned", suspended=True)
    await place.until_reason("ned", "Draining")
    began = time.monotonic()
    place.pool(drain={"timeout": "0s"})
    await place.until_reason("ned", "Suspended", within_s=40)
    assert time.monotonic() - began < 30
    with pytest.raises((TalkFailed, IndexError)):
        _ = (await turn)[0][1]


async def test_the_drain_goes_on_while_the_operator_is_dead(place: Place, provider: Any) -> None:
    place.pool()
    place.tenant("ora")
    await place.until_ready("ora")
    word = a_word()
    turn = await place.in_a_turn(provider, "ora", word, 10)
    place.tenant("ora", suspended=True)
    await place.until_reason("ora", "Draining")
    place.operator.kill()
    await turn
    await place.until(
        lambda: (place.agent_state("ora") or {})["draining"]["phase"] == "Done", within_s=15, what="the agent is done"
    )
    assert place.pods("ora"), "nobody has stopped it meanwhile"
    place.operator.start()
    await place.until_reason("ora", "Suspended", within_s=30)
    place.tenant("ora", suspended=False)
    await recalls(place, provider, "ora", "first", word)


async def test_an_agent_that_is_killed_in_the_middle_loses_nothing(place: Place, provider: Any) -> None:
    place.pool()
    place.tenant("pia")
    await place.until_ready("pia")
    word = a_word()
    turn = await place.in_a_turn(provider, "pia", word, 15)
    place.tenant("pia", suspended=True)
    await place.until_reason("pia", "Draining")
    (pod,) = place.pods("pia")
    os.kill(agent_of(pod), signal.SIGKILL)
    await turn
    await place.until_reason("pia", "Suspended", within_s=60)
    place.tenant("pia", suspended=False)
    await recalls(place, provider, "pia", "first", word)


async def test_an_upgrade_of_the_operator_changes_no_template_under_a_busy_server(place: Place, provider: Any) -> None:
    place.pool()
    place.tenant("quy")
    await place.until_ready("quy")
    word, before = a_word(), place.running("quy")
    turn = await place.in_a_turn(provider, "quy", word, 45)
    live = place.deployment("quy")
    assert live
    template, since = live["spec"]["template"], live["metadata"]["resourceVersion"]
    place.operator.stop()
    place.operator.image, released = "copilot-operator:next", place.operator.image
    try:
        place.operator.start()
        place.tenant("late", suspended=True)
        await place.until_reason("late", "Suspended")  # by then it has looked at everything
        assert not turn.done(), "the turn was over: nothing was tested"
        writes = place.kube.history(DEPLOYMENT, place.namespace, since)
        ours = [obj for _, obj in writes if obj["metadata"]["name"] == server_of("quy")]
        assert [obj for obj in ours if obj["spec"]["template"] != template and obj["spec"]["replicas"] > 0] == []
        await turn
        assert place.running("quy") == before
    finally:
        place.operator.stop()
        place.operator.image = released
        place.operator.start()
    await recalls(place, provider, "quy", "first", word)


async def test_a_namespace_with_a_busy_server_goes_with_everything_in_it(place: Place, provider: Any) -> None:
    place.pool()
    place.tenant("roy")
    await place.until_ready("roy")
    turn = await place.in_a_turn(provider, "roy", a_word(), 8)
    place.kube.delete(NAMESPACE, "", place.namespace)
    (answer,) = await turn
    assert answer, "deleted by others, too, a pod waits for its turns"
    await place.until(
        lambda: place.kube.find(NAMESPACE, "", place.namespace) is None, within_s=420, what="the namespace is gone"
    )


async def test_turns_finish_when_the_crds_are_uninstalled_under_us_and_all_works_when_they_are_back(
    place: Place, provider: Any
) -> None:
    place.pool()
    place.tenant("sue")
    await place.until_ready("sue")
    turn = await place.in_a_turn(provider, "sue", a_word(), 15)
    place.kube.kubectl("delete", "-k", str(ROOT / "crds"))
    assert not turn.done(), "the turn was over: nothing was tested"
    (answer,) = await turn
    assert answer, "what the garbage collector takes, too, waits for its turns"
    await place.until(lambda: not place.pods("sue"), within_s=60, what="the children are gone")
    await place.until(place.operator.has_ended, within_s=60, what="the operator ends")
    assert "were the CRDs uninstalled?" in place.operator.said()
    place.operator.start(wait=False)  # as kubelet does
    await place.until(lambda: "the CRDs are missing" in place.operator.said(), within_s=20, what="it waits for them")
    install_api(place.kube)
    place.pool()
    place.tenant("sue", suspended=True)
    await place.until_reason("sue", "Suspended", within_s=60)


def drain_of(place: Place, tenant: str) -> Object:
    found: Object = (place.get(tenant).get("status") or {}).get("drain") or {}
    return found
