"""A way from this machine to a tenant's endpoint: ``kubectl port-forward``, a child of its own for each connection.

A forward leads to one pod and is of no use once that is gone. So the pod is looked for anew for each connection, and
what one of them meets is nothing to the others.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from copilot_operator.domain.kinds import POD
from copilot_operator.plugin.endpoint import Endpoint, pod_to_lead_to
from copilot_operator.plugin.errors import PluginError
from copilot_operator.plugin.kube import Kubectl

START_S: Final = 20.0
PATIENCE_S: Final = 30.0
AGAIN_S: Final = 0.5
END_S: Final = 3.0
CONNECT_S: Final = 10.0
CHUNK: Final = 64 * 1024
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Way = Callable[[], AbstractAsyncContextManager[Streams]]

LISTENS: Final = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) ")


@contextlib.asynccontextmanager
async def forwarded(kube: Kubectl, endpoint: Endpoint, *, patience_s: float = 0.0) -> AsyncIterator[int]:
    """A local port that leads to a pod of the endpoint as long as the block lasts. Raises PluginError.

    ``patience_s``: how long there may be no pod to lead to, while one takes the place of another.
    """
    child, port = await _start(kube, endpoint, patience_s)
    reading = asyncio.create_task(_read_on(child), name="output of kubectl port-forward")
    try:
        yield port
    finally:
        await _end(child)
        reading.cancel()


@contextlib.asynccontextmanager
async def connected(kube: Kubectl, endpoint: Endpoint) -> AsyncIterator[Streams]:
    """A connection to the endpoint by a forward of its own, as long as the block lasts. Raises PluginError, OSError."""
    async with forwarded(kube, endpoint, patience_s=PATIENCE_S) as port:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()


class Relay:
    """Listens on a local port; every connection is led on by one that ``way`` opens."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def listen(self, port: int) -> str:
        """The address; 0 is any port that is free. Raises PluginError."""
        try:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        except OSError as error:
            raise PluginError(
                f"can't listen on 127.0.0.1:{port}: {error.strerror}; --port names another one, --port 0 takes any"
            ) from None
        return "{}:{}".format(*self._server.sockets[0].getsockname()[:2])

    async def close(self) -> None:
        if self._server:
            self._server.close()
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="local connection")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._way() as there:
                await join((reader, writer), there)
        except PluginError as error:
            print(f"connection not led on: {error}", file=sys.stderr, flush=True)
        except OSError as error:
            print(f"connection ended: {error.strerror or error}", file=sys.stderr, flush=True)
        finally:
            writer.close()


async def until_told() -> None:
    """Until Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await stop.wait()


async def _start(kube: Kubectl, endpoint: Endpoint, patience_s: float) -> tuple[asyncio.subprocess.Process, int]:
    """A child that forwards, and the port it listens on."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + patience_s
    while True:
        try:
            return await _start_once(kube, endpoint)
        except PluginError:
            if clock() >= deadline:
                raise
        await asyncio.sleep(AGAIN_S)


async def _start_once(kube: Kubectl, endpoint: Endpoint) -> tuple[asyncio.subprocess.Process, int]:
    pods = await asyncio.to_thread(kube.list, POD, endpoint.namespace, labels=endpoint.labels)
    pod = pod_to_lead_to(endpoint, pods)
    words = ["port-forward", f"pod/{pod}", f":{endpoint.port}", f"--namespace={endpoint.namespace}"]
    child = await asyncio.create_subprocess_exec(
        *kube.argv(*words, "--address=127.0.0.1"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C at the terminal is for us, who still need the connection to abort a turn
    )
    try:
        return child, await _port(child, f"kubectl port-forward pod/{pod} -n {endpoint.namespace}")
    except BaseException:
        await _end(child)
        raise


async def join(here: Streams, there: Streams) -> None:
    """Carry both ways until either side ends."""
    both = (asyncio.create_task(_pipe(here[0], there[1])), asyncio.create_task(_pipe(there[0], here[1])))
    try:
        # the end of one direction is that of both: no CLI and no SDK goes on with half a connection
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in both:
            each.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()


async def _port(child: asyncio.subprocess.Process, what: str) -> int:
    """The local port that the child says it listens on."""
    assert child.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(START_S):
            while line := await child.stdout.readline():
                said += line
                if found := LISTENS.search(line):
                    return int(found[1])
    except TimeoutError:
        raise PluginError(f"{what}: nothing within {START_S:g} s; it said: {_text(said)}") from None
    raise PluginError(f"{what}: {_text(said)}")


async def _read_on(child: asyncio.subprocess.Process) -> None:
    """A pipe that nobody reads would stop the child."""
    assert child.stdout is not None
    while await child.stdout.read(CHUNK):
        pass


async def _end(child: asyncio.subprocess.Process) -> None:
    """With all that it has started: kubectl may be a script around kubectl."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await child.wait()


def _text(said: bytes) -> str:
    return said.decode(errors="replace").strip() or "nothing"
