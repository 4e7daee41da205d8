"""An application in the cluster's network: connects with the official SDK, has a conversation, prints the answers.

Reads one :class:`Talk` as JSON from standard input and writes the list of answers to standard output.
"""

import asyncio
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.cluster.api import Cluster
from tests.cluster.layout import ROOT

TURN_S: Final = 60.0
START_S: Final = 30.0


@dataclass(frozen=True)
class Talk:
    """What to say to which server. ``token`` stays out of logs."""

    url: str  # host:port
    token: str = field(repr=False)
    session: str
    prompts: tuple[str, ...] = ()
    resume: bool = False
    model: str | None = "fake-model"
    provider: dict[str, Any] | None = field(default=None, repr=False)
    github_token: str | None = field(default=None, repr=False)


class TalkFailed(Exception):
    """The conversation broke off; the message ends with what the SDK raised."""


def talk(cluster: Cluster, what: Talk, *, timeout_s: float = 120.0) -> list[str]:
    """Have the conversation from within the cluster's network and return the answers, one for each prompt."""
    try:
        done = cluster.run_in_network(
            [sys.executable, "-m", "tests.support.talk"],
            input=json.dumps(asdict(what)),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=ROOT,
        )
    except subprocess.TimeoutExpired as error:
        raise TalkFailed(f"{what}: no end within {timeout_s:g} s") from error
    if done.returncode != 0:
        raise TalkFailed(f"{what}: {done.stderr.strip()[-2000:]}")
    answers: list[str] = json.loads(done.stdout)
    return answers


async def converse(what: Talk) -> list[str]:
    from copilot import CopilotClient, RuntimeConnection
    from copilot.session import PermissionHandler

    client = CopilotClient(connection=RuntimeConnection.for_uri(what.url, connection_token=what.token))
    async with asyncio.timeout(START_S):
        await client.start()
        await client.ping()
        settings: dict[str, Any] = {
            "model": what.model,
            "provider": what.provider,
            "github_token": what.github_token,
            "on_permission_request": PermissionHandler.approve_all,
        }
        settings = {name: value for name, value in settings.items() if value is not None}
        if not what.prompts:
            session = None
        elif what.resume:
            session = await client.resume_session(what.session, **settings)
        else:
            session = await client.create_session(session_id=what.session, **settings)
    answers = []
    for prompt in what.prompts:
        assert session is not None
        answer = await session.send_and_wait(prompt, timeout=TURN_S)
        if answer is None:
            raise TalkFailed(f"no answer to: {prompt}")
        answers.append(str(getattr(answer.data, "content", "")))
    async with asyncio.timeout(START_S):
        await client.stop()
    return answers


def main() -> int:
    document = json.load(sys.stdin)
    what = Talk(**document | {"prompts": tuple(document["prompts"])})
    json.dump(asyncio.run(converse(what)), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main())
