"""Carries the API server's port from the cluster's network to the machine's loopback.

The listening socket was opened in the machine's network and is inherited; this process then moves into the cluster's
network, so every connection it opens starts there. It ends with the cluster.
"""

import asyncio
import contextlib
import ctypes
import os
import socket
import sys

CLONE_NEWNET = 0x40000000
CHUNK = 256 * 1024


def enter_network(pid: int) -> None:
    """Move this process into the network namespace of another (os.setns came with Python 3.12 only)."""
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "can not enter the cluster's network")
    finally:
        os.close(descriptor)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()  # one side broke: the other must not wait for more


async def serve(listener: socket.socket, port: int, pid: int) -> None:
    """Relay until the cluster's first process is gone."""
    connections: set[asyncio.Task[None]] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        task.add_done_callback(connections.discard)
        try:
            async with asyncio.timeout(10):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()  # nobody listens there now: the client sees a reset
            return
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            for one in (writer, far_writer):
                with contextlib.suppress(OSError):
                    one.close()

    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(os.pidfd_open(pid), gone.set)
    server = await asyncio.start_server(relay, sock=listener)
    await gone.wait()
    server.close()
    for task in connections:
        task.cancel()


def main() -> None:
    descriptor, port, pid = map(int, sys.argv[1:4])
    listener = socket.socket(fileno=descriptor)
    enter_network(pid)
    asyncio.run(serve(listener, port, pid))


if __name__ == "__main__":
    main()
