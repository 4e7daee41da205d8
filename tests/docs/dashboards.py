"""Two Grafana dashboards: of the whole fleet, and of one tenant. ``make docs`` writes them to manifests/monitoring."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

WIDTH, HALF, THIRD, QUARTER, HEIGHT, LOW = 24, 12, 8, 6, 8, 4
DIRECTORY: Final = "manifests/monitoring/dashboards"
SCHEMA_VERSION: Final = 39  # of Grafana 11; later ones convert it
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """``queries``: PromQL and legend. ``unit`` as Grafana names it: short, s, bytes, percentunit, reqps."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = HALF
    text: str = ""


@dataclass(frozen=True)
class Row:
    title: str


POOL: Final = 'namespace=~"$namespace",pool=~"$pool"'
TENANT: Final = 'namespace="$namespace",tenant="$tenant"'


def _quantile(share: str, metric: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{{POOL}}}[$__rate_interval])))"


FLEET: Final[tuple[Panel | Row, ...]] = (
    Panel("Operators that act", [("sum(copilot_operator_leading)", "")], kind="stat", width=QUARTER),
    Panel("Tenants", [("max(copilot_operator_tenants)", "")], kind="stat", width=QUARTER),
    Panel(
        "Servers that answer",
        [('sum(copilot_operator_servers{health="Healthy"}) / sum(copilot_operator_servers)', "")],
        unit="percentunit", kind="stat", width=QUARTER,
    ),
    Panel("Servers that requests wait for", [("sum(copilot_operator_wanted_servers)", "")], kind="stat", width=QUARTER),
    Row("Servers"),
    Panel("Servers by health", [("sum by (health) (copilot_operator_servers)", "{{health}}")]),
    Panel("Servers by what they do", [("sum by (activity) (copilot_operator_server_activity)", "{{activity}}")]),
    Panel("Sessions", [("sum by (state) (copilot_operator_sessions)", "{{state}}")]),
    Panel(
        "Stops in an hour", [("sum by (cause) (increase(copilot_operator_server_stops_total[1h]))", "{{cause}}")],
        text="Every stop is a drain, but those for Silence.",
    ),
    Panel(
        "Drains under way, turns cut",
        [
            ("sum by (phase) (copilot_operator_drains)", "{{phase}}"),
            ("sum(increase(copilot_operator_cut_turns_total[1h]))", "turns cut in an hour"),
        ],
    ),
    Panel(
        "Fullest volumes",
        [(f"topk(10, 1 - copilot_server_disk_free_bytes{{{POOL}}} / copilot_server_disk_capacity_bytes{{{POOL}}})",
          "{{namespace}}/{{tenant}}")],
        unit="percentunit",
    ),
    Panel("Most memory", [(f"topk(10, copilot_server_memory_bytes{{{POOL}}})", "{{namespace}}/{{tenant}}")], "bytes"),
    Panel(
        "Latency of pings",
        [
            (f"histogram_quantile({share}, sum by (le) (rate(copilot_operator_server_ping_seconds_bucket"
             "[$__rate_interval])))", share)
            for share in ("0.5", "0.95", "0.99")
        ],
        unit="s",
    ),
    Row("Gateways"),
    Panel(
        "Turns a second",
        [(f"sum by (pool) (rate(copilot_gateway_turns_total{{{POOL}}}[$__rate_interval]))", "{{pool}}")],
    ),
    Panel(
        "Time to the first text", [(_quantile(each, "copilot_gateway_turn_first_token_seconds"), each)
                                   for each in ("0.5", "0.95")], "s",
    ),
    Panel(
        "Length of turns", [(_quantile(each, "copilot_gateway_turn_seconds"), each) for each in ("0.5", "0.95")], "s"
    ),
    Panel(
        "Faults a second",
        [(f"sum by (kind) (rate(copilot_gateway_errors_total{{{POOL}}}[$__rate_interval]))", "{{kind}}")],
    ),
    Panel(
        "Requests by what becomes of them",
        [(f"sum by (verdict) (rate(copilot_gateway_requests_total{{{POOL}}}[$__rate_interval]))", "{{verdict}}")],
        unit="reqps",
    ),
    Panel(
        "Connections and sessions",
        [
            (f"sum(copilot_gateway_connections{{{POOL}}})", "clients"),
            (f"sum(copilot_gateway_upstream_connections{{{POOL}}})", "to servers"),
            (f"sum(copilot_gateway_loaded_sessions{{{POOL}}})", "loaded sessions"),
            (f"sum(copilot_gateway_active_sessions{{{POOL}}})", "busy sessions"),
            (f"sum(copilot_gateway_lingering_sessions{{{POOL}}})", "whose client has gone"),
            (f"sum(copilot_gateway_kept_sessions{{{POOL}}})", "kept for other gateways"),
        ],
    ),
    Row("Operator"),
    Panel("Objects that wait for a worker", [("max(copilot_operator_queue_length)", "")], width=THIRD),
    Panel(
        "Reconciles: 95 of 100 within",
        [("histogram_quantile(0.95, sum by (kind, le) (rate(copilot_operator_reconcile_seconds_bucket"
          "[$__rate_interval])))", "{{kind}}")],
        unit="s", width=THIRD,
    ),
    Panel(
        "Reconciles that fail, requests to the API server",
        [
            ("sum by (error) (rate(copilot_operator_reconcile_errors_total[$__rate_interval]))", "{{error}}"),
            ("sum by (verb) (rate(copilot_operator_api_requests_total[$__rate_interval]))", "{{verb}}"),
        ],
        width=THIRD,
    ),
)  # fmt: skip

ONE_TENANT: Final[tuple[Panel | Row, ...]] = (
    Panel("CLI answers", [(f"max(copilot_cli_up{{{TENANT}}})", "")], kind="stat", width=QUARTER),
    Panel("Version", [(f"copilot_cli_info{{{TENANT}}}", "{{version}}")], kind="stat", width=QUARTER),
    Panel("Draining", [(f"max(copilot_server_draining{{{TENANT}}})", "")], kind="stat", width=QUARTER),
    Panel(
        "Volume", [(f"1 - min(copilot_server_disk_free_bytes{{{TENANT}}} / "
                    f"copilot_server_disk_capacity_bytes{{{TENANT}}})", "full")],
        unit="percentunit", kind="stat", width=QUARTER,
    ),
    Row("Sessions"),
    Panel(
        "Sessions",
        [(f"max by (state) (copilot_server_sessions{{{TENANT}}})", "{{state}}")],
        text="Loaded contains busy; busy contains waiting; stored are those on the volume.",
    ),
    Panel("What keeps sessions busy", [(f"max by (work) (copilot_server_busy_sessions{{{TENANT}}})", "{{work}}")]),
    Panel("Longest silence of a turn", [(f"max(copilot_server_stalled_seconds{{{TENANT}}})", "")], "s"),
    Panel(
        "Room for sessions",
        [
            (f"max(copilot_server_sessions_waiting_for_room{{{TENANT}}})", "wait to be loaded"),
            (f"sum(increase(copilot_server_sessions_evicted_total{{{TENANT}}}[1h]))", "unloaded for others in an hour"),
        ],
    ),
    Row("Server"),
    Panel("Latency of pings", [(f"max(copilot_cli_ping_seconds{{{TENANT}}})", "")], "s"),
    Panel(
        "Pings without a good answer",
        [(f"sum by (reason) (increase(copilot_cli_ping_failures_total{{{TENANT}}}[$__rate_interval]))", "{{reason}}")],
    ),
    Panel("Memory", [(f"max(copilot_server_memory_bytes{{{TENANT}}})", "")], "bytes"),
    Panel("Processes", [(f"max(copilot_server_processes{{{TENANT}}})", "")]),
    Panel(
        "Volume",
        [
            (f"max(copilot_server_disk_capacity_bytes{{{TENANT}}})", "size"),
            (f"min(copilot_server_disk_free_bytes{{{TENANT}}})", "free"),
        ],
        unit="bytes",
    ),
    Panel(
        "Expired sessions",
        [
            (f"sum(increase(copilot_server_expired_sessions_deleted_total{{{TENANT}}}[1d]))", "deleted in a day"),
            (f"max(copilot_server_expired_sessions_kept{{{TENANT}}})", "would be deleted (DryRun)"),
        ],
    ),
)  # fmt: skip

SOURCES: Final = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _variable(name: str, label: str, query: str, *, several: bool) -> dict[str, Any]:
    choice = {"includeAll": True, "multi": True, "allValue": ".*"} if several else {}
    current = {"current": {"text": "All", "value": "$__all"}} if several else {}
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "query": query, "refresh": 2, "sort": 1,
        **choice, **current,
    }  # fmt: skip


def files() -> dict[str, str]:
    """The dashboards, by their paths in the checkout."""
    namespace = "label_values(copilot_cli_up, namespace)"
    fleet = [
        _variable("namespace", "Namespace", "label_values(copilot_gateway_connections, namespace)", several=True),
        _variable(
            "pool", "Pool", 'label_values(copilot_gateway_connections{namespace=~"$namespace"}, pool)', several=True
        ),
    ]
    tenant = [
        _variable("namespace", "Namespace", namespace, several=False),
        _variable("tenant", "Tenant", 'label_values(copilot_cli_up{namespace="$namespace"}, tenant)', several=False),
    ]
    made = {
        "fleet": dashboard("copilot-fleet", "Copilot: the fleet", fleet, FLEET),
        "tenant": dashboard("copilot-tenant", "Copilot: a tenant", tenant, ONE_TENANT),
    }
    return {
        f"manifests/monitoring/dashboards/{name}.json": json.dumps(each, indent=2) + "\n" for name, each in made.items()
    }


def dashboard(uid: str, title: str, variables: list[dict[str, Any]], parts: Sequence[Panel | Row]) -> dict[str, Any]:
    return {
        "uid": uid,
        "title": title,
        "tags": ["copilot-operator"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [SOURCES, *variables]},
        "panels": list(_panels(parts)),
    }


def _panels(parts: Sequence[Panel | Row]) -> Iterator[dict[str, Any]]:
    """From left to right, then below; a row's title has a line of its own."""
    x = y = height = 0
    for id, part in enumerate(parts, start=1):
        if isinstance(part, Row):
            y, x, height = y + height, 0, 0
            yield {
                "id": id,
                "type": "row",
                "title": part.title,
                "collapsed": False,
                "panels": [],
                "gridPos": _at(0, y, WIDTH, 1),
            }
            y += 1
            continue
        if x + part.width > WIDTH:
            y, x, height = y + height, 0, 0
        height = LOW if part.kind == "stat" else HEIGHT
        yield _panel(id, part, _at(x, y, part.width, height))
        x += part.width


def _panel(id: int, part: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": query, "legendFormat": legend or part.title}
        for number, (query, legend) in enumerate(part.queries)
    ]
    return {
        "id": id,
        "type": part.kind,
        "title": part.title,
        **({"description": part.text} if part.text else {}),
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": part.unit, "min": 0}, "overrides": []},
        **({"options": {"textMode": "name"}} if part.title == "Version" else {}),
        "targets": targets,
    }


def _at(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}
