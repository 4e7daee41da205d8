"""All metrics there are, read from the parts that serve them, and the page that tells of them."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from copilot_operator.agent import metrics as agent
from copilot_operator.agent.claims import Claimed
from copilot_operator.agent.janitor import Tally
from copilot_operator.agent.usage import Disk
from copilot_operator.app import Operator
from copilot_operator.cluster.client import Access, KubeApi
from copilot_operator.domain.drain import Why
from copilot_operator.domain.snapshot import DrainPhase, Health
from copilot_operator.gateway import metrics as gateway
from copilot_operator.ops import metrics as operator
from copilot_operator.settings import OperatorSettings
from tests.unit.agent.test_pages import SOME_SESSIONS, a_state

OPERATOR, SERVER, GATEWAY = "operator", "server", "gateway"
PARTS: Final = {
    OPERATOR: "Of the operator",
    SERVER: "Of each server",
    GATEWAY: "Of each gateway",
}
FREE: Final = {"version", "error", "verb", "resource", "pool", "pool_namespace"}  # labels whose values nobody lists

# Values that no sample shows before something happens.
VALUES: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("copilot_operator_reconcile_seconds", "kind"): ("CopilotPool", "CopilotTenant"),
    ("copilot_operator_reconcile_errors_total", "kind"): ("CopilotPool", "CopilotTenant"),
    ("copilot_operator_server_stops_total", "cause"): (*(each.value for each in Why), "Silence"),
    ("copilot_operator_server_stops_total", "outcome"): ("Drained", "Cut", "GaveUp", "Overdue", "Empty"),
    ("copilot_operator_servers", "health"): tuple(each.value for each in Health),
    ("copilot_operator_pool_sessions", "state"): ("loaded", "waiting", "held"),
    ("copilot_operator_drains", "phase"): (*(each.value for each in DrainPhase), "Unanswered"),
    ("copilot_operator_server_activity", "activity"): ("Busy", "Idle", "NotAnswering", "Unknown"),
}


@dataclass(frozen=True)
class Metric:
    """One, as Prometheus knows it. ``labels``: each with its values, () if nobody lists them."""

    name: str
    type: str
    text: str
    labels: dict[str, tuple[str, ...]]
    part: str

    @property
    def unit(self) -> str:
        """By the name, as is the custom; "" for what is only counted."""
        bare = self.name.removesuffix("_total")
        return next((unit for unit in ("seconds", "bytes") if bare.endswith(f"_{unit}")), "")

    @property
    def series(self) -> set[str]:
        """Names of its time series."""
        return {f"{self.name}_{each}" for each in ("bucket", "sum", "count")} if self.is_histogram else {self.name}

    @property
    def is_histogram(self) -> bool:
        return self.type == "histogram"


def all_metrics() -> list[Metric]:
    """Those of all parts, in the order they are served in."""
    return [
        *asyncio.run(_operators())[0],
        *_read(SERVER, None),
        *_read(GATEWAY, gateway.Metrics().registry),
    ]


def exposed() -> str:
    """What all parts together serve."""
    return asyncio.run(_operators())[1] + _of_agent() + generate_latest(gateway.Metrics().registry).decode()


def page() -> str:
    """docs/metrics.md."""
    found = all_metrics()
    lines = [
        "# Metrics\n\n",
        "<!-- made by `make docs` from what the code serves -->\n\n",
        "How to collect them, and what alerts and dashboards make of them: [monitoring](monitoring.md). No label of\n"
        "ours grows with tenants; `namespace`, `pool` and `tenant` are put there by who collects metrics of servers\n"
        "and gateways. A metric whose value is not known is left out.\n",
    ]
    for part, title in PARTS.items():
        lines += [f"\n## {title}\n\n", "| metric | type | unit | labels | |\n", "| --- | --- | --- | --- | --- |\n"]
        lines += [_row(metric) for metric in found if metric.part == part]
    return "".join(lines)


def _row(metric: Metric) -> str:
    labels = "; ".join(_label(name, values) for name, values in metric.labels.items())
    text = metric.text.rstrip(".")
    return f"| `{metric.name}` | {metric.type} | {metric.unit} | {labels} | {text} |\n"


def _label(name: str, values: tuple[str, ...]) -> str:
    return f"`{name}`: {', '.join(values)}" if values else f"`{name}`"


def _read(part: str, registry: CollectorRegistry | None) -> Iterator[Metric]:
    """``registry``: None for the agent, which has none."""
    families: Iterable[Any] = registry.collect() if registry else text_string_to_metric_families(_of_agent())
    named = _label_names(registry) if registry else {}
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        seen: dict[str, list[str]] = {label: [] for label in (*named.get(family.name, ()), *_names(family))}
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label != "le" and value not in seen.setdefault(label, []):
                    seen[label].append(value)
        labels = {label: () if label in FREE else tuple(found) for label, found in seen.items()}
        labels |= {label: VALUES[name, label] for label in labels if (name, label) in VALUES}
        yield Metric(name, family.type, family.documentation, labels, part)


def _names(family: Any) -> tuple[str, ...]:
    """Labels of a family that is made when it is asked for, also without any sample; the library keeps them private."""
    return tuple(getattr(family, "_labelnames", ()))


def _label_names(registry: CollectorRegistry) -> dict[str, tuple[str, ...]]:
    """Likewise of what a registry counts."""
    collectors = registry._collector_to_names
    return {names[0]: tuple(getattr(each, "_labelnames", ())) for each, names in collectors.items() if names}


async def _operators() -> tuple[list[Metric], str]:
    """What an operator serves that has seen nothing, and knows no cluster: it asks the event loop for the time."""
    metrics = operator.Metrics()
    own = OperatorSettings(agent_image="none", namespace="none", identity="none")
    Operator(own, KubeApi(Access(Configuration(), None)), metrics)
    return list(_read(OPERATOR, metrics.registry)), generate_latest(metrics.registry).decode()


def _of_agent() -> str:
    """Of an agent that knows all there is to know."""
    known = a_state(sessions=SOME_SESSIONS, disk=Disk(100, 40, 60))
    tally = Tally(passes=4, deleted=3, freed_bytes=81_000, expired=2, pass_s=0.3456)
    return agent.text(replace(known, tally=tally, claims=Claimed(held=3, refused=2, taken_over=1)))
