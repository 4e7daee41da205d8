"""Applications behind a pool's gateway: the operator makes it, and servers stop and start behind it."""

import asyncio
from typing import Any, Final

from copilot_operator.domain.kinds import DEPLOYMENT, POD, POOL, SECRET, SERVICE, TENANT, Kind
from copilot_operator.domain.manifest import annotations_of
from copilot_operator.domain.naming import TENANT_ANNOTATION, gateway_of, server_of
from copilot_operator.domain.seats import seat_name
from tests.support.kube import Object, conditions, is_ready
from tests.support.place import POOL_NAME, Place

GATEWAY: Final = gateway_of(POOL_NAME)
READY_S: Final = 120.0


def behind_a_gateway(place: Place, **spec: Any) -> Object:
    return place.pool(gateway={"replicas": 1, "drainTimeout": "5s"}, **spec)


def shared(place: Place, replicas: int, key: str, **spec: Any) -> Object:
    """A Shared pool that pays for its sessions with the model's key."""
    return behind_a_gateway(
        place,
        isolation="Shared",
        shared={"replicas": replicas},
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


def protected(place: Place) -> set[str]:
    pods = place.kube.list(POD, place.namespace, "copilot-operator.io/protected=true")
    return {annotations_of(each)[TENANT_ANNOTATION] for each in pods}
