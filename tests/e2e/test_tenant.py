"""From a tenant to its server and back: the operator with its real rights, real Kubernetes, the real CLI."""

import time
from typing import Any

import pytest

from copilot_operator.domain.kinds import CLAIM, DEPLOYMENT, SECRET, SERVICE, TENANT
from copilot_operator.domain.naming import server_of
from tests.support.kube import NAMESPACE, conditions, is_ready
from tests.support.place import Place
from tests.support.talk import TalkFailed

REPAIRED_S = 10.0
# Seconds as a rule. If a pod takes more than 5 s to end, Kubernetes looks again after half of its grace period only.
NAMESPACE_GONE_S = 360.0


async def test_tenant_becomes_ready_with_one_status_write_and_one_event(place: Place) -> None:
    place.pool()
    began = time.monotonic()
    created = place.tenant("ann")
    live = await place.until_ready("ann")
    seconds = time.monotonic() - began

    history = place.kube.history(TENANT, place.namespace, created["metadata"]["resourceVersion"])
    assert [kind for kind, _ in history] == ["MODIFIED"], [obj.get("status") for _, obj in history]
    assert [event["reason"] for event in place.kube.events(place.namespace, "ann")] == ["ServerReady"]
    assert live["status"]["phase"] == "Ready"
    assert live["status"]["observedGeneration"] == live["metadata"]["generation"]
    assert conditions(live)["ServerHealthy"]["status"] == "True"
    assert conditions(live)["StorageReady"]["status"] == "True"

    connection = place.connection("ann")
    assert (connection.host, connection.port) == (f"copilot-ann.{place.namespace}.svc", 4321)
    assert connection.url == f"{connection.host}:{connection.port}"
    await place.ping("ann")
    with pytest.raises(TalkFailed):
        await place.ping("ann", token="not-the-token")
    assert seconds < 30, f"Ready after {seconds:.1f} s"


async def test_suspension_and_wake_keep_the_session(place: Place, provider: Any) -> None:
    place.pool()
    place.tenant("ben")
    await place.until_ready("ben")
    token = place.connection("ben").token
    await place.say("ben", provider, "remember NOTE=walnut")
    state = "/data/copilot/session-state"  # a session whose events a crash of the node has lost
    run_in(place, "ben", "sh", "-c", f"mkdir {state}/broken && touch {state}/broken/events.jsonl")

    place.tenant("ben", suspended=True)
    await place.until_reason("ben", "Suspended", within_s=60)
    assert place.get("ben")["status"]["phase"] == "Suspended"
    assert place.pods("ben") == []
    assert place.claim("ben")

    place.tenant("ben", suspended=False)
    await place.until_ready("ben")
    assert await place.say("ben", provider, "RECALL", resume=True) == ["notes: walnut"]
    assert place.connection("ben").token == token
    await place.until(
        lambda: storage_of(place, "ben")["reason"] == "SessionsQuarantined",
        within_s=30,
        what="the broken one is told of",
    )
    assert "are in quarantine (/data/copilot/quarantine of the server)" in storage_of(place, "ben")["message"]


def run_in(place: Place, tenant: str, *words: str) -> str:
    """Run a command in the CLI's container."""
    (pod,) = place.pods(tenant)
    return place.kube.kubectl("-n", place.namespace, "exec", pod["metadata"]["name"], "-c", "copilot", "--", *words)


def storage_of(place: Place, tenant: str) -> Any:
    return conditions(place.get(tenant))["StorageReady"]


async def test_sessions_that_nobody_used_for_long_are_counted_and_then_deleted(place: Place, provider: Any) -> None:
    place.pool()
    place.tenant("mia")
    await place.until_ready("mia")
    for session in ("old", "young"):
        await place.say("mia", provider, f"remember NOTE={session}", session=session)
    (pod,) = place.pods("mia")
    state = "/data/copilot/session-state/old"
    run_in(place, "mia", "touch", "--date=2 hours ago", f"{state}/events.jsonl", state)

    def expire(action: str) -> None:
        place.pool(sessions={"idleTimeout": "30m", "ttl": "1h", "ttlAction": action})

    def told() -> Any:
        return place.get("mia")["status"].get("expiredSessions")

    expire("DryRun")
    await place.until(lambda: told() == {"kept": 1}, within_s=60, what="the old one is counted", about="mia")
    expire("Delete")
    await place.until(lambda: (told() or {}).get("lastDeleted") == 1, within_s=60, what="it is deleted", about="mia")
    assert "kept" not in told()
    assert place.pods("mia")[0]["metadata"]["uid"] == pod["metadata"]["uid"], "no server was restarted for that"
    events = {event["reason"]: event["message"] for event in place.kube.events(place.namespace, "mia")}
    assert events["ExpiredSessionsDeleted"].startswith("1 sessions deleted that nobody had used")
    assert await place.say("mia", provider, "RECALL", resume=True, session="young") == ["notes: young"]
    with pytest.raises(TalkFailed, match="not found"):
        await place.say("mia", provider, "RECALL", resume=True, session="old")

    place.pool(storage={"size": "1Gi"})  # where the class lets no volume grow
    await place.until(
        lambda: storage_of(place, "mia")["reason"] == "VolumeDoesNotGrow", within_s=30, what="it stays as it is"
    )
    assert is_ready(place.get("mia"))


async def test_retained_volume_is_found_again(place: Place, provider: Any) -> None:
    place.pool()
    place.tenant("cleo", deletionPolicy="Retain")
    await place.until_ready("cleo")
    await place.say("cleo", provider, "remember NOTE=hazel")
    claim = place.claim("cleo")
    assert claim

    place.kube.delete(TENANT, place.namespace, "cleo")
    await place.until(
        lambda: (
            not (place.deployment("cleo") or place.service("cleo") or place.secret_of("cleo") or place.pods("cleo"))
        ),
        within_s=60,
        what="nothing but the volume is left",
    )
    kept = place.claim("cleo")
    assert kept
    assert kept["metadata"]["uid"] == claim["metadata"]["uid"]
    assert "deletionTimestamp" not in kept["metadata"]

    place.tenant("cleo", deletionPolicy="Delete")
    await place.until_ready("cleo")
    assert await place.say("cleo", provider, "RECALL", resume=True) == ["notes: hazel"]
    place.kube.delete(TENANT, place.namespace, "cleo")
    await place.until(lambda: place.claim("cleo") is None, within_s=60, what="the volume goes with its tenant now")


async def test_namespace_goes_while_the_operator_is_dead(place: Place) -> None:
    place.pool()
    place.tenant("dora")
    await place.until_ready("dora")
    place.operator.kill()
    place.leave()
    await place.until(
        lambda: place.kube.find(NAMESPACE, "", place.namespace) is None,
        within_s=NAMESPACE_GONE_S,
        what="the namespace is gone",
    )


async def test_drift_is_repaired_and_the_server_runs_on(place: Place) -> None:
    place.pool()
    place.tenant("emil")
    await place.until_ready("emil")
    kube, namespace, server = place.kube, place.namespace, server_of("emil")
    before, secret, deployment = place.running("emil"), place.secret_of("emil"), place.deployment("emil")
    assert secret
    assert deployment
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]

    def cli_image() -> str:
        live = place.deployment("emil")
        assert live
        return str(next(c["image"] for c in live["spec"]["template"]["spec"]["containers"] if c["name"] == "copilot"))

    def replicas() -> int:
        live = place.deployment("emil")
        assert live
        return int(live["spec"]["replicas"])

    def data() -> Any:
        live = place.secret_of("emil")
        return live and live.get("data")

    kube.delete(SERVICE, namespace, server)
    await place.until(lambda: place.service("emil"), within_s=REPAIRED_S, what="the Service is back", about="emil")

    kube.merge(SECRET, namespace, server, {"data": {"token": "bm90IG91cnM=", "host": None}})
    await place.until(lambda: data() == secret["data"], within_s=REPAIRED_S, what="the Secret is mended", about="emil")
    kube.delete(SECRET, namespace, server)
    await place.until(lambda: data() == secret["data"], within_s=REPAIRED_S, what="the Secret is back", about="emil")

    kube.merge(DEPLOYMENT, namespace, server, {"spec": {"replicas": 2}})
    await place.until(lambda: replicas() == 1, within_s=REPAIRED_S, what="one replica again", about="emil")

    kube.kubectl("-n", namespace, "set", "image", f"deployment/{server}", "copilot=somebody/elses:image")
    await place.until(lambda: cli_image() == image, within_s=REPAIRED_S, what="our image again", about="emil")

    await place.until(lambda: place.running("emil") == before, within_s=60, what="the same pod, alone", about="emil")
    await place.until_ready("emil")
    await place.ping("emil")


async def test_restart_of_the_operator_writes_nothing(place: Place) -> None:
    place.pool()
    place.tenant("kim")
    await place.until_ready("kim")
    await place.until(
        lambda: (place.claim("kim") or {}).get("status", {}).get("phase") == "Bound", within_s=20, what="bound"
    )
    versions = _versions(place, "kim")
    place.operator.restart()
    assert is_ready(place.get("kim"))
    await place.until_ready("kim")
    assert _versions(place, "kim") == versions


def _versions(place: Place, tenant: str) -> dict[str, str]:
    found = {
        kind.kind: place.kube.get(kind, place.namespace, server_of(tenant))
        for kind in (DEPLOYMENT, SERVICE, SECRET, CLAIM)
    }
    found["CopilotTenant"] = place.get(tenant)
    return {kind: obj["metadata"]["resourceVersion"] for kind, obj in found.items()}
