"""Applications behind a pool's gateway: the operator makes it, and servers stop and start behind it."""

import asyncio
import os
from typing import Any, Final
from unittest.mock import ANY

import pytest
import yaml

from copilot_operator.domain.kinds import DEPLOYMENT, EVENT, POD, POOL, SECRET, SERVICE, STORAGE_CLASS, TENANT, Kind
from copilot_operator.domain.manifest import annotations_of
from copilot_operator.domain.naming import TENANT_ANNOTATION, gateway_of, server_of
from copilot_operator.domain.seats import seat_name
from copilot_operator.domain.secrets import decoded
from tests.cluster.components import SHARED_CLASS
from tests.cluster.layout import ROOT
from tests.support.kube import AUTOSCALER, Object, conditions, is_ready
from tests.support.place import POOL_NAME, Place

GATEWAY: Final = gateway_of(POOL_NAME)
READY_S: Final = 120.0
AWAY_S: Final = float(os.environ.get("AWAY_S", "20"))  # of the API server


def behind_a_gateway(place: Place, **spec: Any) -> Object:
    return place.pool(gateway={"replicas": 1, "drainTimeout": "5s"}, **spec)


def shared(place: Place, servers: int | Object, key: str, **spec: Any) -> Object:
    """A Shared pool that pays for its sessions with the model's key; ``servers``: how many, or spec.shared."""
    return behind_a_gateway(
        place,
        isolation="Shared",
        shared={"replicas": servers} if isinstance(servers, int) else servers,
        auth={"provider": _provider_of(key) | {"apiKeySecretRef": {"name": "model", "key": "key"}}},
        **spec,
    )


def _provider_of(url: str) -> Object:
    return {"type": "openai", "baseUrl": url, "wireApi": "completions"}


def pool_of(place: Place) -> Object:
    return place.kube.get(POOL, place.namespace, POOL_NAME)


def servers_ready(place: Place) -> int:
    return int((pool_of(place).get("status") or {}).get("readyReplicas", 0))


def running(place: Place) -> set[str]:
    """Seats whose Deployments have a replica."""
    found = place.kube.list(DEPLOYMENT, place.namespace, "app.kubernetes.io/name=copilot")
    return {annotations_of(each)[TENANT_ANNOTATION] for each in found if each["spec"]["replicas"]}


async def test_a_client_does_not_notice_that_its_server_is_replaced(place: Place, provider: Any) -> None:
    """A restart in the middle of a turn, and a request while no server runs: through the official SDK, unchanged."""
    behind_a_gateway(place)
    place.tenant("ann")
    await place.until_ready("ann", within_s=READY_S)
    token = place.connection("ann").token
    server = place.kube.get(SECRET, place.namespace, f"copilotpool-{POOL_NAME}-server-tokens-0")
    assert place.kube.get(SERVICE, place.namespace, server_of("ann"))["spec"]["type"] == "ExternalName"
    assert token not in str(server), "a tenant's token is not its server's"

    turn = await place.in_a_turn(provider, "ann", "walnut", 12)
    before = place.running("ann")
    place.kube.merge(
        TENANT, place.namespace, "ann", {"metadata": {"annotations": {"copilot-operator.io/restarted-at": "now"}}}
    )
    await place.until(lambda: cordoned(place, "ann"), within_s=20, what="gateways are kept off", about="ann")
    await turn
    await place.until(lambda: place.running("ann") == [], within_s=60, what="its server has stopped", about="ann")
    held = await place.say("ann", provider, "RECALL", resume=True)
    assert held == ["notes: first walnut"], "the request waited for the server that came back"
    assert place.running("ann") != before


def cordoned(place: Place, tenant: str) -> bool:
    labels = [pod["metadata"]["labels"] for pod in place.pods(tenant)]
    return any(each.get("copilot-operator.io/cordoned") == "true" for each in labels)


async def test_a_suspended_tenant_is_told_so_at_once_and_a_deleted_ones_token_is_dead(
    place: Place, provider: Any
) -> None:
    behind_a_gateway(place)
    for name in ("ben", "cleo"):
        place.tenant(name)
    for name in ("ben", "cleo"):
        await place.until_ready(name, within_s=READY_S)
    await place.say("ben", provider, "remember NOTE=hazel")
    place.tenant("ben", suspended=True)
    await place.until_reason("ben", "Suspended", within_s=60)
    said = await failure(place.say("ben", provider, "RECALL", resume=True))
    assert "suspended" in said
    place.tenant("ben", suspended=False)
    await place.until_ready("ben")
    assert await place.say("ben", provider, "RECALL", resume=True) == ["notes: hazel"]

    connection = place.connection("cleo")
    place.kube.delete(TENANT, place.namespace, "cleo")

    async def refused() -> bool:
        return "AUTHENTICATION_FAILED" in await failure(place.ping("ben", token=connection.token))

    await place.until(refused, within_s=30, what="the token of a deleted tenant is refused", about="ben")


async def failure(work: Any) -> str:
    """What an application is told; "" if all went well."""
    try:
        await work
    except Exception as error:
        return str(error)
    return ""


async def test_an_unused_server_stops_and_the_next_request_starts_it(place: Place, provider: Any) -> None:
    behind_a_gateway(place, suspend={"afterIdle": "1m"})
    place.tenant("ivy")
    await place.until_ready("ivy", within_s=READY_S)
    await place.say("ivy", provider, "remember NOTE=elder")
    await place.until_reason("ivy", "SuspendedWhenIdle", within_s=150)
    assert place.running("ivy") == []
    assert place.get("ivy")["status"]["phase"] == "Suspended"
    assert await place.say("ivy", provider, "RECALL", resume=True) == ["notes: elder"]
    await place.until_ready("ivy", within_s=30)


async def test_servers_without_a_volume_and_sessions_that_leave_nothing(place: Place, provider: Any) -> None:
    storage, sessions = {"mode": "Ephemeral", "size": "512Mi"}, {"persistence": "Ephemeral"}
    behind_a_gateway(place, storage=storage, sessions=sessions, suspend={"afterIdle": "1m"})
    place.tenant("finn")
    await place.until_ready("finn", within_s=READY_S)
    assert conditions(place.get("finn"))["StorageReady"]["reason"] == "Ephemeral"
    assert place.claim("finn") is None
    assert await place.say("finn", provider, "remember NOTE=larch", "RECALL") == [ANY, "notes: larch"]

    def erased() -> bool:
        state = place.agent_state("finn") or {"ephemeral": None}
        return bool(state["ephemeral"] == {"stored": 0, "erased": 1} and state["sessions"]["stored"] == 0)

    await place.until(erased, within_s=20, what="nothing is left of the session", about="finn")
    assert "not found" in (await failure(place.say("finn", provider, "RECALL", resume=True))).lower()
    await place.until_reason("finn", "SuspendedWhenIdle", within_s=150)
    assert await place.say("finn", provider, "remember NOTE=larch", session="another"), "a request starts it"


async def test_gateways_objects_are_made_again(place: Place) -> None:
    behind_a_gateway(place)
    await place.until(lambda: gateway_ready(place), within_s=READY_S, what="a gateway is ready")
    for kind, name in (
        (SERVICE, GATEWAY),
        (Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"), GATEWAY),
        (SECRET, GATEWAY),
    ):
        uid = place.kube.get(kind, place.namespace, name)["metadata"]["uid"]
        place.kube.delete(kind, place.namespace, name)

        def made_again(kind: Kind = kind, name: str = name, uid: str = uid) -> bool:
            live = place.kube.find(kind, place.namespace, name)
            return live is not None and live["metadata"]["uid"] != uid

        await place.until(made_again, within_s=20, what=f"{kind} {name} is there again")


def gateway_ready(place: Place) -> bool:
    return bool(((pool_of(place).get("status") or {}).get("gateway") or {}).get("readyReplicas"))


async def test_tenants_share_servers_and_a_parked_session_starts_its_home(place: Place, provider: Any) -> None:
    place.secret("model", {"key": "none"})
    shared(place, 2, provider["base_url"])
    for name in ("dora", "emil"):
        place.tenant(name)
    await place.until(lambda: servers_ready(place) == 2, within_s=READY_S, what="both servers are ready")
    for name in ("dora", "emil"):
        await place.until_ready(name, within_s=READY_S)
        assert place.deployment(name) is None, "it has no server of its own"
    for name in ("dora", "emil"):
        await place.say(name, None, f"remember NOTE={name}")
    assert (
        "not found" in (await failure(place.say("emil", None, "RECALL", resume=True, session="session-dora"))).lower()
    )
    await place.until(
        lambda: all(place.get(name)["status"].get("homes") for name in ("dora", "emil")),
        within_s=30,
        what="their homes are known",
    )

    place.kube.merge(POOL, place.namespace, POOL_NAME, {"spec": {"shared": {"replicas": 0}}})
    await place.until(lambda: running(place) == set(), within_s=90, what="all servers have gone")
    await place.until(
        lambda: conditions(pool_of(place))["Ready"]["reason"] == "NoServers", within_s=20, what="the pool says so"
    )
    # A gateway that never saw these servers knows from the tenants' status where to look.
    place.kube.kubectl("-n", place.namespace, "rollout", "restart", f"deployment/{GATEWAY}")
    place.kube.kubectl("-n", place.namespace, "rollout", "status", f"deployment/{GATEWAY}", "--timeout=60s")
    answers = await asyncio.gather(*(place.say(name, None, "RECALL", resume=True) for name in ("dora", "emil")))
    assert answers == [["notes: dora"], ["notes: emil"]]
    assert running(place) <= {seat_name(POOL_NAME, ordinal) for ordinal in (0, 1)}


async def test_sessions_on_a_shared_volume_go_on_wherever_there_is_a_server(place: Place, provider: Any) -> None:
    if place.kube.find(STORAGE_CLASS, "", SHARED_CLASS) is None:
        pytest.skip(f"the cluster has no StorageClass {SHARED_CLASS}")
    place.secret("model", {"key": "none"})
    storage = {"mode": "Shared", "storageClassName": SHARED_CLASS, "size": "1Gi", "retention": "Delete"}
    shared(place, 2, provider["base_url"], storage=storage)
    place.kube.merge(POOL, place.namespace, POOL_NAME, {"spec": {"shared": {"routing": "RoundRobin"}}})
    for name in ("jim", "kay"):
        place.tenant(name)
    await place.until(lambda: servers_ready(place) == 2, within_s=READY_S, what="both servers are ready")
    for name in ("jim", "kay"):
        await place.until_ready(name, within_s=READY_S)
    begun = {name: place.say(name, None, f"remember NOTE={name} SLEEP=20", "RECALL") for name in ("jim", "kay")}
    talks = [asyncio.create_task(each) for each in begun.values()]
    await place.until(lambda: len(protected(place)) == 2, within_s=40, what="a turn runs on each of them")
    place.kube.kubectl("-n", place.namespace, "scale", "copilotpool", POOL_NAME, "--replicas=1")
    answers = await asyncio.gather(*talks)
    assert [each[-1] for each in answers] == ["notes: jim", "notes: kay"], "also that whose server has gone"
    await place.until(lambda: len(running(place)) == 1, within_s=60, what="one server has gone")

    (seat,) = running(place)
    (pod,) = place.pods(seat)
    place.kube.delete(POD, place.namespace, pod["metadata"]["name"])
    for name in ("jim", "kay"):
        assert await place.say(name, None, "RECALL", resume=True) == [f"notes: {name}"]
    assert [each["metadata"]["uid"] for each in place.pods(seat)] != [pod["metadata"]["uid"]]


async def test_a_deleted_tenants_sessions_are_erased_and_its_namesakes_are_not(place: Place, provider: Any) -> None:
    """Deleted while no operator runs and no server does; a tenant of the same name comes before anybody notices."""
    place.secret("model", {"key": "none"})
    shared(place, 1, provider["base_url"])
    for name in ("kim", "lea"):
        place.tenant(name)
    await place.until(lambda: servers_ready(place) == 1, within_s=READY_S, what="the server is ready")
    for name in ("kim", "lea"):
        await place.until_ready(name, within_s=READY_S)
        await place.say(name, None, f"remember NOTE={name}")
    seat = seat_name(POOL_NAME, 0)
    await place.until(lambda: stored_on(place, seat) == 2, within_s=40, what="both are stored")

    place.kube.merge(POOL, place.namespace, POOL_NAME, {"spec": {"shared": {"replicas": 0}}})
    await place.until(lambda: running(place) == set(), within_s=90, what="the server has gone")
    parked = {"count": 1, "sessions": 2, "most": [{"server": server_of(seat), "sessions": 2}]}
    await place.until(lambda: status_of(place, "parkedServers") == parked, within_s=30, what="what it holds is told")
    place.operator.kill()
    place.kube.delete(TENANT, place.namespace, "kim")
    place.tenant("kim")
    await asyncio.to_thread(place.operator.start)
    await place.until(lambda: pending_of(place) == [("kim", [server_of(seat)])], within_s=90, what="it is to be erased")

    place.kube.merge(POOL, place.namespace, POOL_NAME, {"spec": {"shared": {"replicas": 1}}})
    await place.until_ready("kim", within_s=READY_S)
    await place.say("kim", None, "remember NOTE=namesake")
    await place.until(lambda: not pending_of(place), within_s=90, what="it is erased")
    assert await place.say("kim", None, "RECALL", resume=True) == ["notes: namesake"]
    assert await place.say("lea", None, "RECALL", resume=True) == ["notes: lea"]
    await place.until(lambda: stored_on(place, seat) == 2, within_s=40, what="no other is stored")
    done = {"erased": {}, "sessions": 1, "failure": None}
    await place.until(
        lambda: (place.agent_state(seat) or {}).get("erasure") == done, within_s=60, what="no more is asked"
    )
    told = {event["reason"]: event["message"] for event in place.kube.list(EVENT, place.namespace)}
    assert told["TenantErased"] == "1 sessions of deleted tenants are erased: kim"


def stored_on(place: Place, seat: str) -> int | None:
    state = place.agent_state(seat)
    return state["sessions"]["stored"] if state else None


def status_of(place: Place, field: str) -> Any:
    return (pool_of(place).get("status") or {}).get(field)


def pending_of(place: Place) -> list[tuple[str, list[str]]]:
    """Deleted tenants and the servers that may still store their sessions."""
    return [(each["tenant"], each["servers"]) for each in (status_of(place, "pendingErasures") or {}).get("oldest", ())]


async def test_tenants_take_turns_where_only_one_session_may_be_loaded_and_in_one_that_they_share(
    place: Place, provider: Any
) -> None:
    place.secret("model", {"key": "none"})
    team = {"name": "team", "tenantSelector": {"matchLabels": {"team": "a"}}, "whenBusy": "Queue"}
    ours = {"name": "ours", "tenants": ["gil", "nobody"]}
    sharing = {"replicas": 1, "sharedSessions": [team, ours]}
    shared(place, sharing, provider["base_url"], sessions={"maxConcurrent": 1})
    for name in ("gil", "hope"):
        place.tenant(name)
    for name in ("gil", "hope"):
        await place.until_ready(name, within_s=READY_S)
    await asyncio.gather(*(place.say(name, None, f"remember NOTE={name}") for name in ("gil", "hope")))
    for name in ("gil", "hope"):
        assert await place.say(name, None, "RECALL", resume=True) == [f"notes: {name}"]
        state = place.agent_state(seat_name(POOL_NAME, 0))
        assert state is not None
        assert state["sessions"]["loaded"] <= 1

    told = conditions(pool_of(place))["MembersFound"]
    assert (told["reason"], told["message"].rpartition(": ")[2]) == ("MembersMissing", "nobody")
    of_no_member = await failure(place.say("hope", None, "RECALL", resume=True, session="team"))
    assert "not found" in of_no_member.lower()
    for name in ("gil", "hope"):
        place.kube.merge(TENANT, place.namespace, name, {"metadata": {"labels": {"team": "a"}}})
    await place.until(lambda: shares(place, "hope"), within_s=30, what="the gateway is told", about="hope")
    await place.say("gil", None, "remember NOTE=oak", session="team")

    async def joins() -> bool:
        return not await failure(place.say("hope", None, "NOTE=elm", resume=True, session="team"))

    await place.until(joins, within_s=30, what="hope is a member", about="hope")
    both = [place.say(name, None, f"remember NOTE={name} SLEEP=2", session="team") for name in ("gil", "hope")]
    await asyncio.gather(*both)
    place.kube.merge(TENANT, place.namespace, "hope", {"metadata": {"labels": {"team": None}}})

    async def out() -> bool:
        return "not found" in (await failure(place.say("hope", None, "RECALL", resume=True, session="team"))).lower()

    await place.until(out, within_s=30, what="hope is no member any more", about="hope")
    (notes,) = await place.say("gil", None, "RECALL", resume=True, session="team")
    assert sorted(notes.split()[1:]) == ["elm", "gil", "hope", "oak"]


def shares(place: Place, tenant: str) -> bool:
    """Whether the Secrets of the gateway say that the tenant shares a session."""
    secret = place.kube.get(SECRET, place.namespace, f"{GATEWAY}-tenants-0")
    return '"shares":["team"]' in decoded(secret["data"][server_of(tenant)])


async def test_a_shared_pool_is_scaled_and_its_idle_server_goes_first(place: Place, provider: Any) -> None:
    place.secret("model", {"key": "none"})
    shared(place, 2, provider["base_url"])
    place.tenant("fay")
    await place.until(lambda: servers_ready(place) == 2, within_s=READY_S, what="both servers are ready")
    await place.until_ready("fay", within_s=READY_S)
    await place.say("fay", None, "remember NOTE=first")
    turn = asyncio.create_task(place.say("fay", None, "remember NOTE=plum SLEEP=20", resume=True))
    await place.until(lambda: protected(place), within_s=40, what="the operator knows of the turn")
    (works,) = protected(place)
    place.kube.kubectl("-n", place.namespace, "scale", "copilotpool", POOL_NAME, "--replicas=1")
    await place.until(lambda: running(place) == {works}, within_s=60, what="the idle server has gone")
    assert not turn.done(), "and the one that works has not been waited for"
    await turn
    assert await place.say("fay", None, "RECALL", resume=True) == ["notes: first plum"]
    assert is_ready(pool_of(place))
    place.kube.apply(an_autoscaler(place, least=2))
    await place.until(lambda: len(running(place)) == 2, within_s=90, what="an autoscaler has its way")
    await place.until(lambda: servers_ready(place) == 2, within_s=60, what="both are ready")
    assert pool_of(place)["spec"]["shared"]["replicas"] == 2
    generation = pool_of(place)["metadata"]["generation"]
    await asyncio.to_thread(place.operator.restart)
    await place.until(lambda: is_able_to_scale(place), within_s=60, what="it looks again")
    assert pool_of(place)["metadata"]["generation"] == generation, "nobody fights over the number"
    assert len(running(place)) == 2


async def test_a_pool_has_as_many_servers_as_its_sessions_need(place: Place, provider: Any) -> None:
    place.secret("model", {"key": "none"})
    # longer than a server's first session may take to be loaded: until then nothing is counted there
    scaling = {"minReplicas": 0, "maxReplicas": 2, "freeSessions": 0, "scaleInDelay": "20s"}
    shared(place, {"autoscaling": scaling}, provider["base_url"], sessions={"maxConcurrent": 1})
    for name in ("jan", "kim"):
        place.tenant(name)
    for name in ("jan", "kim"):
        await place.until_ready(name, within_s=READY_S)
    assert conditions(pool_of(place))["Scaled"]["reason"] == "NobodyNeedsIt"
    assert running(place) == set()
    first = asyncio.create_task(place.say("jan", None, "remember NOTE=fir SLEEP=45"))
    await place.until(lambda: servers_ready(place) == 1, within_s=60, what="a request has started a server")
    await place.until(lambda: protected(place), within_s=40, what="it works: who comes now finds no room")
    second = asyncio.create_task(place.say("kim", None, "remember NOTE=oak"))

    def another_is_ready() -> bool:
        for task in (first, second):
            if task.done():
                task.result()  # why it failed says more than that nothing came
        return servers_ready(place) == 2

    await place.until(another_is_ready, within_s=60, what="another one comes for another session")
    assert "slots" in pool_of(place)["status"]["autoscaling"]["message"]
    await asyncio.gather(first, second)
    await place.until(lambda: running(place) == set(), within_s=120, what="they go when nobody needs them")
    assert is_ready(pool_of(place))
    refused = await failure(
        asyncio.to_thread(place.kube.kubectl, "-n", place.namespace, "scale", "cpool", POOL_NAME, "--replicas=2")
    )
    assert "with autoscaling the operator decides the number" in refused
    assert await place.say("jan", None, "RECALL", resume=True) == ["notes: fir"], "and what they store starts them"


def an_autoscaler(place: Place, least: int) -> Object:
    """The HorizontalPodAutoscaler of the docs; below its minimum it needs no metric, and nothing serves one here."""
    made: Object = yaml.safe_load((ROOT / "manifests" / "autoscaling" / "hpa.yaml").read_text())
    made["metadata"] = {"name": POOL_NAME, "namespace": place.namespace}
    made["spec"]["scaleTargetRef"]["name"] = POOL_NAME
    made["spec"]["minReplicas"] = least
    return made


def is_able_to_scale(place: Place) -> bool:
    """Whether the autoscaler says that it could read and write the number."""
    live = place.kube.get(AUTOSCALER, place.namespace, POOL_NAME)
    return bool(conditions(live).get("AbleToScale", {}).get("status") == "True")


def protected(place: Place) -> set[str]:
    pods = place.kube.list(POD, place.namespace, "copilot-operator.io/protected=true")
    return {annotations_of(each)[TENANT_ANNOTATION] for each in pods}


async def test_clients_go_on_without_the_operator_and_the_api_server(place: Place, provider: Any) -> None:
    """Those that are connected and new ones, of running servers; and all is as before when both are back."""
    behind_a_gateway(place)
    for name in ("ann", "bob"):
        place.tenant(name)
    for name in ("ann", "bob"):
        await place.until_ready(name, within_s=READY_S)
    turn = await place.in_a_turn(provider, "ann", "walnut", min(AWAY_S / 2, 40))
    servers = {name: place.running(name) for name in ("ann", "bob")}
    connections = {name: place.connection(name) for name in ("ann", "bob")}
    place.operator.kill()
    place.cluster.stop_api_server()
    try:
        began = asyncio.get_running_loop().time()
        assert await place.say("bob", provider, "ECHO=`new client`", connection=connections["bob"]) == ["new client"]
        await turn
        while asyncio.get_running_loop().time() < began + AWAY_S:
            said = await place.say("ann", provider, "RECALL", resume=True, connection=connections["ann"])
            assert said == ["notes: first walnut"]
            await asyncio.sleep(1)
    finally:
        await asyncio.to_thread(place.cluster.start_api_server)
    place.operator.ensure()
    assert await place.say("ann", provider, "RECALL", resume=True) == ["notes: first walnut"]
    place.tenant("cleo")
    await place.until_ready("cleo", within_s=READY_S)
    assert {name: place.running(name) for name in ("ann", "bob")} == servers
