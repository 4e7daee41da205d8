"""Secrets stay where they are: canaries of every kind, servers that log all they can, and things that go wrong. Then
all that the API server, the pods and their pages hold is searched."""

import base64
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any, Final

from copilot_operator.domain.kinds import POD, POOL, SECRET, TENANT
from copilot_operator.domain.naming import gateway_of, minted_token
from tests.support.github import private_key
from tests.support.kube import KubeError, conditions
from tests.support.leaks import canaries, leaks, logs, objects
from tests.support.place import CLI_IMAGE, POOL_NAME, Place
from tests.support.talk import TalkFailed

MODEL_KEY: Final = "sk-canary-of-the-pools-model"
CLIENTS_KEY: Final = "sk-canary-of-the-clients-own"
GITHUB_TOKEN: Final = "gho_canaryOfATenantsOwnToken"
REFRESH_TOKEN: Final = "ghr_canaryOfAPersonsGrant"
CLIENT_SECRET: Final = "canary-of-an-apps-client-secret"
PAGES: Final = {"copilot": (("4322", "/state"), ("4322", "/metrics"), ("4323", "/metrics")),
                "copilot-gateway": (("4322", "/metrics"), ("4322", "/tenants"), ("4322", "/servers"))}  # fmt: skip
FETCH: Final = """
import sys, urllib.error, urllib.request
for url in sys.argv[2:]:
    asked = urllib.request.Request(url, headers={"Authorization": "Bearer " + sys.argv[1]})
    print(url, urllib.request.urlopen(asked, timeout=10).read().decode())
"""


def pages(place: Place) -> Iterator[tuple[str, str]]:
    """What agents, gateways and the operator tell who asks; gateways also their private pages."""
    held = place.kube.get(SECRET, place.namespace, gateway_of(POOL_NAME))["data"]["admin.key"]
    for name, asked in PAGES.items():
        for pod in place.kube.list(POD, place.namespace, f"app.kubernetes.io/name={name}"):
            if address := pod["status"].get("podIP"):
                urls = [f"http://{address}:{port}{path}" for port, path in asked]
                words = [sys.executable, "-c", FETCH, base64.b64decode(held).decode(), *urls]
                done = place.cluster.run_in_network(words, capture_output=True, text=True, timeout=60, check=False)
                assert done.returncode == 0, f"{pod['metadata']['name']}: {done.stderr}"
                yield f"the pages of {pod['metadata']['name']}", done.stdout


def server_logs(place: Place) -> Iterator[tuple[str, str]]:
    """The CLI's own log files, which no collector of logs reads, but an administrator does."""
    for pod in place.kube.list(POD, place.namespace, "app.kubernetes.io/name=copilot"):
        words = ["exec", pod["metadata"]["name"], "-c", "copilot", "--", "sh", "-c", "cat /logs/*"]
        with suppress(KubeError):  # it has just ended, or begun
            yield f"/logs of {pod['metadata']['name']}", place.kube.kubectl("-n", place.namespace, *words)


async def test_no_secret_is_told_by_anybody(place: Place, provider: Any) -> None:
    began = place.operator.log_file.stat().st_size
    github = provider["base_url"].removesuffix("/v1")
    place.secret("model", {"key": MODEL_KEY})
    place.secret("github", {"token": GITHUB_TOKEN})
    place.secret("app", {"key.pem": private_key()})
    env = [{"name": name, "value": github} for name in ("COPILOT_DEBUG_GITHUB_API_URL", "COPILOT_API_URL")]
    server = {"image": CLI_IMAGE, "logLevel": "all", "env": env, "resources": {"requests": {"cpu": "20m"}}}
    gateway = {"enabled": True, "replicas": 1, "drainTimeout": "5s"}
    key = {"apiKeySecretRef": {"name": "model", "key": "key"}}
    paid = {"provider": {"type": "openai", "baseUrl": provider["base_url"], "wireApi": "completions"} | key}
    place.pool(server=server, gateway=gateway, auth=paid)
    place.tenant("ann")
    place.tenant("bob", auth={"gitHub": {"tokenSecretRef": {"name": "github", "key": "token"}}})
    app = {"appId": 1, "installationId": 2, "privateKeySecretRef": {"name": "app", "key": "key.pem"}}
    place.pool("minted", server=server, auth={"gitHub": {"app": app | {"apiUrl": "http://127.0.0.1:9"}}})
    place.tenant("cy", pool="minted")
    grant = {"clientId": "Iv23.id", "clientSecret": CLIENT_SECRET, "url": f"{github}/lives/90"}
    place.secret("grant", grant | {"refreshToken": REFRESH_TOKEN})
    place.tenant("dan", auth={"gitHub": {"userToken": {"secretRef": {"name": "grant"}}}})
    for name in ("ann", "bob", "dan"):
        await place.until_ready(name, within_s=120)

    assert await place.say("ann", None, "remember NOTE=walnut") != []
    for what in (
        place.say("bob", provider | {"api_key": CLIENTS_KEY}, "remember NOTE=hazel"),
        place.say(
            "ann", provider | {"base_url": "http://127.0.0.1:9/v1", "api_key": CLIENTS_KEY}, "hello", session="s"
        ),
        place.ping("ann", token=place.connection("bob").token),
        place.ping("ann", token="no-such-token"),
    ):
        with suppress(TalkFailed):  # some of it is to fail; that it is told nowhere is what counts
            await what
    persons = place.kube.get(SECRET, place.namespace, minted_token(TENANT, "dan"))["data"]
    used_up = base64.b64decode(persons["refreshToken"]).decode()
    place.secret("grant", grant | {"refreshToken": f"of another App {used_up}"})  # which is told, and not what it is
    await place.until(
        lambda: conditions(place.get("dan"))["CredentialsReady"]["reason"] == "RefreshTokenRejected",
        within_s=60,
        what="people hear that no token of the person can be had",
        about="dan",
    )
    await place.until(
        lambda: (
            conditions(place.kube.get(POOL, place.namespace, "minted")).get("CredentialsReady", {}).get("reason")
            == "GitHubUnavailable"
        ),
        within_s=60,
        what="people hear that no token of the App can be made",
    )

    secret = canaries(place.kube, place.namespace) | {
        CLIENTS_KEY: "the client's own key",
        REFRESH_TOKEN: "grant, before",
    }
    held = {each["metadata"]["name"] for each in place.kube.list(SECRET, place.namespace)}
    kinds = {"model", "github", "app", "grant", minted_token(TENANT, "dan"), gateway_of(POOL_NAME), "copilot-ann"}
    assert kinds <= held, "a kind of secret is missing"
    told = chain(
        objects(place.kube, place.namespace),
        logs(place.kube, place.namespace),
        server_logs(place),
        pages(place),
        [("the operator's log", place.operator.log_since(began))],
        [("the operator's metrics", place.operator.page("/metrics"))],
    )
    names = []

    def noted() -> Iterator[tuple[str, str]]:
        for name, text in told:
            names.append(name)
            yield name, text

    assert leaks(secret, noted()) == []
    for kind in (
        "copilottenants ann",
        "copilotpools pool",
        "events ",
        "pods ",
        "the log of ",
        "/logs of ",
        "the pages",
    ):
        assert any(name.startswith(kind) for name in names), f"nobody looked at {kind}: {names}"
