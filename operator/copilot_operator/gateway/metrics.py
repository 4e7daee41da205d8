"""Metrics of a gateway (Prometheus). No label grows with tenants, sessions or clients."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from copilot_operator.gateway.rules.methods import Verdict

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


REFUSALS: Final = ("SessionBusy", "QueueFull", "QueuedTooLong", "NoServer")  # of shared sessions


class Fault(StrEnum):
    """What went wrong for a client."""

    AUTHENTICATION = "Authentication"  # no such token
    CROWDED = "Crowded"  # too many connections, or requests
    REFUSED = "Refused"  # a method or field that the pool does not allow
    UNPLACED = "Unplaced"  # no server could take the session
    LOST = "Lost"  # a server ended with an answer or a turn outstanding
    SERVER = "Server"  # an error reply of a server
    TURN = "Turn"  # a turn that ended with session.error
    DOOR = "Door"  # no TLS, no protocol, half a frame, nothing read


class _Requests(Collector):
    """Requests of clients by what became of them."""

    def __init__(self, counts: Mapping[Verdict, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily("copilot_gateway_requests", self.__doc__ or "", labels=["verdict"])
        for verdict, count in self._counts.items():
            family.add_metric([verdict], count)
        yield family


@dataclass
class Metrics:
    """Seconds everywhere; counters are for the life of the process."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"copilot_gateway_{name}", text, registry=self.registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"copilot_gateway_{name}", text, registry=self.registry, buckets=_SECONDS)

        self.connections = gauge("connections", "Connections of clients")
        self.upstreams = gauge("upstream_connections", "Connections to servers")
        self.lingering = gauge("lingering_sessions", "Sessions that work on though their client has gone")
        self.kept = gauge("kept_sessions", "Sessions that are kept alive for clients of other gateways")
        self.loaded = gauge("loaded_sessions", "Sessions that are loaded on a server")
        self.active = gauge("active_sessions", "Sessions that have a turn in flight or wait for their client")
        self.certificate_ends = gauge(
            "certificate_expiry_timestamp_seconds",
            "When the certificate of the TLS listener ends (Unix time); 0 if it has none",
        )
        self.certificate_begins = gauge(
            "certificate_start_timestamp_seconds", "When it began (Unix time); 0 if there is none"
        )
        self.certificates_refused = Counter(
            "copilot_gateway_certificates_refused",
            "Certificates that were not used: missing, unreadable, with another one's key, or expired",
            registry=self.registry,
        )
        self.moved = Counter(
            "copilot_gateway_sessions_moved",
            "Idle sessions unloaded for a server that has fewer (storage.mode: Shared)",
            registry=self.registry,
        )
        self.turns = Counter("copilot_gateway_turns", "Turns that ended", registry=self.registry)
        self.first_token = histogram("turn_first_token_seconds", "From a message to the first text of its answer")
        self.whole_turn = histogram("turn_seconds", "From a message to the end of its turn")
        self.requests = dict.fromkeys(Verdict, 0)  # no Counter: its lock would cost each request more than its rule
        self.registry.register(_Requests(self.requests))
        self.waited_to_speak = histogram(
            "shared_session_wait_seconds", "From a request to the right to speak in a shared session"
        )
        self.waited_for_claim = histogram(
            "claim_wait_seconds",
            "From the refusal of a session that another server had to its claim (storage.mode: Shared)",
        )
        self.waiting_to_speak = gauge("shared_session_waiting", "Requests that wait to speak in shared sessions")
        self.not_to_speak = Counter(
            "copilot_gateway_shared_session_refusals",
            "Requests that might not speak in a shared session, by reason",
            ["reason"],
            registry=self.registry,
        )
        for reason in REFUSALS:
            self.not_to_speak.labels(reason)
        self.errors = Counter(
            "copilot_gateway_errors", "What went wrong for clients, by kind", ["kind"], registry=self.registry
        )
        for kind in Fault:
            self.errors.labels(kind)  # a rate needs the zero before the first one

    def fault(self, kind: Fault) -> None:
        self.errors.labels(kind).inc()
