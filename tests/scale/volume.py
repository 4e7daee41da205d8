"""``python -m tests.scale.volume``: what agents and servers with one volume take at rest, one line of JSON.

Three real CLIs share ten thousand stored sessions, of which each has twenty loaded; beside each is its agent, asked for
its state as the operator asks. Seconds of processor time: from the agents' start until all have counted, and over the
minute after that.
"""

import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from tests.contract.conftest import TOKEN, subject_of
from tests.scale.client import say
from tests.scale.janitor import copy, cpu_s, have_one_session
from tests.support.agent import RunningAgent, running_agent
from tests.support.cli import Cli, real_cli
from tests.support.eventually import eventually
from tests.support.model import ModelServer

SESSIONS: Final = 10_000
SERVERS: Final = 3
LOADED: Final = 20
REST_S: Final = 60.0
ASK_EVERY_S: Final = 5.0


async def have_loaded(cli: Cli, agent: RunningAgent, number: int, stack: AsyncExitStack) -> None:
    """Each with a permission, as gateways load them."""
    model = await stack.enter_async_context(ModelServer())
    subject = subject_of(cli, model)
    client = await subject.client()
    stack.push_async_callback(client.connection.close)
    for index in range(number * LOADED, (number + 1) * LOADED):
        id = f"session-{index:05}"
        status, body = await agent.get(f"/slots?most=100000&code_length=0&ids={id}&permits=p{index}&wait_s=5")
        assert (status, json.loads(body)["lacks"]) == (200, {id: ""}), body
        await client("session.resume", sessionId=id, **subject.options)
        await agent.get(f"/claims/settle?settled=p{index}")


async def measure(directory: Path) -> dict[str, Any]:
    volume, claims = directory / "session-state", directory / "claims"
    claims.mkdir()
    async with real_cli(directory / "first", token=TOKEN) as first:
        await have_one_session(first)
    (directory / "first" / "copilot" / "session-state").rename(volume)
    say(f"copying one session {SESSIONS} times")
    await asyncio.to_thread(copy, volume, SESSIONS, time.time())
    async with AsyncExitStack() as stack:
        clis, agents = [], []
        for number in range(SERVERS):
            data = directory / f"server-{number}"
            (data / "copilot").mkdir(parents=True)
            (data / "copilot" / "session-state").symlink_to(volume)
            clis.append(await stack.enter_async_context(real_cli(data, token=TOKEN)))
        servers_before, began = sum(cpu_s(cli.pid) for cli in clis), time.monotonic()
        for number, cli in enumerate(clis):
            beside = running_agent(
                cli.port, TOKEN, directory / f"server-{number}", COPILOT_AGENT_CLAIMS=str(claims),
                COPILOT_AGENT_SESSIONS=str(volume), COPILOT_AGENT_POD_UID=f"uid-{number}", HOSTNAME=f"pod-{number}",
            )  # fmt: skip
            agents.append(await stack.enter_async_context(beside))

        async def count(loaded: int) -> bool:
            found = [(await agent.state())["sessions"] for agent in agents]
            return all((each["loaded"], each["stored"]) == (loaded, SESSIONS) for each in found)

        async def have_counted() -> bool:
            return await count(0)

        await eventually(have_counted, within_s=300, what="all have counted", every_s=ASK_EVERY_S)
        begin_s = time.monotonic() - began
        servers_began, agents_began = sum(cpu_s(cli.pid) for cli in clis), sum(agent.cpu_s for agent in agents)
        for number, (cli, agent) in enumerate(zip(clis, agents, strict=True)):
            await have_loaded(cli, agent, number, stack)

        async def have_counted_loaded() -> bool:
            return await count(LOADED)

        await eventually(have_counted_loaded, within_s=60, what="loaded ones are counted", every_s=ASK_EVERY_S)
        servers_rest, agents_rest = sum(cpu_s(cli.pid) for cli in clis), sum(agent.cpu_s for agent in agents)
        ends_at = time.monotonic() + REST_S
        while time.monotonic() < ends_at:
            assert await have_counted_loaded()
            await asyncio.sleep(ASK_EVERY_S)
        return {
            "bench": "volume", "sessions": SESSIONS, "servers": SERVERS, "begin_s": round(begin_s, 1),
            "begin_servers_cpu_s": round(servers_began - servers_before, 2),
            "begin_agents_cpu_s": round(agents_began, 2),
            "minute_servers_cpu_s": round(sum(cpu_s(cli.pid) for cli in clis) - servers_rest, 2),
            "minute_agents_cpu_s": round(sum(agent.cpu_s for agent in agents) - agents_rest, 2),
        }  # fmt: skip


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="volume-") as directory:
        print(json.dumps(asyncio.run(measure(Path(directory)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
