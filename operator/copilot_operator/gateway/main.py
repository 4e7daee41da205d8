"""``copilot-operator gateway``: the data plane of one pool, as a process."""

import argparse
import asyncio
import logging
import signal
import ssl
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop

from copilot_operator.gateway import admin
from copilot_operator.gateway.config import Config, ConfigError, Watch
from copilot_operator.gateway.feed.fates import Fates
from copilot_operator.gateway.feed.feed import Feed
from copilot_operator.gateway.feed.kube import Access, KubeReader
from copilot_operator.gateway.front import ClientConnection
from copilot_operator.gateway.holders import Pods, PodsFile, Unasked
from copilot_operator.gateway.house import Bounds
from copilot_operator.gateway.hub import Hub
from copilot_operator.gateway.metrics import Metrics
from copilot_operator.gateway.tls import TlsListener
from copilot_operator.json_lines import log_json

if TYPE_CHECKING:
    from copilot_operator.gateway.certificate import Certificate

log = logging.getLogger(__name__)

DRAIN_S: Final = 300.0
_SWEEP_S: Final = 1.0
_DRAIN_POLL_S: Final = 0.1
_BACKLOG: Final = 4096


class Gateway:
    """A gateway that runs; ``listen`` and ``admin_at`` are host and port.

    ``directory`` holds its configuration, or, with ``settings`` (the name of its Secret), is where that is kept.
    ``tls`` is the directory of a certificate, shown at ``tls_listen``; without one there is no such listener.
    """

    def __init__(
        self,
        directory: Path,
        listen: tuple[str, int],
        admin_at: tuple[str, int],
        drain_s: float = DRAIN_S,
        settings: str | None = None,
        tls: Path | None = None,
        tls_listen: tuple[str, int] = ("0.0.0.0", 4443),
    ) -> None:
        self._directory, self._listen, self._admin_at = directory, listen, admin_at
        self._drain_s, self._settings = drain_s, settings
        self._tls_listen = tls_listen
        self.port = self.tls_port = self.admin_port = 0
        self._draining = False
        self._hub: Hub | None = None
        self._pods: Pods = Unasked() if settings else PodsFile(directory)
        self._changed = asyncio.Event()
        self.metrics = Metrics()
        self._certificate = self._certificate_of(tls) if tls else None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop``, then until no turn runs or the time for that is over. Raises ConfigError, OSError."""
        web = await admin.serve(*self._admin_at, self._pages())
        self.admin_port = web.sockets[0].getsockname()[1]
        feeding = asyncio.create_task(self._feed(), name="feed") if self._settings else None
        if feeding:
            feeding.add_done_callback(lambda task: _ended(task, "cannot follow the cluster", stop))
        try:
            if config := await self._first_config(stop):
                await self._serve(Hub(config, self.metrics), stop)
        finally:
            if feeding:
                feeding.cancel()
            web.close()

    async def _serve(self, hub: Hub, stop: asyncio.Event) -> None:
        self._hub, bounds = hub, Bounds()
        hub.pods = self._pods
        host, port = self._listen
        loop = asyncio.get_running_loop()
        front = await loop.create_server(lambda: ClientConnection(hub, bounds), host, port, backlog=_BACKLOG)
        self.port = front.sockets[0].getsockname()[1]
        log.info("listening on port %d", self.port)
        secured = self._listen_with_tls(self._certificate, hub, bounds) if self._certificate else None
        sweeping = asyncio.create_task(self._sweep(hub))
        sweeping.add_done_callback(lambda task: _ended(task, "cannot look after its sessions", stop))
        if secured:
            secured.add_done_callback(lambda task: _ended(task, "cannot listen with TLS", stop))
        try:
            await stop.wait()
            self._draining = True
            front.close()
            if secured:
                secured.cancel()
            await self._drain(hub)
        finally:
            sweeping.cancel()
            if secured:
                secured.cancel()
            front.close()
            hub.end()

    def _listen_with_tls(self, certificate: "Certificate", hub: Hub, bounds: Bounds) -> "asyncio.Task[None]":
        def context() -> ssl.SSLContext | None:
            return certificate.pair.context if certificate.pair else None

        listener = TlsListener(hub, bounds, context, *self._tls_listen)
        self.tls_port = listener.port
        log.info("listening with TLS on port %d", listener.port)
        return asyncio.create_task(listener.run(), name="tls")

    def _certificate_of(self, directory: Path) -> "Certificate":
        from copilot_operator.gateway.certificate import Certificate  # what it imports takes 7 MiB

        certificate = Certificate(directory, self._certificate_changed)
        self.metrics.certificate_ends.set_function(lambda: certificate.pair.not_after if certificate.pair else 0.0)
        self.metrics.certificate_begins.set_function(lambda: certificate.pair.not_before if certificate.pair else 0.0)
        certificate.look()
        return certificate

    def _certificate_changed(self, fault: str | None) -> None:
        if fault:
            self.metrics.certificates_refused.inc()
            log.error("certificate not used: %s", fault)
        else:
            log.info("new certificate")

    async def _feed(self) -> None:
        assert self._settings
        async with KubeReader.open(Access.of_pod()) as reader:
            self._pods = Fates(reader)
            if self._hub:
                self._hub.pods = self._pods
            await Feed(reader, self._settings, self._directory, self._changed.set).run()

    async def _first_config(self, stop: asyncio.Event) -> Config | None:
        """What is there; in a cluster, as soon as it is. None: told to stop before. Raises ConfigError."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._changed.clear()
                try:
                    return Config.read(self._directory)
                except ConfigError as error:
                    if not self._settings:
                        raise
                    log.info("waits for its configuration: %s", error)
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait({changed, stopping}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
            return None
        finally:
            stopping.cancel()

    def _pages(self) -> admin.Pages:
        return {
            **admin.public(live=lambda: "", ready=self._why_not_ready, registry=self.metrics.registry),
            **admin.private(
                lambda: self._hub.config.admin_key if self._hub else None,
                {"/demand": self._tell_demand, "/tenants": self._tell_tenants, "/servers": self._tell_servers},
            ),
        }

    async def _tell_demand(self, asked: admin.Asked) -> Any:
        assert self._hub
        demand = self._hub.demand
        number = int(admin.seconds(asked, "after", most=1e15))
        servers = await demand.after(number, admin.seconds(asked, "wait"))
        return {"number": demand.number, "servers": servers, "waiting": demand.waiting()}

    async def _tell_tenants(self, asked: admin.Asked) -> Any:
        assert self._hub
        told = {"tenants": self._hub.numbers(), "waits": self._hub.holders.waiting(), "active": self._hub.busy}
        return told | ({"tls": self._certificate.document()} if self._certificate else {})

    async def _tell_servers(self, asked: admin.Asked) -> Any:
        assert self._hub
        return {"servers": {name: server.state for name, server in self._hub.config.servers.items()}}

    def _why_not_ready(self) -> str:
        if self._hub is None:
            return "no configuration yet"
        return "ends" if self._draining else self._hub.why_not_ready()

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

    async def _sweep(self, hub: Hub) -> None:
        """Every second, and as soon as the configuration has changed."""
        watch = Watch(self._directory)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP_S):
                    await self._changed.wait()
            self._changed.clear()
            try:
                if watch.changed():
                    hub.reload(Config.read(self._directory))
            except ConfigError as error:
                log.error("configuration not used: %s", error)
            if self._certificate:
                self._certificate.look()
            hub.sweep()


def _ended(task: asyncio.Task[None], what: str, stop: asyncio.Event) -> None:
    """A gateway without one of its tasks would grow old and nobody know: kubelet starts another one."""
    if not task.cancelled() and (error := task.exception()):
        log.error("%s: %s", what, error)
        stop.set()


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="copilot-operator gateway", description="The data plane of one pool.")
    parser.add_argument("--config", type=Path, help="directory of pool.json, servers.json, tenants.json")
    parser.add_argument("--settings", metavar="SECRET", help="in a cluster, instead of --config: the pool's Secret")
    parser.add_argument("--cache", type=Path, help="with --settings: directory for what was read last")
    parser.add_argument("--listen", type=_address, default=("0.0.0.0", 4321), metavar="HOST:PORT")
    parser.add_argument("--tls", type=Path, metavar="DIRECTORY", help="of tls.crt and tls.key: listen with TLS, too")
    parser.add_argument("--tls-listen", type=_address, default=("0.0.0.0", 4443), metavar="HOST:PORT")
    parser.add_argument("--admin", type=_address, default=("0.0.0.0", 4322), metavar="HOST:PORT")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--drain-seconds", type=float, default=DRAIN_S, help="for turns that run when it is to end")
    given = parser.parse_args(argv)
    if (given.config is None) == (given.settings is None) or (given.settings is None) != (given.cache is None):
        parser.error("give either --config, or --settings and --cache")
    log_json(given.log_level)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log each request
    try:
        uvloop.run(_serve(given.config or given.cache, given))
    except (ConfigError, OSError) as error:
        print(f"copilot-operator gateway: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(directory: Path, given: argparse.Namespace) -> None:
    gateway = Gateway(
        directory, given.listen, given.admin, given.drain_seconds, given.settings, given.tls, given.tls_listen
    )
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
