"""What an application does with the official Python SDK, and what it saw: the same whichever way the server is reached.

Each scenario works on sessions of its own, whose ids begin with ``id``, and returns what it saw as JSON. The Node SDK
does the same in ``node_sdk/scenarios.mjs``.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from copilot import CopilotClient, RuntimeConnection
from copilot.rpc import PermissionDecisionApproveOnce, PermissionDecisionReject
from copilot.tools import Tool, ToolInvocation, ToolResult

from tests.support.eventually import eventually

TURN_S: Final = 20.0
STEP_S: Final = 10.0


@dataclass(frozen=True)
class Place:
    """Where an application connects to. Without a model's address the place brings its own credential."""

    url: str  # host:port
    token: str = field(repr=False)
    model_url: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Of ``create_session`` and ``resume_session``."""
        if self.model_url is None:
            return {"model": "fake-model"}
        provider = {"type": "openai", "base_url": self.model_url, "api_key": "not-a-key", "wire_api": "completions"}
        return {"model": "fake-model", "provider": provider}


class App:
    """One client of the SDK and what its sessions told it."""

    def __init__(self, client: Any, place: Place) -> None:
        self.client, self.place = client, place

    async def create(self, id: str, **settings: Any) -> Any:
        return await self._opening(self.client.create_session(session_id=id, **self._with_defaults(settings)))

    async def resume(self, id: str, **settings: Any) -> Any:
        return await self._opening(self.client.resume_session(id, **self._with_defaults(settings)))

    async def listed(self, prefix: str) -> list[str]:
        """Ids of the stored sessions that belong to one scenario."""
        sessions = await self.client.list_sessions()
        return sorted(session.session_id for session in sessions if session.session_id.startswith(prefix))

    def _with_defaults(self, settings: dict[str, Any]) -> dict[str, Any]:
        return self.place.settings | {"on_permission_request": approve} | settings

    async def _opening(self, call: Awaitable[Any]) -> Any:
        async with asyncio.timeout(STEP_S):
            return await call


@asynccontextmanager
async def app(place: Place) -> AsyncIterator[App]:
    """A connected client, stopped at the end as an application stops it."""
    client = CopilotClient(connection=RuntimeConnection.for_uri(place.url, connection_token=place.token))
    async with asyncio.timeout(STEP_S):
        await client.start()
    try:
        yield App(client, place)
    finally:
        async with asyncio.timeout(STEP_S):
            await client.stop()


class Heard:
    """The events of one session, as they came."""

    def __init__(self, session: Any) -> None:
        self.events: list[Any] = []
        session.on(self.events.append)

    def of(self, kind: str) -> list[Any]:
        """The data of the events of one type."""
        return [event.data for event in self.events if event.type.value == kind]

    async def until(self, kind: str, count: int = 1, within_s: float = TURN_S) -> None:
        await eventually(lambda: len(self.of(kind)) >= count, within_s=within_s, what=f"{count} x {kind}")


def approve(request: Any, invocation: Any) -> Any:
    return PermissionDecisionApproveOnce()


async def say(session: Any, prompt: str) -> str:
    """One turn; the answer."""
    answer = await session.send_and_wait(prompt, timeout=TURN_S)
    assert answer is not None, f"no answer to: {prompt}"
    return str(answer.data.content)


async def failure_of(call: Awaitable[Any]) -> str:
    """What the SDK raises, in the server's words."""
    try:
        async with asyncio.timeout(STEP_S):
            await call
    except TimeoutError:
        return "no answer"
    except Exception as error:  # whatever the SDK raises is what is looked at
        return str(getattr(error, "message", None) or error)
    return "no failure"


def weather(calls: list[Any]) -> Tool:
    """A tool of the client that writes down how it was called."""

    async def handler(invocation: ToolInvocation) -> ToolResult:
        calls.append([invocation.session_id, invocation.tool_name, invocation.arguments])
        return ToolResult(text_result_for_llm=f"rain in {invocation.arguments['city']}")

    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return Tool(name="get_weather", description="Tells the weather", parameters=schema, handler=handler)


WEATHER: Final = 'CALL=`get_weather {"city":"Oslo"}`'


async def conversation(place: Place, id: str) -> Any:
    async with app(place) as one:
        session = await one.create(id)
        answers = [await say(session, "ECHO=`first` NOTE=alpha"), await say(session, "RECALL NOTE=beta")]
        pong = await one.client.ping("hi")
        return {"id": session.session_id, "answers": answers, "pong": pong.message}


async def streaming(place: Place, id: str) -> Any:
    async with app(place) as one:
        session = await one.create(id, streaming=True)
        heard = Heard(session)
        answer = await say(session, "CHUNKS=4")
        return {"deltas": [data.delta_content for data in heard.of("assistant.message_delta")], "answer": answer}


async def client_tools(place: Place, id: str) -> Any:
    async with app(place) as one:
        calls: list[Any] = []
        session = await one.create(id, tools=[weather(calls)])
        return {"answer": await say(session, WEATHER), "calls": calls}


async def permissions(place: Place, id: str) -> Any:
    """The first request is refused, the second granted."""
    calls: list[Any] = []
    asked: list[Any] = []

    async def decide(request: Any, invocation: Any) -> Any:
        asked.append([invocation["session_id"], request.kind, request.tool_name])
        return PermissionDecisionReject(feedback="not now") if len(asked) == 1 else PermissionDecisionApproveOnce()

    async with app(place) as one:
        session = await one.create(id, tools=[weather(calls)], on_permission_request=decide)
        refused, granted = await say(session, WEATHER), await say(session, WEATHER)
        return {"asked": asked, "calls": len(calls), "refused": "not now" in refused, "granted": granted}


async def ask_user(place: Place, id: str) -> Any:
    questions: list[Any] = []

    async def answer(request: Any, invocation: Any) -> Any:
        questions.append([invocation["session_id"], request["question"], request["choices"]])
        return {"answer": "blue", "wasFreeform": False}

    async with app(place) as one:
        session = await one.create(id, on_user_input_request=answer)
        said = await say(session, 'CALL=`ask_user {"question":"Which colour?","choices":["red","blue"]}`')
        return {"questions": questions, "answer": said}


async def hooks(place: Place, id: str) -> Any:
    calls: list[Any] = []
    hooked: list[Any] = []

    async def submitted(given: Any, invocation: Any) -> Any:
        hooked.append(["submitted", given["sessionId"], invocation["session_id"]])

    async def before(given: Any, invocation: Any) -> Any:
        hooked.append(["before", given["toolName"], given["sessionId"]])
        return {"permissionDecision": "allow", "modifiedArgs": {"city": "Bergen"}}

    async def after(given: Any, invocation: Any) -> Any:
        hooked.append(["after", given["toolName"], given["sessionId"]])

    handlers = {"on_user_prompt_submitted": submitted, "on_pre_tool_use": before, "on_post_tool_use": after}
    async with app(place) as one:
        session = await one.create(id, tools=[weather(calls)], hooks=handlers)
        return {"answer": await say(session, WEATHER), "calls": calls, "hooked": hooked}


async def abort(place: Place, id: str) -> Any:
    async with app(place) as one:
        session = await one.create(id, streaming=True)
        heard = Heard(session)
        await session.send("CHUNKS=3 STALL=1")
        await heard.until("assistant.message_delta")
        await session.abort()
        await heard.until("session.idle")
        return {"aborts": len(heard.of("abort")), "next": await say(session, "ECHO=`after`")}


async def failing_turn(place: Place, id: str) -> Any:
    async with app(place) as one:
        session = await one.create(id)
        heard = Heard(session)
        await session.send("ERR=400")
        await heard.until("session.idle")
        [error] = heard.of("session.error")
        return {"status": error.status_code, "next": await say(session, "ECHO=`after`")}


async def resume(place: Place, id: str) -> Any:
    """The first client says good-bye; the second has the whole history."""
    async with app(place) as one:
        await say(await one.create(id), "ECHO=`first` NOTE=alpha")
    async with app(place) as two:
        session = await two.resume(id)
        events = await session.get_events()
        stored = [event.data.content for event in events if event.type.value == "assistant.message"]
        return {"id": session.session_id, "stored": stored, "answer": await say(session, "RECALL")}


async def takeover(place: Place, id: str) -> Any:
    """A second client resumes while the first is still there, with its own tools."""
    calls: list[Any] = []
    async with app(place) as one, app(place) as two:
        first = await one.create(id)
        await say(first, "ECHO=`first` NOTE=alpha")
        second = await two.resume(id, tools=[weather(calls)])
        return {"answer": await say(second, WEATHER), "calls": calls, "recalled": await say(second, "RECALL")}


async def two_clients(place: Place, id: str) -> Any:
    """Both see every turn, whoever began it."""
    async with app(place) as one, app(place) as two:
        first = await one.create(id)
        second = await two.resume(id, suppress_resume_event=True)
        heard = [Heard(first), Heard(second)]
        answers = []
        for turn, speaker in enumerate((first, second), 1):
            answers.append(await say(speaker, f"ECHO=`turn {turn}`"))
            for each in heard:  # a client that sends before it has heard the end takes that for its own turn's
                await each.until("session.idle", turn)
        await first.disconnect()
        answers.append(await say(second, "ECHO=`alone`"))
        texts = [[data.content for data in each.of("assistant.message")] for each in heard]
        return {"answers": answers, "heard": texts}


async def lists(place: Place, id: str) -> Any:
    async with app(place) as one:
        for name in (f"{id}-a", f"{id}-b"):
            await say(await one.create(name), "hello")
        found = await one.client.get_session_metadata(f"{id}-a")
        unknown = await one.client.get_session_metadata(f"{id}-c")
        return {"listed": await one.listed(id), "found": found and found.session_id, "unknown": unknown}


async def delete(place: Place, id: str) -> Any:
    async with app(place) as one:
        session = await one.create(id)
        await say(session, "hello")
        before = await one.listed(id)
        await session.disconnect()
        await one.client.delete_session(id)
        return {
            "before": before,
            "after": await one.listed(id),
            "again": await failure_of(one.client.delete_session(id)),
            "resumed": await failure_of(one.resume(id)),
        }


async def refusals(place: Place, id: str) -> Any:
    """Wrong ids, and a session that is gone while its client still holds it."""
    async with app(place) as one:
        session = await one.create(id)
        await one.client.delete_session(id)
        return {
            "unknown": await failure_of(one.resume(f"{id}-none")),
            "invalid": await failure_of(one.create("no/slash")),
            "gone": await failure_of(session.send("hello")),
        }


async def lifecycle(place: Place, id: str) -> Any:
    """What a client hears of its sessions besides their events."""
    async with app(place) as one:
        told: list[tuple[str, str]] = []
        one.client.on_lifecycle(lambda event: told.append((event.session_id, event.type)))
        session = await one.create(id)
        await say(session, "hello")
        await session.disconnect()
        await one.client.delete_session(id)
        await eventually(lambda: (id, "session.deleted") in told, within_s=STEP_S, what="the news of the deletion")
        return sorted({kind for whose, kind in told if whose == id})


SCENARIOS: Final[dict[str, Callable[[Place, str], Awaitable[Any]]]] = {
    scenario.__name__: scenario
    for scenario in (
        conversation,
        streaming,
        client_tools,
        permissions,
        ask_user,
        hooks,
        abort,
        failing_turn,
        resume,
        takeover,
        two_clients,
        lists,
        delete,
        refusals,
        lifecycle,
    )
}
