"""Metrics of the operator (Prometheus). No label grows with the number of tenants."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


@dataclass
class Metrics:
    """Seconds everywhere; counters are for the life of the process."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.reconciles = Histogram(
            "copilot_operator_reconcile_seconds", "Time of one reconcile", ["kind"], registry=self.registry
        )
        self.reconcile_errors = Counter(
            "copilot_operator_reconcile_errors", "Reconciles that failed and are tried again", ["kind", "error"],
            registry=self.registry,
        )  # fmt: skip
        self.pings = Histogram(
            "copilot_operator_server_ping_seconds", "Latency of pings that servers answered", registry=self.registry
        )
        self.ping_failures = Counter(
            "copilot_operator_server_ping_failures", "Pings that servers did not answer", registry=self.registry
        )

        self.stops = Counter(
            "copilot_operator_server_stops", "Servers stopped, replaced or restarted", ["cause", "outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.cut_turns = Counter(
            "copilot_operator_cut_turns", "Turns that were aborted at the deadline of a drain", registry=self.registry
        )

    def stopped(self, cause: str, outcome: str, cut: int) -> None:
        """``outcome``: Drained, Cut, GaveUp (the CLI was silent), Overdue (its agent was), Empty (had not started)."""
        self.stops.labels(cause, outcome).inc()
        self.cut_turns.inc(cut)

    def measured_ping(self, latency_s: float | None) -> None:
        if latency_s is None:
            self.ping_failures.inc()
        else:
            self.pings.observe(latency_s)

    def measured_reconcile(self, kind: str, seconds: float, error: BaseException | None) -> None:
        self.reconciles.labels(kind).observe(seconds)
        if error:
            self.reconcile_errors.labels(kind, type(error).__name__).inc()

    def read(self, collect: Callable[[], Iterator[Metric]]) -> None:
        """Add figures that are read when asked for."""

        class Reader:
            def collect(self) -> Iterator[Metric]:
                return collect()

        self.registry.register(Reader())


def gauge(name: str, text: str, values: Mapping[str, float] | float, label: str = "") -> Metric:
    if not isinstance(values, Mapping):
        return GaugeMetricFamily(name, text, value=values)
    return labelled(name, text, (((key,), value) for key, value in values.items()), [label])


def labelled(name: str, text: str, values: Iterable[tuple[tuple[str, ...], float]], labels: Sequence[str]) -> Metric:
    """A gauge; ``values`` as for ``counter``."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def counter(name: str, text: str, values: Iterable[tuple[tuple[str, ...], float]], labels: Sequence[str]) -> Metric:
    """``values``: (one value for each of ``labels``, the count)."""
    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    for key, value in sorted(values):
        family.add_metric(key, value)
    return family
