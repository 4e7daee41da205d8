"""``copilot-operator gateway``: the data plane of one pool, as a process."""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Final

import uvloop

from copilot_operator.gateway import admin
from copilot_operator.gateway.config import Config, ConfigError, Watch
from copilot_operator.gateway.front import ClientConnection
from copilot_operator.gateway.house import Bounds
from copilot_operator.gateway.hub import Hub
from copilot_operator.gateway.metrics import Metrics

log = logging.getLogger(__name__)

DRAIN_S: Final = 300.0
_SWEEP_S: Final = 1.0
_DRAIN_POLL_S: Final = 0.1
_BACKLOG: Final = 4096


class Gateway:
    """A gateway that runs; ``listen`` and ``admin`` are host and port."""

    def __init__(
        self, directory: Path, listen: tuple[str, int], admin_at: tuple[str, int], drain_s: float = DRAIN_S
    ) -> None:
        self._directory, self._listen, self._admin_at = directory, listen, admin_at
        self._drain_s = drain_s
        self.port = self.admin_port = 0
        self._draining = False

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop``, then until no turn runs or the time for that is over. Raises ConfigError, OSError."""
        loop = asyncio.get_running_loop()
        watch = Watch(self._directory)
        hub = Hub(Config.read(self._directory), Metrics())
        bounds = Bounds()
        host, port = self._listen
        front = await loop.create_server(lambda: ClientConnection(hub, bounds), host, port, backlog=_BACKLOG)
        pages = admin.pages(live=lambda: "", ready=lambda: self._why_not_ready(hub), registry=hub.metrics.registry)
        web = await admin.serve(*self._admin_at, pages)
        self.port, self.admin_port = front.sockets[0].getsockname()[1], web.sockets[0].getsockname()[1]
        log.info("listening on port %d", self.port)
        sweeping = asyncio.create_task(self._sweep(hub, watch))
        try:
            await stop.wait()
            self._draining = True
            front.close()
            await self._drain(hub)
        finally:
            sweeping.cancel()
            front.close()
            hub.end()
            web.close()

    def _why_not_ready(self, hub: Hub) -> str:
        return "ends" if self._draining else hub.why_not_ready()

    async def _drain(self, hub: Hub) -> None:
        """Let turns finish."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._drain_s
        while loop.time() < ends_at:
            hub.close_idle()
            if not hub.busy and not hub.connections:
                log.info("drained")
                return
            await asyncio.sleep(_DRAIN_POLL_S)
        log.warning("%d sessions still work at the end of the time for that", hub.busy)

    async def _sweep(self, hub: Hub, watch: Watch) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            try:
                if watch.changed():
                    hub.reload(Config.read(self._directory))
            except ConfigError as error:
                log.error("configuration not used: %s", error)
            hub.sweep()


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="copilot-operator gateway", description="The data plane of one pool.")
    parser.add_argument("--config", type=Path, required=True, help="directory of pool.json, servers.json, tenants.json")
    parser.add_argument("--listen", type=_address, default=("0.0.0.0", 4321), metavar="HOST:PORT")
    parser.add_argument("--admin", type=_address, default=("0.0.0.0", 4322), metavar="HOST:PORT")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--drain-seconds", type=float, default=DRAIN_S, help="for turns that run when it is to end")
    given = parser.parse_args(argv)
    logging.basicConfig(
        level=given.log_level.upper(), stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        uvloop.run(_serve(Gateway(given.config, given.listen, given.admin, given.drain_seconds)))
    except (ConfigError, OSError) as error:
        print(f"copilot-operator gateway: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(gateway: Gateway) -> None:
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    await gateway.run(stop)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, found {text}")
    return host, int(port)


if __name__ == "__main__":
    sys.exit(main())
