"""A stand-in for a language model: an OpenAI-compatible server whose answers a test steers by words in the prompt.

One file and the standard library only, so that it also runs as a pod: ``python3 model.py --host 0.0.0.0 --port 8801``.

==========================  ===========================================================================================
in the last user message    what the model does
==========================  ===========================================================================================
``SLEEP=<s>``               takes this long, spread over the chunks of the answer
``CHUNKS=<n>``              answers in so many chunks
``ERR=<status>``            answers with this HTTP error
``STALL`` or ``STALL=<n>``  answers n chunks (none: not even a header), then nothing until the client goes
``ECHO=`<text>` ``          answers with the text
``RECALL``                  answers with every ``NOTE=<word>`` of the earlier user messages: ``notes: <word> <word>``
``TOOL=`<command>` ``       calls the tool bash, and answers with what that printed
``ATOOL=`<command>` ``      the same in the background (an async shell)
``CALL=`<tool> <json>` ``   calls any tool with these arguments
==========================  ===========================================================================================

Endpoints, each with or without ``/v1``: ``POST /chat/completions``, ``POST /responses``, ``GET /models``.
``GET /stats`` counts requests. ``/user`` and ``/copilot_internal/user`` are as much of GitHub as the CLI needs to take
a token (any that does not contain "bad"); for turns one with "unpaid" in it is refused as well. Below ``/lives/<s>``
tokens of GitHub Apps are made that end after so many seconds. Every answer closes its connection, so that a client's
going is always seen.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import logging
import re
import signal
import sys
import time
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

Json = dict[str, Any]

MAX_BODY_BYTES: Final = 64 * 2**20
MAX_HEADERS: Final = 100
REQUEST_TIMEOUT_S: Final = 60.0
ANSWER_TIMEOUT_S: Final = 3600.0
MODEL: Final = "fake-model"

log = logging.getLogger("model")


# What is asked -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tool:
    """A call of a tool that the model asks its client for."""

    name: str
    arguments: Json


@dataclass(frozen=True)
class Turn:
    """One request to the model, in the terms that both APIs share."""

    users: tuple[str, ...]  # the text of every user message, oldest first
    tool_result: str | None  # what the tool said, if that is what the conversation ends with
    tools: frozenset[str] = frozenset()

    @property
    def prompt(self) -> str:
        """The message that steers the answer."""
        return self.users[-1] if self.users else ""


@dataclass(frozen=True)
class Plan:
    """How a turn is answered."""

    chunks: tuple[str, ...] = ()
    tool: Tool | None = None
    pause_s: float = 0.0  # before each chunk
    stall_after: int | None = None
    error_status: int | None = None

    @property
    def text(self) -> str:
        return "".join(self.chunks)


def plan_answer(turn: Turn) -> Plan:
    """Decide what the model does, from the directives in the last user message."""
    if turn.tool_result is not None:  # directives were followed when the tool was called; now answer, or it loops
        return Plan(chunks=in_chunks(f"the tool said: {turn.tool_result[:500]}", None))
    prompt = turn.prompt
    if status := value_of("ERR", prompt):
        return Plan(error_status=int(status))
    count = int(value_of("CHUNKS", prompt) or 0) or None
    chunks = answer_chunks(turn, count)
    stall = re.findall(r"\bSTALL\b(?:=(\d+))?", prompt)
    return Plan(
        chunks=chunks,
        tool=tool_of(turn),
        pause_s=float(value_of("SLEEP", prompt) or 0) / len(chunks),
        stall_after=int(stall[-1] or 0) if stall else None,
    )


def answer_chunks(turn: Turn, count: int | None) -> tuple[str, ...]:
    """Return the text of an answer, cut as it is streamed."""
    if (echo := value_of("ECHO", turn.prompt)) is not None:
        return in_chunks(echo, count)
    if re.search(r"\bRECALL\b", turn.prompt):
        notes = [note for message in turn.users[:-1] for note in re.findall(r'\bNOTE=([^\s"<`]+)', message)]
        return in_chunks(f"notes: {' '.join(notes) or 'none'}", count)
    return tuple(f"part{n} " for n in range(count or 3))


def tool_of(turn: Turn) -> Tool | None:
    """Return the tool call that the prompt asks for; one that the client does not offer is not called."""
    wanted: Tool | None = None
    if command := value_of("TOOL", turn.prompt):
        wanted = Tool("bash", {"command": command, "description": "run it"})
    elif command := value_of("ATOOL", turn.prompt):
        wanted = Tool("bash", {"command": command, "description": "run it", "mode": "async", "shellId": "bg1"})
    elif call := value_of("CALL", turn.prompt):
        name, _, arguments = call.partition(" ")
        wanted = Tool(name, json.loads(arguments or "{}"))
    return wanted if wanted and wanted.name in turn.tools else None


def value_of(directive: str, prompt: str) -> str | None:
    """Return the value of the last ``DIRECTIVE=value`` or ``DIRECTIVE=`value` `` in a prompt."""
    found = re.findall(rf'\b{directive}=(?:`([^`]*)`|([^\s"<`]+))', prompt)
    return (found[-1][0] or found[-1][1]) if found else None


def in_chunks(text: str, count: int | None) -> tuple[str, ...]:
    """Cut a text into ``count`` parts (default: one per word) of about the same size."""
    if count is None:
        return tuple(re.findall(r"\S+\s*|\s+", text)) or ("",)
    size = max(1, -(-len(text) // count))
    return tuple(text[start : start + size] for start in range(0, len(text), size)) or ("",)


def text_of(content: Any) -> str:
    """Return the text of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


def chat_turn(body: Json) -> Turn:
    """Read a request of the chat completions API."""
    messages = body["messages"]
    last = messages[-1]
    return Turn(
        users=tuple(text_of(message.get("content")) for message in messages if message["role"] == "user"),
        tool_result=text_of(last.get("content")) if last["role"] == "tool" else None,
        tools=frozenset(tool["function"]["name"] for tool in body.get("tools") or () if "function" in tool),
    )


def responses_turn(body: Json) -> Turn:
    """Read a request of the responses API."""
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    last = items[-1]
    return Turn(
        users=tuple(text_of(item.get("content")) for item in items if item.get("role") == "user"),
        tool_result=text_of(last.get("output")) if last.get("type") == "function_call_output" else None,
        tools=frozenset(tool["name"] for tool in body.get("tools") or () if "name" in tool),
    )


# What is answered: frames of server-sent events, or one JSON body -----------------------------------------------------


def chat_stream(plan: Plan, model: str, usage: Json) -> Iterator[str]:
    """Yield the events of a streamed chat completion."""
    head = {"id": f"cc-{uuid.uuid4()}", "object": "chat.completion.chunk", "created": int(time.time()), "model": model}

    def chunk(delta: Json, finish: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return f"data: {json.dumps({**head, 'choices': [choice], **more})}\n\n"

    if plan.tool:
        yield chunk({"role": "assistant", "content": None, "tool_calls": [{"index": 0, **chat_tool_call(plan.tool)}]})
        yield chunk({}, "tool_calls", usage=usage)
    else:
        for number, text in enumerate(plan.chunks):
            yield chunk({"content": text} if number else {"role": "assistant", "content": text})
        yield chunk({}, "stop", usage=usage)
    yield "data: [DONE]\n\n"


def chat_body(plan: Plan, model: str, usage: Json) -> Json:
    """Return a chat completion that is not streamed."""
    message: Json = {"role": "assistant", "content": plan.text}
    if plan.tool:
        message = {"role": "assistant", "content": None, "tool_calls": [chat_tool_call(plan.tool)]}
    return {
        "id": f"cc-{uuid.uuid4()}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if plan.tool else "stop"}],
        "usage": usage,
    }


def chat_tool_call(tool: Tool) -> Json:
    function = {"name": tool.name, "arguments": json.dumps(tool.arguments)}
    return {"id": f"call_{uuid.uuid4().hex[:12]}", "type": "function", "function": function}


def responses_stream(plan: Plan, model: str, usage: Json) -> Iterator[str]:
    """Yield the events of a streamed response."""
    response = responses_body(plan, model, usage)
    [item] = response["output"]
    sequence = iter(range(2**31))

    def event(kind: str, **data: Any) -> str:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': next(sequence), **data})}\n\n"

    at = {"item_id": item["id"], "output_index": 0}
    yield event("response.created", response={**response, "status": "in_progress", "output": [], "usage": None})
    if plan.tool:
        yield event("response.output_item.added", output_index=0, item={**item, "arguments": ""})
        yield event("response.function_call_arguments.delta", **at, delta=item["arguments"])
        yield event("response.function_call_arguments.done", **at, arguments=item["arguments"])
    else:
        [part] = item["content"]
        at |= {"content_index": 0}
        yield event("response.output_item.added", output_index=0, item={**item, "status": "in_progress", "content": []})
        yield event("response.content_part.added", **at, part={**part, "text": ""})
        for text in plan.chunks:
            yield event("response.output_text.delta", **at, delta=text)
        yield event("response.output_text.done", **at, text=plan.text)
        yield event("response.content_part.done", **at, part=part)
    yield event("response.output_item.done", output_index=0, item=item)
    yield event("response.completed", response=response)


def responses_body(plan: Plan, model: str, usage: Json) -> Json:
    """Return a response that is not streamed."""
    name = uuid.uuid4().hex
    item: Json = {
        "id": f"msg_{name}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": plan.text, "annotations": []}],
    }
    if plan.tool:
        item = {
            "id": f"fc_{name}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{name[:12]}",
            "name": plan.tool.name,
            "arguments": json.dumps(plan.tool.arguments),
        }
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "model": model,
        "output": [item],
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }


RENEWING: Final = re.compile(r"/lives/([\d.]+)/login/oauth/access_token")
MINTING: Final = re.compile(r"/lives/([\d.]+)/app/installations/\d+/access_tokens")
CARRIES_TEXT: Final = ('"content": "', "response.output_text.delta")  # an event that is a chunk of the answer
APIS: Final = {
    "/chat/completions": (chat_turn, chat_stream, chat_body),
    "/responses": (responses_turn, responses_stream, responses_body),
}


def usage_of(body_bytes: int, plan: Plan) -> Json:
    """Count tokens as roughly as everybody does: four bytes each."""
    asked, answered = max(1, body_bytes // 4), max(1, len(plan.text) // 4)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def model_list() -> Json:
    """The one model there is, described as both OpenAI and GitHub do."""
    limits = {"max_context_window_tokens": 128_000, "max_prompt_tokens": 100_000, "max_output_tokens": 16_000}
    capabilities = {
        "family": MODEL,
        "type": "chat",
        "object": "model_capabilities",
        "tokenizer": "o200k_base",
        "limits": limits,
        "supports": {"streaming": True, "tool_calls": True, "parallel_tool_calls": True},
    }
    model = {
        "id": MODEL,
        "object": "model",
        "owned_by": "tests",
        "name": MODEL,
        "vendor": "tests",
        "version": "1",
        "model_picker_enabled": True,
        "preview": False,
        "capabilities": capabilities,
        "policy": {"state": "enabled", "terms": ""},
        "billing": {"is_premium": False, "multiplier": 0},
    }
    return {"object": "list", "data": [model]}


class Grants:
    """What people have granted a GitHub App: a refresh token is good for one use, and that ends the token beside it.
    Any ``ghr_...`` that was never seen was granted elsewhere."""

    def __init__(self) -> None:
        self.uses: list[str] = []  # refresh tokens, in their order
        self.dead: set[str] = set()  # access tokens
        self._beside: dict[str, str] = {}  # the access token of a refresh token that is still good

    def exchange(self, refresh_token: str, life_s: float) -> Json:
        """As GitHub answers, with the status 200."""
        known = refresh_token in self.uses or not refresh_token.startswith("ghr_")
        self.uses.append(refresh_token)
        if known:
            said = "The refresh token passed is incorrect or expired."
            return {"error": "bad_refresh_token", "error_description": said}
        if refresh_token in self._beside:
            self.dead.add(self._beside.pop(refresh_token))
        number = len(self.uses)
        token, following = f"ghu_{int(time.time() + life_s)}_{number}", f"ghr_{number}_{uuid.uuid4().hex}"
        self._beside[following] = token
        pair = {"access_token": token, "expires_in": int(life_s), "refresh_token": following}
        return pair | {"refresh_token_expires_in": 15_897_600, "scope": "", "token_type": "bearer"}


def minted(life_s: float, number: int) -> Json:
    """An installation's token that tells by itself when it ends; so does a person's, ``ghu_``, and may ``gho_``."""
    ends = int(time.time() + life_s)
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends))
    return {"token": f"ghs_{ends}_{number}", "expires_at": expires}


def has_expired(token: str) -> bool:
    found = re.fullmatch(r"gh[osu]_(\d+)_\d+", token)
    return found is not None and int(found[1]) < time.time()


def github_user(base: str) -> Json:
    """What GitHub says of a user who may use Copilot; everything else is to be asked here."""
    return {
        "login": "stand-in",
        "access_type_sku": "x",
        "copilot_plan": "business",
        "chat_enabled": True,
        "organization_list": [],
        "endpoints": dict.fromkeys(("api", "proxy", "telemetry", "origin-tracker"), base),
    }


# HTTP/1.1, as much as is needed ---------------------------------------------------------------------------------------


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Dropped(Exception):
    """The client went away before it had its answer."""


@dataclass(frozen=True)
class Request:
    """One request, read whole."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def token(self) -> str:
        """The credential that came with it."""
        return self.headers.get("authorization", "").rpartition(" ")[2]


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Read one request; None when the client said nothing at all."""
    start = (await reader.readline()).decode("latin-1").split()
    if not start:
        return None
    if len(start) != 3:
        raise Refused(400, "not an HTTP request")
    headers: dict[str, str] = {}
    while line := (await reader.readline()).strip():
        if len(headers) >= MAX_HEADERS:
            raise Refused(431, f"more than {MAX_HEADERS} headers")
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return Request(start[0], start[1].partition("?")[0], headers, await read_body(reader, headers))


async def read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "transfer-encoding" in headers:
        raise Refused(411, "a Content-Length is needed")
    length = headers.get("content-length", "0")
    if not length.isdecimal():
        raise Refused(400, "Content-Length is not a number")
    if int(length) > MAX_BODY_BYTES:
        raise Refused(413, f"a body of {length} bytes, expected no more than {MAX_BODY_BYTES}")
    return await reader.readexactly(int(length))


def head(status: int, content_type: str, length: int | None = None) -> bytes:
    size = "" if length is None else f"Content-Length: {length}\r\n"
    return f"HTTP/1.1 {status} -\r\nContent-Type: {content_type}\r\n{size}Connection: close\r\n\r\n".encode()


def error_body(status: int, message: str) -> Json:
    return {"error": {"message": message, "type": "stand_in_error", "code": status}}


@dataclass
class Stats:
    """Counters of the model's work; ``aborted``: turns whose client went before their end."""

    requests: int = 0
    inflight: int = 0
    max: int = 0
    aborted: int = 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count one turn; one whose client goes is cancelled."""
        self.requests += 1
        self.inflight += 1
        self.max = max(self.max, self.inflight)
        try:
            yield
        except (asyncio.CancelledError, ConnectionError):
            self.aborted += 1
            raise
        finally:
            self.inflight -= 1


class ModelServer:
    """The stand-in, as a server in this process: ``async with ModelServer() as model: model.base_url``."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host, self.port = host, port
        self.stats = Stats()
        self._minted = 0
        self.grants = Grants()
        self.bearers: list[str] = []  # of turns, in their order
        self.logins: set[str] = set()  # tokens whose owner was asked for, as GitHub is when a session gets one
        self.accepts: str | None = None  # the only bearer that turns may have
        self.expired = 0  # requests for an answer that came with a token that had ended
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        """What a client takes as the base URL of its provider."""
        return f"http://{self.host}:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, self.host, self.port, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (Dropped, ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass  # nobody is there to be told
        except asyncio.CancelledError:
            if self._server.is_serving():
                raise
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        started = time.monotonic()
        status, path = 200, "-"
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                request = await read_request(reader)
            if request is None:
                return
            path = f"{request.method} {request.path}"
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await unless_dropped(reader, self._answer(request, writer))
        except Refused as refused:
            status = refused.status
            await send_json(writer, status, error_body(status, str(refused)))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as wrong:
            status = 400
            await send_json(writer, status, error_body(status, f"not understood: {type(wrong).__name__}: {wrong}"))
        except Dropped:
            status = 499
            raise
        finally:
            log.info("%s %d %.3f s", path, status, time.monotonic() - started)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        path = request.path.removeprefix("/v1")
        if has_expired(request.token) or request.token in self.grants.dead:
            self.expired += path in APIS
            raise Refused(401, "this token has expired")
        match request.method, path:
            case "POST", app if minting := MINTING.fullmatch(app):
                self._minted += 1
                await send_json(writer, 201, minted(float(minting[1]), self._minted))
            case "POST", app if renewing := RENEWING.fullmatch(app):
                asked = urllib.parse.parse_qs(request.body.decode())
                await send_json(writer, 200, self.grants.exchange(asked["refresh_token"][0], float(renewing[1])))
            case "POST", "/chat/completions" | "/responses":
                self.bearers.append(request.token)
                if "unpaid" in request.token or (self.accepts is not None and request.token != self.accepts):
                    raise Refused(401, "this key is not accepted")
                with self.stats.counted():
                    await answer_turn(path, request, writer)
            case "GET", "/models":
                await send_json(writer, 200, model_list())
            case "GET", "/stats":
                await send_json(writer, 200, dataclasses.asdict(self.stats))
            case "GET", "/user" | "/copilot_internal/user":
                self.logins.add(request.token)
                if not request.token or "bad" in request.token:
                    await send_json(writer, 401, {"message": "Bad credentials"})
                elif path == "/user":
                    await send_json(writer, 200, {"login": "stand-in", "id": 1})
                else:
                    await send_json(writer, 200, github_user(f"http://{request.headers.get('host', '')}"))
            case _:
                raise Refused(404, f"nothing at {request.method} {request.path}")


async def answer_turn(path: str, request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer one turn as its prompt directs."""
    read, stream, whole = APIS[path]
    body = json.loads(request.body)
    plan = plan_answer(read(body))
    if plan.error_status is not None:
        raise Refused(plan.error_status, f"the prompt asked for the error {plan.error_status}")
    model, usage = str(body.get("model") or MODEL), usage_of(len(request.body), plan)
    if not body.get("stream"):
        await asyncio.sleep(plan.pause_s * len(plan.chunks))
        if plan.stall_after is not None:
            await for_ever()
        await send_json(writer, 200, whole(plan, model, usage))
        return
    if plan.stall_after == 0:
        await for_ever()
    writer.write(head(200, "text/event-stream"))
    async for event in paced(stream(plan, model, usage), plan):
        writer.write(event.encode())
        await writer.drain()


async def paced(events: Iterator[str], plan: Plan) -> AsyncIterator[str]:
    """Yield the events of an answer at the speed that was asked for."""
    if plan.tool:
        await asyncio.sleep(plan.pause_s * len(plan.chunks))
    sent = 0
    for event in events:
        if any(mark in event for mark in CARRIES_TEXT):
            if sent == plan.stall_after:
                await for_ever()
            await asyncio.sleep(plan.pause_s)
            sent += 1
        yield event


async def for_ever() -> None:
    """Stall: what ends it is the client's going, or the deadline of every answer."""
    await asyncio.Event().wait()


async def unless_dropped(reader: asyncio.StreamReader, answering: Any) -> None:
    """Await an answer, but end it when the client closes its side: it waits for nothing any more."""
    answer = asyncio.ensure_future(answering)
    gone = asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise Dropped
        await answer
    finally:
        for task in (answer, gone):
            task.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def send_json(writer: asyncio.StreamWriter, status: int, body: Json) -> None:
    encoded = json.dumps(body).encode()
    writer.write(head(status, "application/json", len(encoded)) + encoded)
    await writer.drain()


async def serve(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with ModelServer(host, port) as server:
        log.info("listening on %s:%d", server.host, server.port)
        await stop.wait()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A stand-in for a language model, steered by words in the prompt")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8801)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    asyncio.run(serve(options.host, options.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
