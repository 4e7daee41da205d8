"""The command ``copilot-operator agent``: settings, event loop, signals."""

import argparse
import asyncio
import gc
import os
import signal
import sys

from copilot_operator.agent.agent import Agent
from copilot_operator.agent.log import log
from copilot_operator.agent.settings import Settings, SettingsError
from copilot_operator.agent.web import WebServer


def main(argv: list[str] | None = None) -> int:
    """Run the agent until it is told to stop. Returns the exit code; 2: it cannot begin."""
    parser = argparse.ArgumentParser(
        prog="copilot-operator agent",
        description="The sidecar of a Copilot CLI server. Its settings are environment variables.",
    )
    parser.parse_args(argv)
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    gc.freeze()
    return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    agent = Agent(settings)
    server, metrics = WebServer(agent.pages), WebServer(agent.metrics_pages)
    try:
        port = await server.start(settings.host, settings.port)
        metrics_port = await metrics.start(settings.host, settings.metrics_port)
    except OSError as error:
        log("agent cannot listen", host=settings.host, port=settings.port, message=str(error))
        return 2
    log("agent listens", port=port, metrics=metrics_port, cli=f"{settings.cli_host}:{settings.cli_port}")
    running = asyncio.create_task(agent.run())
    told_to_stop, told_again = _signals()
    stopping = asyncio.create_task(told_to_stop.wait())
    await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    if running.done():  # a fault: leave, and be started anew
        log("agent failed", error=repr(running.exception()))
        return 1
    await _finish(agent, told_again)
    server.stop()
    metrics.stop()
    running.cancel()
    await agent.leave()
    log("agent ends")
    return 0


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Set at the first, and at the second, of the signals that end the agent."""
    first, second = asyncio.Event(), asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, lambda: (second if first.is_set() else first).set())
    return first, second


async def _finish(agent: Agent, told_again: asyncio.Event) -> None:
    """Let a drain end: what the keeper holds would die with the agent. Rare, for kubelet stops sidecars last."""
    finishing = asyncio.create_task(agent.finish_drain())
    hurry = asyncio.create_task(told_again.wait())
    await asyncio.wait([finishing, hurry], return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    finishing.cancel()


if __name__ == "__main__":
    sys.exit(main())
