"""Several servers on one volume: any of them goes on with any session, and never two at a time."""

import json
import os
import signal
from pathlib import Path

from copilot_operator.agent.claim_files import name_of
from copilot_operator.gateway.keeper import REST_S
from tests.contract.gateway_bed import code_of
from tests.contract.shared_volume import TENANT, Meddler, shared_bed, states, turn, watched
from tests.support.eventually import eventually


async def test_a_conversation_moves_at_each_turn_and_keeps_its_context(tmp_path: Path) -> None:
    async with shared_bed(tmp_path) as bed, watched(bed, "s"):
        client = await bed.client("g")
        await client("session.create", sessionId="s", model="fake-model")
        visited = []
        for number in range(5):
            await turn(client, "s", f"NOTE=n{number} RECALL")
            [home] = await bed.loaded_on("s")
            visited.append(home)
            bed.configure("g", states(bed, **{home: "Draining"}))

            async def has_left(home: str = home) -> bool:
                return home not in await bed.loaded_on("s")

            await eventually(has_left, within_s=30, what=f"the session leaves {home}")
        messages = (await client("session.getMessages", sessionId="s"))["events"]
        answers = [each["data"]["content"] for each in messages if each["type"] == "assistant.message"]
        notes = [" ".join(f"n{before}" for before in range(number)) or "none" for number in range(5)]
        assert answers == [f"notes: {each}" for each in notes], "each turn knows of all before it"
        assert visited == [visited[0], visited[1]] * 2 + [visited[0]], "each turn elsewhere"
        assert visited[0] != visited[1]
        listed = (await client("session.list"))["sessions"]
        assert [each["sessionId"] for each in listed] == ["s"], "once, though all servers have it"
        assert (await client("session.delete", sessionId="s"))["success"] is True
        await client("session.create", sessionId="t", model="fake-model")
        await turn(client, "t", "ECHO=`one`")
        assert list((await client("sessions.bulkDelete", sessionIds=["t"]))["freedBytes"]) == ["t"]
        assert (await client("session.list"))["sessions"] == []
        await client.close()


async def test_a_gateway_that_stands_still_between_permission_and_loading_keeps_the_session_there(
    tmp_path: Path,
) -> None:
    async with shared_bed(tmp_path, gateways=("g", "h")) as bed, watched(bed, "s"):
        first = await bed.client("g")
        await first("session.create", sessionId="s", model="fake-model")
        await turn(first, "s", "ECHO=`one`")
        [home] = await bed.loaded_on("s")
        [other] = bed.nodes.keys() - {home}
        await first("session.destroy", sessionId="s")
        await first.close()

        async def is_nowhere() -> bool:
            claimed = [each for each in (tmp_path / "claims").rglob("*") if each.is_file()]
            return not claimed and not await bed.loaded_on("s")

        await eventually(is_nowhere, within_s=4 * REST_S, what="no keeper has it loaded any more, or may load it")
        stopped, refused = [False], [0]

        def stop(path: str, answer: bytes) -> None:
            if path.startswith("/slots?") and not stopped[0]:
                stopped[0] = json.loads(answer.partition(b"\r\n\r\n")[2])["lacks"] != {}
                os.kill(bed.gateways["g"].pid, signal.SIGSTOP)

        def count(path: str, answer: bytes) -> None:
            refused[0] += path.startswith("/claims/release") and b'{"free"' in answer and b": false" in answer

        agent = bed.nodes[home].agent.port
        async with Meddler(agent, stop).serving() as meddler, Meddler(agent, count).serving() as counter:
            await bed.reconfigure("g", states(bed, **{other: "Draining"}), **{home: meddler.port})
            again = await bed.client("g")
            held = again.begin("session.resume", sessionId="s")
            await eventually(lambda: stopped[0], within_s=30, what="it has a permission, and stands still")

            await bed.reconfigure("h", states(bed, **{home: "Draining"}), **{home: counter.port})
            elsewhere = await bed.client("h")
            waits = elsewhere.begin("session.resume", sessionId="s")
            await eventually(lambda: refused[0] >= 3, within_s=30, what="it asks for the session, and does not get it")
            assert other not in await bed.loaded_on("s"), "the permission is out"

            os.kill(bed.gateways["g"].pid, signal.SIGCONT)
            assert "result" in await again.reply(held), "it loads it there, as it may"
            assert await bed.loaded_on("s") == [home]
            await again("session.destroy", sessionId="s")
            assert "result" in await elsewhere.reply(waits)
            assert await bed.loaded_on("s") == [other]
            for client in (again, elsewhere):
                await client.close()


async def test_idle_sessions_move_to_a_server_that_has_come_until_both_have_as_many(tmp_path: Path) -> None:
    async with shared_bed(tmp_path) as bed, watched(bed, "s0"):
        bed.pool = {"routing": "LeastSessions", "idle": {"movesS": 1}}
        await bed.reconfigure("g", {"a": "Serving"})
        client = await bed.client("g")
        idle = [f"s{number}" for number in range(4)]
        for id in (*idle, "works"):
            await client("session.create", sessionId=id, model="fake-model")
        for id in idle:
            await turn(client, id, f"NOTE={id}")
        await client("session.send", sessionId="works", prompt="SLEEP=45")
        await bed.reconfigure("g", {"a": "Serving", "b": "Serving"})

        async def left() -> list[str]:
            return [id for id in idle if await bed.loaded_on(id) == []]

        async def two_have_left() -> bool:
            claimed = {path.name for path in (tmp_path / "claims").iterdir()}
            away = await left()
            return len(away) == 2 and not claimed & {name_of(f"{code_of(TENANT)}{id}") for id in away}

        await eventually(two_have_left, within_s=60, what="two of the five have left", every_s=0.5)
        away = await left()
        assert away == idle[:2], "the longest unused"
        assert await bed.loaded_on("works") == ["a"], "what works stays"
        for id in away:
            await turn(client, id, "RECALL")
            assert await bed.loaded_on(id) == ["b"]
            messages = (await client("session.getMessages", sessionId=id))["events"]
            answers = [each["data"]["content"] for each in messages if each["type"] == "assistant.message"]
            assert answers[-1] == f"notes: {id}"
        for id in idle[2:]:
            assert await bed.loaded_on(id) == ["a"]
        await client.close()


async def test_the_sessions_of_a_killed_server_go_on_elsewhere(tmp_path: Path) -> None:
    async with shared_bed(tmp_path) as bed, watched(bed, "s"):
        client = await bed.client("g")
        await client("session.create", sessionId="s", model="fake-model")
        await turn(client, "s", "ECHO=`one`")
        [home] = await bed.loaded_on("s")
        await bed.nodes[home].cli.stop(signal.SIGKILL)
        await turn(client, "s", "ECHO=`two`")
        assert await bed.loaded_on("s") == [name for name in bed.nodes if name != home]
        await client.close()


async def test_while_an_agent_stands_still_nobody_takes_over_until_its_pod_is_gone(tmp_path: Path) -> None:
    """As on a node that can't be reached: the server may write still, and does; when it has ended nobody knows."""
    async with shared_bed(tmp_path, gateways=("g", "h")) as bed, watched(bed, "s"):
        client = await bed.client("g")
        await client("session.create", sessionId="s", model="fake-model")
        await turn(client, "s", "NOTE=walnut")
        [home] = await bed.loaded_on("s")
        [other] = bed.nodes.keys() - {home}
        node = bed.nodes[home]
        node.agent.process.send_signal(signal.SIGSTOP)
        try:
            await bed.reconfigure("h", {other: "Serving"})
            elsewhere = await bed.client("h")
            waits = elsewhere.begin("session.resume", sessionId="s")

            async def is_told() -> bool:
                answer = await bed.gateways["h"].tells_all("/tenants")
                return any("(which there is)" in why and count == 1 for why, count in answer["waits"].items())

            await eventually(is_told, within_s=30, what="it is said what is waited for")
            await turn(client, "s", "NOTE=hazel")  # over the connection that there is
            assert await bed.loaded_on("s") == [home]
            await node.cli.stop(signal.SIGKILL)
            await eventually(is_told, within_s=30, what="it is waited for still")
            assert not await bed.loaded_on("s")
            bed.pods(bed.nodes[other].pod)
            assert "result" in await elsewhere.reply(waits)
            assert await bed.loaded_on("s") == [other]
            await turn(elsewhere, "s", "RECALL")
            assert "notes: walnut hazel" in json.dumps(await elsewhere("session.getMessages", sessionId="s"))
        finally:
            node.agent.process.send_signal(signal.SIGCONT)
        for each in (client, elsewhere):
            await each.close()
