"""Alerts: each is fired by what it is for, and by nothing less; each has its runbook."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.layout import ROOT
from tests.support.debian import program
from tests.unit.docs.queries import complaints

ALERTS = ROOT / "manifests" / "monitoring" / "alerts.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
}
FIRES, QUIET = "fires", "quiet"
AT = "90m"  # when it is looked whether an alert fires


@dataclass(frozen=True)
class Case:
    """Series by name, as promtool reads them, a value a minute: which fire the alert, and which almost do."""

    fires: dict[str, str]
    quiet: dict[str, str]


def of(name: str, values: str) -> dict[str, str]:
    return {name: values}


POOL = 'namespace="apps",pool="saas"'
SERVER = f'{POOL},tenant="alice"'


def certificate(what: str, pool: str = "saas") -> str:
    """``none`` is a pool whose gateways have none."""
    return f'copilot_gateway_certificate_{what}_timestamp_seconds{{namespace="apps",pool="{pool}"}}'


GATEWAY_REQUESTS = f'copilot_gateway_requests_total{{{POOL},verdict="forward"}}'
FIRST_TOKEN = f"copilot_gateway_turn_first_token_seconds_bucket{{{POOL}"


def errors(kind: str) -> str:
    return f'copilot_gateway_errors_total{{{POOL},kind="{kind}"}}'


CASES = {
    "CopilotOperatorDoesNotAct": Case(
        {'copilot_operator_leading{pod="a"}': "0x90", 'copilot_operator_leading{pod="b"}': "0x90"},
        {'copilot_operator_leading{pod="a"}': "0x90", 'copilot_operator_leading{pod="b"}': "1x90"},
    ),
    "CopilotOperatorReconcilesFail": Case(
        of('copilot_operator_reconcile_errors_total{kind="CopilotPool",error="Conflict"}', "0+1x90"),
        of('copilot_operator_reconcile_errors_total{kind="CopilotPool",error="Conflict"}', "0x79 1x10"),
    ),
    "CopilotServersUnhealthy": Case(
        of('copilot_operator_servers{health="Unhealthy"}', "0x79 1x10"),
        {
            'copilot_operator_servers{health="Unhealthy"}': "0x85 1x5",
            'copilot_operator_servers{health="Unknown"}': "9x90",
        },
    ),
    "CopilotServersWanted": Case(
        of("copilot_operator_wanted_servers", "1x90"), of("copilot_operator_wanted_servers", "0x87 1x3")
    ),
    "CopilotDrainsUnanswered": Case(
        of('copilot_operator_drains{phase="Unanswered"}', "1x90"),
        of('copilot_operator_drains{phase="Quiescing"}', "1x90"),
    ),
    "CopilotTurnsCut": Case(
        of("copilot_operator_cut_turns_total", "0x60 1x30"), of("copilot_operator_cut_turns_total", "0x5 1x85")
    ),
    "CopilotServersReplacedOften": Case(
        of('copilot_operator_server_stops_total{cause="Silence",outcome="Overdue"}', "0+1x90"),
        {
            'copilot_operator_server_stops_total{cause="Silence",outcome="Overdue"}': "0x60 5x30",
            'copilot_operator_server_stops_total{cause="Update",outcome="Drained"}': "0+1x90",
        },
    ),
    "CopilotTokenRejected": Case(
        of(f'copilot_cli_ping_failures_total{{{SERVER},reason="AuthenticationFailed"}}', "0+1x90"),
        of(f'copilot_cli_ping_failures_total{{{SERVER},reason="Silent"}}', "0+1x90"),
    ),
    "CopilotTurnStalled": Case(
        of(f"copilot_server_stalled_seconds{{{SERVER}}}", "0+60x90"),
        of(f"copilot_server_stalled_seconds{{{SERVER}}}", "1700x90"),
    ),
    "CopilotVolumeFull": Case(
        {
            f"copilot_server_disk_free_bytes{{{SERVER}}}": "4x90",
            f"copilot_server_disk_capacity_bytes{{{SERVER}}}": "100x90",
        },
        {
            f"copilot_server_disk_free_bytes{{{SERVER}}}": "6x90",
            f"copilot_server_disk_capacity_bytes{{{SERVER}}}": "100x90",
        },
    ),
    "CopilotVolumeReadOnly": Case(
        of(f"copilot_server_disk_read_only{{{SERVER}}}", "0x80 1x10"),
        of(f"copilot_server_disk_read_only{{{SERVER}}}", "0x90"),
    ),
    "CopilotSessionsWaitForRoom": Case(
        of(f"copilot_server_sessions_waiting_for_room{{{SERVER}}}", "2x90"),
        of(f"copilot_server_sessions_waiting_for_room{{{SERVER}}}", "0x87 2x3"),
    ),
    "CopilotRequestsFail": Case(
        {GATEWAY_REQUESTS: "0+100x90", errors("Lost"): "0+3x90", errors("Unplaced"): "0+3x90"},
        {GATEWAY_REQUESTS: "0+100x90", errors("Lost"): "0+4x90", errors("Refused"): "0+50x90"},
    ),
    "CopilotCertificateExpires": Case(  # it is 5,400 s past the epoch
        {certificate("expiry"): "100000x90", certificate("start"): "-600000x90"},
        {
            certificate("expiry"): "200000x90",
            certificate("start"): "-600000x90",
            certificate("expiry", "none"): "0x90",
            certificate("start", "none"): "0x90",
        },
    ),
    "CopilotTurnsFail": Case(
        {f"copilot_gateway_turns_total{{{POOL}}}": "0+10x90", errors("Turn"): "0+3x90"},
        {f"copilot_gateway_turns_total{{{POOL}}}": "0+10x90", errors("Turn"): "0+1x90"},
    ),
    "CopilotFirstTokenSlow": Case(
        {FIRST_TOKEN + ',le="30"}': "0+9x90", FIRST_TOKEN + ',le="60"}': "0+10x90"}
        | {FIRST_TOKEN + ',le="+Inf"}': "0+10x90"},
        {FIRST_TOKEN + ',le="30"}': "0+99x90", FIRST_TOKEN + ',le="+Inf"}': "0+100x90"},
    ),
    "CopilotTenantsAtTheirLimits": Case(of(errors("Crowded"), "0+70x90"), of(errors("Crowded"), "0+50x90")),
    "CopilotTokensUnknown": Case(of(errors("Authentication"), "0+70x90"), of(errors("Authentication"), "0+50x90")),
}  # fmt: skip


def test_every_alert_has_a_case() -> None:
    assert CASES.keys() == RULES.keys()


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What promtool says of all cases, of which it names those that fail by their expressions."""
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in given.items()],
            "promql_expr_test": [
                {
                    "expr": firing(name, how),
                    "eval_time": AT,
                    "exp_samples": [{"labels": "{}", "value": int(how == FIRES)}],
                }
            ],
        }
        for name, case in CASES.items()
        for how, given in ((FIRES, case.fires), (QUIET, case.quiet))
    ]
    file = tmp_path_factory.mktemp("alerts") / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "2m", "tests": tests}))
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(file)], text=True, capture_output=True, timeout=240, check=False
    )
    said = done.stdout + done.stderr
    assert ("SUCCESS" in said) != ("expr:" in said), said
    return said


def firing(name: str, how: str) -> str:
    """1 if the alert fires; ``how`` only makes the expression one that is easy to find."""
    return f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0) # {how}'


@pytest.mark.parametrize("how", [FIRES, QUIET])
@pytest.mark.parametrize("name", CASES)
def test_it_fires_when_it_should_and_else_does_not(name: str, how: str, said: str) -> None:
    assert f'alertname="{name}",alertstate="firing"}}) or vector(0) # {how}' not in said.replace('\\"', '"'), said


@pytest.mark.parametrize("name", RULES)
def test_alerts_are_about_what_there_is(name: str) -> None:
    rule = RULES[name]
    assert complaints(rule["expr"]) == []
    assert "copilot_" in rule["expr"]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    texts = " ".join(rule["annotations"].values())
    for label in re.findall(r"\$labels\.(\w+)", texts):
        assert re.search(rf"by \([^)]*\b{label}\b", rule["expr"]), f"{label} is not left by the query"


@pytest.mark.parametrize("name", RULES)
def test_every_alert_has_a_runbook(name: str) -> None:
    assert RULES[name]["annotations"]["runbook"] == f"docs/runbooks/{name}.md"
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert len(text.splitlines()) <= 60, "a page is short"


def test_every_runbook_has_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == RULES.keys()


def test_who_scrapes_is_told_in_words_that_prometheus_takes(tmp_path: Path) -> None:
    """Debian's Prometheus knows no Kubernetes: the rest is checked with it."""
    jobs = yaml.safe_load((ROOT / "manifests" / "monitoring" / "scrape.yaml").read_text())
    for job in jobs["scrape_configs"]:
        assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    file = tmp_path / "prometheus.yaml"
    file.write_text(yaml.safe_dump(jobs))
    done = subprocess.run(
        [program("promtool"), "check", "config", str(file)], text=True, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
