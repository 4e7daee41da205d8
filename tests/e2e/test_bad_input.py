"""What people get wrong: the condition names it, nothing that runs is stopped, and it goes on once it is mended."""

from typing import Any

import pytest

from copilot_operator.domain.kinds import POOL, SERVICE
from copilot_operator.domain.naming import server_of
from tests.support.kube import conditions
from tests.support.place import POOL_NAME, Place

LONG_NAME = "-".join(["a-tenant-with-a-long-name"] * 10)[:253].rstrip("-")


async def test_tenant_waits_for_its_pool(place: Place) -> None:
    place.tenant("finn", pool="later")
    condition = await place.until_reason("finn", "PoolNotFound")
    assert "'later'" in condition["message"]
    assert place.get("finn")["status"]["phase"] == "Pending"
    assert place.deployment("finn") is None
    place.pool("later")
    await place.until_ready("finn")


@pytest.mark.parametrize(
    ("values", "usable", "reason"),
    [
        pytest.param(None, True, "SecretNotFound", id="missing"),
        pytest.param({"token": "gho_x"}, False, "SecretNotUsable", id="unlabelled"),
        pytest.param({"other": "gho_x"}, True, "SecretKeyNotFound", id="keyless"),
        pytest.param({"token": "  "}, True, "SecretEmpty", id="empty"),
    ],
)
async def test_unusable_credential_is_named_and_no_pod_is_made(
    place: Place, values: dict[str, str] | None, usable: bool, reason: str
) -> None:
    if values is not None:
        place.secret("gus-token", values, usable=usable)
    place.pool()
    place.tenant("gus", auth={"gitHub": {"tokenSecretRef": {"name": "gus-token", "key": "token"}}})
    condition = await place.until_reason("gus", reason)
    assert "gus-token" in condition["message"]
    assert "gho_x" not in condition["message"]
    assert conditions(place.get("gus"))["CredentialsReady"]["reason"] == reason
    assert place.pods("gus") == []

    place.secret("gus-token", {"token": "gho_x"})
    await place.until(lambda: place.deployment("gus"), within_s=20, what="it goes on once mended", about="gus")


async def test_image_that_cannot_be_pulled_is_named_and_holds_up_nobody(place: Place) -> None:
    place.pool("broken", image="copilot-cli:no-such-version")
    place.pool()
    place.tenant("hal", pool="broken")
    place.tenant("ida")
    condition = await place.until_reason("hal", "ImagePullFailed", within_s=90)
    assert "copilot-cli:no-such-version" in condition["message"]
    assert place.get("hal")["status"]["phase"] == "Failed"
    await place.until_ready("ida")


async def test_what_is_not_ours_is_not_touched(place: Place) -> None:
    name = server_of("jan")
    metadata = {"name": name, "namespace": place.namespace}
    spec = {"ports": [{"port": 80}], "selector": {"app": "theirs"}}
    theirs = place.kube.create({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    place.pool()
    place.tenant("jan")
    condition = await place.until_reason("jan", "NameTaken")
    assert f"Service {name}" in condition["message"]
    live = place.service("jan")
    assert live
    assert live["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]
    assert place.deployment("jan") is None

    place.kube.delete(SERVICE, place.namespace, name)
    await place.until_ready("jan")


async def test_pool_deleted_while_in_use_stops_no_server(place: Place, provider: Any) -> None:
    place.pool()
    place.tenant("lea")
    await place.until_ready("lea")
    before, token = place.running("lea"), place.connection("lea").token

    place.kube.delete(POOL, place.namespace, POOL_NAME)
    await place.until_reason("lea", "PoolNotFound")
    assert place.running("lea") == before
    await place.say("lea", provider, "remember NOTE=ash")

    place.pool()
    await place.until_ready("lea")
    assert place.running("lea") == before
    assert place.connection("lea").token == token
    assert await place.say("lea", provider, "RECALL", resume=True) == ["notes: ash"]


async def test_missing_storage_class_is_named(place: Place) -> None:
    place.pool(storage={"size": "128Mi", "storageClassName": "no-such-class"})
    place.tenant("mo")
    condition = await place.until_reason("mo", "StorageClassNotFound")
    assert "'no-such-class'" in condition["message"]
    assert conditions(place.get("mo"))["StorageReady"]["status"] == "False"
    assert place.deployment("mo") is None


async def test_names_that_look_alike_have_servers_of_their_own(place: Place) -> None:
    names = ["n.o", "n-o", "n--o"]
    place.pool()
    for name in names:
        place.tenant(name, suspended=True)
    await place.until(
        lambda: all(place.deployment(name) for name in names), within_s=20, what="three Deployments", about=names[0]
    )
    assert len({server_of(name) for name in names}) == 3


async def test_longest_name(place: Place) -> None:
    name = LONG_NAME + "x" * (253 - len(LONG_NAME))
    assert len(name) == 253
    place.pool()
    place.tenant(name)
    await place.until_ready(name)
    assert len(server_of(name)) <= 63
    await place.ping(name)
