"""What ``status`` and ``explain`` show of documents."""

import io
from datetime import timedelta
from typing import Any

import pytest

from copilot_operator.plugin import tables
from copilot_operator.plugin.explain import explanation, explanation_lines
from copilot_operator.plugin.reasons import Severity, reasons
from copilot_operator.plugin.times import span
from copilot_operator.plugin.view import status_document
from tests.unit.plugin.documents import NOW, condition, deployment, pool, ready, tenant

DRAIN = {
    "cause": "Update",
    "startTime": "2030-01-02T11:58:00Z",
    "deadline": "2030-01-02T12:07:00Z",
    "busy": 2,
    "work": {"turn": 2},
}


def shown(*tenants: Any, pools: Any = (), deployments: Any = (), **options: Any) -> str:
    out = io.StringIO()
    tables.show(tables.status_tables(status_document(pools, tenants, deployments, NOW), NOW, **options), out)
    return out.getvalue()


def test_why_a_server_runs_and_why_so_many_do_is_told_in_the_operators_words() -> None:
    needed = {"type": "Needed", "status": "True", "reason": "Wanted", "message": "requests were held"}
    found = reasons(tenant("bob", ready(), needed), NOW)
    assert [(each.reason, each.message, each.severity) for each in found[1:]] == [
        ("Wanted", "requests were held", Severity.INFO)
    ]
    scaled = {"type": "Scaled", "status": "False", "reason": "AtMaximum", "message": "raise it"}
    many = pool("saas", ready(), scaled)
    many["status"]["autoscaling"] = {
        "replicas": 3, "direction": "Out", "lastScaleOutTime": "2026-03-01T11:00:00Z", "message": "17 loaded sessions",
    }  # fmt: skip
    told = [each for each in reasons(many, NOW) if each.source in ("condition Scaled", "status.autoscaling")]
    assert [(each.reason, each.severity) for each in told] == [
        ("AtMaximum", Severity.WARNING), ("Decided", Severity.INFO),
    ]  # fmt: skip
    assert told[1].message == "3 servers, since 2026-03-01T11:00:00Z: 17 loaded sessions"


def test_a_row_for_each_with_what_a_person_wants_to_know() -> None:
    counts: dict[str, Any] = {
        "replicas": 3,
        "readyReplicas": 2,
        "tenants": 3,
        "gateway": {"replicas": 2, "readyReplicas": 1},
    }
    text = shown(
        tenant("alice", ready(), phase="Ready"),
        tenant("bob", ready("Draining", "The server stops once its turns are done"), phase="Draining", drain=DRAIN),
        pools=[pool("saas", ready("PoolReady"), **counts)],
    )
    heads, saas, _, _, alice, bob = text.splitlines()
    assert heads.split() == [
        "POOL", "ISOLATION", "READY", "REASON", "SERVERS", "TENANTS", "GATEWAY", "DRAINS", "UPDATE", "AGE"
    ]  # fmt: skip
    assert saas.split("   ")[:1] == ["saas"]
    assert "2/3" in saas
    assert "1/2" in saas
    assert "Update, 2 busy, in 7m" in saas
    assert alice.split() == ["alice", "Ready", "True", "ServerReady", "saas", "-", "60m"]
    assert "Update, 2 busy, in 7m" in bob


def test_namespaces_are_named_where_several_are_shown_and_images_where_they_are_asked_for() -> None:
    text = shown(tenant("alice", ready()), pools=[pool("saas", ready("PoolReady"))], everywhere=True, wide=True)
    assert text.startswith("NAMESPACE")
    assert "cli:1" in text


def test_drains_of_servers_that_tenants_share_are_read_from_their_deployments() -> None:
    document = status_document(
        [pool("saas", ready("PoolReady"), isolation="Shared")], [], [deployment("saas/1", cause="ScaleIn")], NOW
    )
    assert [(each["server"], each["cause"]) for each in document["pools"][0]["drains"]] == [("saas/1", "ScaleIn")]


def test_what_is_wrong_is_told_in_the_operators_words_with_a_command() -> None:
    document = status_document([], [tenant("bob", ready("CrashLooping", "It ended with code 1; see its log"))], [], NOW)
    ((severity, line),) = tables.problem_lines(document)
    assert severity == "Error"
    assert line == (
        "tenant bob: CrashLooping: It ended with code 1; see its log\n    → kubectl copilot logs bob -n team"
    )


@pytest.mark.parametrize("reason", ["Suspended", "Draining", "Starting", "Stopping"])
def test_what_is_on_its_way_is_no_problem(reason: str) -> None:
    document = status_document([], [tenant("bob", ready(reason, "..."))], [], NOW)
    assert document["tenants"][0]["problems"] == []


def test_a_pool_whose_tenants_are_shown_tells_of_its_troubles_once() -> None:
    bad = pool("saas", ready("GatewayNotReady", "No gateway is ready"))
    document = status_document([bad], [tenant("bob", ready("GatewayNotReady", "No gateway of the pool"))], [], NOW)
    assert [line.split(":")[0] for _, line in tables.problem_lines(document)] == ["pool saas", "tenant bob"]


def test_documents_have_the_same_keys_whatever_was_written() -> None:
    full = status_document([], [tenant("a", ready(), phase="Ready", drain=DRAIN)], [], NOW)["tenants"][0]
    bare = status_document([], [tenant("a")], [], NOW)["tenants"][0]
    assert full.keys() == bare.keys()
    assert (bare["ready"], bare["phase"], bare["drain"]) == ("Unknown", "Starting", None)


# explain


def test_the_summary_comes_first_and_what_is_said_twice_is_told_once() -> None:
    message = "Secret key does not exist; create it with the key token"
    found = reasons(
        tenant(
            "bob", condition("CredentialsReady", "False", "SecretNotFound", message),
            ready("SecretNotFound", message), condition("Progressing", "False", "Settled", "Nothing is under way"),
            condition("Paused", "True", "PausedByAnnotation", "Remove the annotation"),
        ),
        NOW,
    )  # fmt: skip
    assert [each.reason for each in found] == ["SecretNotFound", "PausedByAnnotation"]
    assert found[0].source == "condition Ready"
    assert found[1].hint == "kubectl copilot unpause tenant/bob -n team"


def test_a_certificate_that_cannot_be_used_is_a_warning_of_a_pool_that_is_ready() -> None:
    told = condition("CertificateReady", "False", "CertificateMismatched", "Secret tls: tls.key is not the key")
    found = reasons(pool("saas", ready("PoolReady"), told), NOW)
    assert [(each.severity, each.reason) for each in found][1] == (Severity.WARNING, "CertificateMismatched")


def test_a_drain_is_told_from_status_else_from_the_notes_at_the_deployment() -> None:
    in_status = reasons(tenant("bob", ready("Draining", "..."), drain=DRAIN), NOW)
    assert in_status[1].message == "Cause Update, since 2m, deadline in 7m; 2 sessions still work (2 turn)"
    noted = reasons(tenant("bob", ready()), NOW, deployment=deployment("bob", cause="NodeDrain"))
    assert noted[1].source == "annotations of the Deployment"
    assert noted[1].message.startswith("Cause NodeDrain, since 60s, deadline in 8m")


def test_a_drain_after_its_deadline_is_a_warning() -> None:
    late = DRAIN | {"deadline": "2030-01-02T11:59:00Z"}
    assert reasons(tenant("bob", ready("DrainOverdue", "..."), drain=late), NOW)[1].severity is Severity.WARNING


def test_a_tenant_tells_what_is_wrong_with_its_pool_and_who_waits_says_for_what() -> None:
    waits = condition("Progressing", "False", "Settled", "waits for its turn: changed: image")
    bad = pool("saas", ready("PoolReady"), condition("Progressing", "False", "UpdateFailed", "Revision x was given up"))
    found = reasons(tenant("bob", ready(), waits), NOW, pool=bad)
    assert [(each.source, each.reason) for each in found] == [
        ("condition Ready", "ServerReady"),
        ("condition Progressing", "Settled"),
        ("pool saas: condition Progressing", "UpdateFailed"),
    ]
    assert found[2].hint == "kubectl copilot restart pool/saas -n team"


def test_no_status_is_ordinary_for_a_while_and_then_a_question() -> None:
    young, old = NOW - timedelta(minutes=58), NOW
    assert [each.severity for each in reasons(tenant("bob"), young)] == [Severity.INFO]
    found = reasons(tenant("bob"), old)
    assert (found[0].severity, found[0].hint) == (Severity.ERROR, "kubectl copilot doctor")


def test_a_status_of_another_generation_is_told_to_be_old() -> None:
    stale = tenant("bob", ready(), observedGeneration=0)
    assert reasons(stale, NOW)[0].reason == "NotObserved"


def test_events_of_the_operator_come_newest_first_and_nobody_elses() -> None:
    bob = tenant("bob", ready())

    def event(reason: str, at: str, component: str = "copilot-operator", name: str = "bob") -> Any:
        involved = {"kind": "CopilotTenant", "name": name}
        return {
            "metadata": {}, "involvedObject": involved, "reason": reason, "type": "Normal", "message": "m",
            "reportingComponent": component, "lastTimestamp": at,
        }  # fmt: skip

    events = [
        event("Old", "2030-01-02T11:00:00Z"), event("New", "2030-01-02T11:59:00Z"),
        event("Kubelets", "2030-01-02T11:59:00Z", "kubelet"), event("Others", "2030-01-02T11:59:00Z", name="eve"),
    ]  # fmt: skip
    found = explanation(bob, NOW, events=events)
    assert [each["reason"] for each in found["events"]] == ["New", "Old"]
    lines = [line for _, line in explanation_lines(found, NOW)]
    assert lines[0] == "CopilotTenant team/bob, 60m old"
    assert lines[-2] == "  60s ago  New: m"


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5s"), (119, "119s"), (192, "3m12s"), (3600, "60m"), (20000, "5h"), (10**6, "11d")]
)
def test_times_are_short(seconds: int, text: str) -> None:
    assert span(timedelta(seconds=seconds)) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_are_colours_and_no_name_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    row = ("a-name-that-is-rather-long", "Ready", "word " * 30)
    table = tables.Table("", ("TENANT", "PHASE", "FOUND"), [row])
    out = Terminal()
    tables.show([table], out)
    assert "\x1b[" in out.getvalue()
    assert "a-name-that-is-rather-long" in out.getvalue()
    assert max(len(line) for line in out.getvalue().splitlines()) < 140, "text is wrapped"
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    tables.show([table], out)
    assert "\x1b" not in out.getvalue()
