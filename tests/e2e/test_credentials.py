"""GitHub tokens of an App and of a person, which end by the minute, and of a Secret, which is refused, changed and
deleted; and the token of an application, which is exchanged."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from copilot_operator.api.conditions import timestamp
from copilot_operator.domain.github_app import serial_of
from copilot_operator.domain.kinds import DEPLOYMENT, POOL, SECRET, TENANT, Kind
from copilot_operator.domain.manifest import annotations_of
from copilot_operator.domain.naming import minted_token
from tests.support.github import private_key
from tests.support.kube import Object, conditions
from tests.support.place import CLI_IMAGE, POOL_NAME, Place
from tests.support.talk import TalkFailed

LIFE_S: Final = 60  # a new token after a third of it: drains may take longer than it lives


def serial(place: Place) -> str:
    live = place.kube.find(SECRET, place.namespace, minted_token(POOL, POOL_NAME))
    return annotations_of(live).get("copilot-operator.io/token-serial", "") if live else ""


def credentials(place: Place) -> dict[str, Any]:
    return dict(conditions(place.kube.get(POOL, place.namespace, POOL_NAME)).get("CredentialsReady") or {})


def told(place: Place) -> str:
    """The token that the server was started with, as its agent says."""
    return str((place.agent_state("ann") or {}).get("tokenSerial") or "")


async def test_turns_go_on_while_the_tokens_of_an_app_end_and_people_hear_when_no_new_one_can_be_made(
    place: Place, provider: Any
) -> None:
    github = provider["base_url"].removesuffix("/v1")
    place.secret("app", {"key.pem": private_key()})
    app = {
        "appId": 1,
        "installationId": 2,
        "privateKeySecretRef": {"name": "app", "key": "key.pem"},
        "apiUrl": f"{github}/lives/{LIFE_S}",
    }
    env = [{"name": name, "value": github} for name in ("COPILOT_DEBUG_GITHUB_API_URL", "COPILOT_API_URL")]
    server = {"image": CLI_IMAGE, "env": env, "resources": {"requests": {"cpu": "20m", "memory": "256Mi"}}}
    gateway = {"enabled": True, "replicas": 1, "drainTimeout": "5s"}
    place.pool(auth={"gitHub": {"app": app}}, server=server, gateway=gateway)
    place.tenant("ann")
    await place.until_ready("ann", within_s=120)
    assert credentials(place)["reason"] == "TokenMinted"

    serials = {serial(place)}
    assert await place.say("ann", None, "remember NOTE=walnut SLEEP=1") != []
    started_with = told(place)
    assert started_with in serials
    for _ in range(40):
        assert await place.say("ann", None, "RECALL SLEEP=2", resume=True) == ["notes: walnut"]
        serials.add(serial(place))
        if len(serials) >= 3 and told(place) not in ("", started_with):
            break
    else:
        raise AssertionError(f"the server has its first token still\n{place.explain('ann')}")

    place.kube.delete(SECRET, place.namespace, "app")
    await place.until(
        lambda: credentials(place)["reason"] == "RefreshFails",
        within_s=LIFE_S,
        what="people hear that no new token can be made",
        about="ann",
    )
    assert "Secret app does not exist" in credentials(place)["message"]
    assert credentials(place)["status"] == "True", "the present one holds still"
    assert await place.say("ann", None, "RECALL", resume=True) == ["notes: walnut"]


PERSONS_LIFE_S: Final = 120  # the next one is due after a third of it, if nobody is in a turn


@pytest.mark.timeout(1500)
async def test_a_persons_session_goes_on_with_token_after_token_and_a_refresh_token_that_is_used_up_is_told(
    place: Place, provider: Any
) -> None:
    github = provider["base_url"].removesuffix("/v1")
    grant = {"clientId": "Iv23.client", "clientSecret": "secret\n", "url": f"{github}/lives/{PERSONS_LIFE_S}"}
    place.secret("ann-grant", grant | {"refreshToken": "ghr_ann\n"})
    env = [{"name": name, "value": github} for name in ("COPILOT_DEBUG_GITHUB_API_URL", "COPILOT_API_URL")]
    server = {"image": CLI_IMAGE, "env": env, "resources": {"requests": {"cpu": "20m", "memory": "256Mi"}}}
    place.pool(server=server, gateway={"enabled": True, "replicas": 1, "drainTimeout": "5s"})
    place.tenant("ann", auth={"gitHub": {"userToken": {"secretRef": {"name": "ann-grant"}}}})
    await place.until_ready("ann", within_s=120)

    def reason() -> str:
        return str((conditions(place.get("ann")).get("CredentialsReady") or {}).get("reason"))

    def of_token(name: str = "serial") -> str:
        live = place.kube.get(SECRET, place.namespace, minted_token(TENANT, "ann"))
        return str(annotations_of(live)[f"copilot-operator.io/token-{name}"])

    async def says(prompt: str, *, resume: bool = True) -> str:
        """Nothing if it failed: a turn may begin between GitHub's answer and the gateway's hearing of it."""
        try:
            return " ".join(await place.say("ann", None, prompt, resume=resume))
        except TalkFailed:
            return ""

    async def begins() -> bool:
        return bool(await says("remember NOTE=walnut", resume=False) or await says("remember NOTE=walnut"))

    async def recalls(more: str = "") -> bool:
        return (await says(f"RECALL {more}")).startswith("notes: walnut")

    async def is_waited_for() -> bool:
        """A turn that goes on for longer than until the next token is due, which would end that of the turn."""
        before = of_token()
        return await recalls(f"SLEEP={PERSONS_LIFE_S * 3 / 8}") and of_token() == before

    assert reason() == "TokenMinted"
    running = place.running("ann")
    await place.until(begins, within_s=60, what="a session", about="ann")
    await place.until(is_waited_for, within_s=240, what="a turn is waited for", about="ann")
    before = of_token()
    await place.until(lambda: of_token() != before, within_s=90, what="the next token", about="ann")
    await place.until(recalls, within_s=60, what="the session goes on with it", about="ann")

    place.secret("ann-grant", grant | {"refreshToken": "used up"})
    await place.until(lambda: reason() == "RefreshTokenRejected", within_s=60, what="it is told", about="ann")
    place.secret("ann-grant", grant | {"refreshToken": "ghr_again"})
    await place.until(lambda: reason() == "TokenMinted", within_s=60, what="it starts afresh", about="ann")
    assert of_token("origin") == serial_of("ghr_again")
    await place.until(recalls, within_s=60, what="the session goes on with a new grant", about="ann")
    assert place.running("ann") == running, "no server is restarted for a person's token"


REFUSED: Final = "gho_unpaid\n"  # as files end
TAKEN: Final = "gho_paid\n"


async def test_without_a_gateway_a_refused_token_is_told_a_changed_one_taken_and_a_deleted_one_not_missed(
    place: Place, provider: Any
) -> None:
    github = provider["base_url"].removesuffix("/v1")
    place.secret("github", {"token": REFUSED})
    env = [{"name": name, "value": github} for name in ("COPILOT_DEBUG_GITHUB_API_URL", "COPILOT_API_URL")]
    server = {"image": CLI_IMAGE, "env": env, "resources": {"requests": {"cpu": "20m", "memory": "256Mi"}}}
    auth = {"gitHub": {"tokenSecretRef": {"name": "github", "key": "token"}}}
    place.pool(auth=auth, server=server, gateway={"enabled": False})
    place.tenant("ann")
    await place.until_ready("ann", within_s=120)

    def reason() -> str:
        return str((conditions(place.get("ann")).get("CredentialsReady") or {}).get("reason"))

    with pytest.raises(TalkFailed):
        await place.say("ann", None, "ECHO=`hi`")
    await place.until(lambda: reason() == "CredentialRefused", within_s=60, what="the refusal is told", about="ann")

    place.secret("github", {"token": TAKEN})
    await place.until(lambda: reason() == "TokenFound", within_s=120, what="another token is there", about="ann")
    await place.until_ready("ann", within_s=120)
    assert await place.say("ann", None, "ECHO=`hi`", resume=True) == ["hi"]

    running = place.running("ann")
    place.kube.delete(SECRET, place.namespace, "github")
    await place.until(lambda: reason() == "SecretNotFound", within_s=60, what="its absence is told", about="ann")
    assert await place.say("ann", None, "ECHO=`still`", resume=True) == ["still"]
    assert place.running("ann") == running, "without its token it could not start again"
    place.secret("github", {"token": TAKEN})
    await place.until(lambda: reason() == "TokenFound", within_s=60, what="it is there again", about="ann")
    await place.until_ready("ann", within_s=60)
    assert place.running("ann") == running


async def test_without_a_gateway_a_token_is_exchanged_between_a_drain_and_a_start(place: Place, provider: Any) -> None:
    """Under a running turn, and with an operator that is killed while it waits for that and when the server stops."""
    place.pool()
    place.tenant("ann")
    await place.until_ready("ann")
    old, secret, server = place.connection("ann"), place.secret_of("ann"), place.deployment("ann")
    assert secret
    assert server
    turn = await place.in_a_turn(provider, "ann", "walnut", 55)
    place.tenant("ann", connectionToken={"rotateAt": timestamp(datetime.now(UTC))})
    assert "changed: connectionToken" in (await place.until_reason("ann", "Draining"))["message"]
    await asyncio.to_thread(place.operator.restart)
    assert not turn.done(), "the turn was over: nothing was tested"
    assert place.connection("ann").token == old.token, "another one than its server's"
    (answer,) = await turn
    assert answer, "the turn ended whole"

    def exchanged() -> bool:
        return place.connection("ann").token != old.token

    def stops() -> bool:
        return exchanged() or not replicas(place.deployment("ann"))

    await place.until(stops, within_s=60, what="it stops", about="ann")
    await asyncio.to_thread(place.operator.restart)
    await place.until(exchanged, within_s=60, what="there is another token", about="ann")
    await place.until_ready("ann")
    assert await place.say("ann", provider, "RECALL", resume=True) == ["notes: first walnut"]
    with pytest.raises(TalkFailed, match="AUTHENTICATION_FAILED"):
        await place.ping("ann", token=old.token)

    shard = place.kube.get(SECRET, place.namespace, f"copilotpool-{POOL_NAME}-server-tokens-0")
    await place.until(
        lambda: len(place.kube.get(SECRET, place.namespace, shard["metadata"]["name"])["data"]) == 1,
        within_s=30,
        what="the old one is stored nowhere",
    )
    changes = _changes(place, SECRET, secret, lambda found: found["data"]["token"])
    assert len(changes) == 1, "one token, whatever happened on the way"
    counts = [at for at in _changes(place, DEPLOYMENT, server, replicas) if at < changes[0]]
    assert len(counts) == 1, "the server was told to stop before, and to start after"


def replicas(deployment: Object | None) -> int:
    return int(deployment["spec"]["replicas"]) if deployment else 0


def _changes(place: Place, kind: Kind, before: Object, part: Callable[[Object], Any]) -> list[int]:
    """The resourceVersions with which a part of the object has changed since; those of all kinds are in one order."""
    found, last = [], part(before)
    for _, live in place.kube.history(kind, place.namespace, before["metadata"]["resourceVersion"]):
        if live["metadata"]["name"] == before["metadata"]["name"] and part(live) != last:
            found.append(int(live["metadata"]["resourceVersion"]))
            last = part(live)
    return found
