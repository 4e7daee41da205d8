"""A person's grant outlives whatever happens to the operator, the API server and the user's Secret; and where it can't,
since an answer of GitHub's was lost, people are told, and a new refresh token is all that it takes."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hypothesis import example, given, settings
from hypothesis import strategies as st

from copilot_operator.api.references import UserToken
from copilot_operator.cluster.answers import Answers
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.errors import Absent, Conflict, Unavailable
from copilot_operator.cluster.vault import SecretVault
from copilot_operator.credentials.github import GitHub, Grant, MintError, Token, pair_in
from copilot_operator.credentials.minter import Minter, Owner, Wanted
from copilot_operator.domain.credentials import check_credential
from copilot_operator.domain.desired.connection import encoded
from copilot_operator.domain.github_app import app_credential, serial_of, token_of
from copilot_operator.domain.kinds import SECRET, TENANT, Kind
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import minted_token
from copilot_operator.domain.secrets import as_observed, decoded
from copilot_operator.domain.snapshot import Credential, Finding
from tests.support.model import Grants
from tests.support.snapshots import NAMESPACE, a_tenant
from tests.support.virtual_time import run_in_virtual_time

ALICE: Final[Owner] = (TENANT, NAMESPACE, "alice")
NAME: Final = minted_token(TENANT, "alice")
USER: Final = UserToken.model_validate({"secretRef": {"name": "grant"}})
EPOCH: Final = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
LIFE_S: Final = 600.0
EVENTS: Final = (
    "a moment", "a moment", "a minute", "until it is due", "until it is due", "until it is due",
    "crash", "hand over", "hand over late", "API down", "API up", "answer lost", "new grant", "new line",
)  # fmt: skip


def clock() -> datetime:
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


@dataclass
class World(GitHub):
    """The API server with the two Secrets, and GitHub."""

    grants: Grants = field(default_factory=Grants)
    secrets: dict[str, Manifest] = field(default_factory=dict)
    versions: int = 0
    down: bool = False
    loses: bool = False  # the next answer of GitHub's
    users: int = 0
    unsaved: set[str] = field(default_factory=set)  # refresh tokens that GitHub has given, and that no Secret holds
    may_be_lost: bool = False

    def put(self, name: str, manifest: Manifest) -> Manifest:
        self.versions += 1
        metadata = manifest["metadata"] | {"resourceVersion": str(self.versions), "uid": f"uid-{name}"}
        self.secrets[name] = manifest | {"metadata": metadata}
        return self.secrets[name]

    def user_gives(self, refresh_token: str) -> None:
        labels = {"copilot-operator.io/tenant-usable": "true"}
        metadata = {"name": "grant", "namespace": NAMESPACE, "labels": labels}
        self.put("grant", {"metadata": metadata, "data": encoded({"clientId": "id", "refreshToken": refresh_token})})

    @property
    def given(self) -> str:
        return decoded(self.secrets["grant"]["data"]["refreshToken"])

    @property
    def next(self) -> str:
        """The refresh token that has to be used next."""
        own = self.secrets.get(NAME)
        same = own and annotations_of(own)["copilot-operator.io/token-origin"] == serial_of(self.given.strip())
        return decoded(own["data"]["refreshToken"]) if own and same else self.given.strip()

    def credential(self, failures: dict[Owner, Finding]) -> Credential:
        """As the operator finds it."""
        key = check_credential("grant", "refreshToken", as_observed(self.secrets["grant"]), exists=True)
        own = self.secrets.get(NAME)
        token = token_of(as_observed(own), "uid-alice") if own else None
        return app_credential(USER, key, NAME, token, failures.get(ALICE), clock())

    async def refresh(self, user: UserToken, grant: Grant) -> Token:
        await asyncio.sleep(0.3)
        body = self.grants.exchange(grant.refresh_token, LIFE_S)
        if "refresh_token" in body:
            self.unsaved.add(body["refresh_token"])
        if self.loses:
            self.loses, self.may_be_lost = False, True
            raise MintError("GitHubUnavailable", "no answer")
        await asyncio.sleep(0.3)
        return pair_in(user, grant, json.dumps(body).encode(), clock())


@dataclass
class Replica:
    """Of the operator. Once it is ``dead`` nothing that it does has an effect."""

    world: World
    leads: bool = True
    dead: bool = False
    killed: bool = False
    failures: dict[Owner, Finding] = field(default_factory=dict)

    def start(self) -> None:
        cache = Cache()
        cache.put(TENANT, a_tenant(), 0.0)
        api: Any = self
        vault = SecretVault(api, cache, Answers(cache, lambda *_: None))
        github: Any = self
        self.minter = Minter(github, vault, self.failures, lambda _: None, lambda: self.leads, clock)
        self.task = asyncio.create_task(self.minter.run())
        self.looking = asyncio.create_task(self.look())

    async def stop(self) -> None:
        self.looking.cancel()
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        self.world.may_be_lost |= self.world.down and bool(self.world.unsaved)
        self.dead = True

    async def look(self) -> None:
        """As reconciling does, all the time."""
        while True:
            found = self.world.credential(self.failures)
            self.minter.follow(ALICE, Wanted(USER, "uid-alice", 0.0, found.token, found.made_from))
            await asyncio.sleep(5)

    async def alive(self) -> None:
        await asyncio.sleep(0.02)
        if self.dead:
            await asyncio.Event().wait()

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        await self.alive()
        if self.world.down:
            raise Unavailable("get", 503, "", "")
        if name not in self.world.secrets:
            raise Absent("get", 404, "", "")
        return self.world.secrets[name]

    async def apply(self, kind: Kind, manifest: Manifest) -> Manifest:
        await self.alive()
        name, wanted = manifest["metadata"]["name"], manifest["metadata"].get("resourceVersion")
        if self.world.down:
            raise Unavailable("apply", 503, "", "")
        if wanted and wanted != self.world.secrets[name]["metadata"]["resourceVersion"]:
            raise Conflict("apply", 409, "", "")
        self.world.unsaved.discard(decoded(manifest["data"]["refreshToken"]))
        return self.world.put(name, manifest | {"apiVersion": SECRET.api_version, "kind": SECRET.kind})

    async def refresh(self, user: UserToken, grant: Grant) -> Token:
        await self.alive()
        token = await self.world.refresh(user, grant)
        self.world.may_be_lost |= self.killed  # the question was under way then
        await self.alive()
        return token


async def scenario(events: list[str]) -> None:
    world = World()
    world.user_gives("ghr_user_0")
    replica = Replica(world)
    replica.start()
    for event in events:
        match event:
            case "a moment":
                await asyncio.sleep(0.35)
            case "a minute":
                await asyncio.sleep(60)
            case "until it is due":
                await asyncio.sleep(LIFE_S * 2 / 3)
            case "crash":
                world.may_be_lost |= bool(world.unsaved)
                replica.dead = replica.killed = True
                await replica.stop()
                replica = Replica(world)
                replica.start()
            case "hand over":
                replica.leads = False
                await replica.stop()
                replica = Replica(world)
                replica.start()
            case "hand over late":  # both think that they lead
                before, replica = replica, Replica(world)
                replica.start()
                await asyncio.sleep(2)
                before.leads = False
                await before.stop()
            case "API down" | "API up":
                world.down = event == "API down"
            case "answer lost":
                world.loses = True
            case "new grant":
                world.users += 1
                world.may_be_lost = False
                world.user_gives(f"ghr_user_{world.users}")
            case "new line":
                world.user_gives(world.given + "\n")
    world.down = world.loses = False
    await asyncio.sleep(700)
    found = world.credential(replica.failures)
    if world.next in world.grants.uses:
        assert world.may_be_lost, f"{events}: the grant is lost for nothing, {world.grants.uses}"
        assert found.finding is not None, "people are told"
        assert found.finding.reason == "RefreshTokenRejected"
        world.user_gives("ghr_user_at_last")
        await asyncio.sleep(7)
        found = world.credential(replica.failures)
    assert found.finding is None
    assert decoded(world.secrets[NAME]["data"]["token"]) not in world.grants.dead, "what sessions get is alive"
    await replica.stop()


@settings(max_examples=40, deadline=None)
@example(["a moment", "hand over"])
@example(["a moment", "hand over late"])
@example(["a moment", "crash"])
@example(["a moment", "answer lost"])
@example(["a moment", "API down", "a minute", "API up"])
@example(["a moment", "API down", "new line", "a minute", "API up"])
@example(["a moment", "API down", "a minute", "API up", "hand over"])
@example(["a moment", "API down", "a minute", "new grant", "API up", "hand over late"])
@example(["a minute", "new line", "a minute"])
@example(["until it is due", "a moment", "a moment", "hand over late", "new grant"])
@given(st.lists(st.sampled_from(EVENTS), max_size=14))
def test_a_grant_is_lost_only_with_an_answer_and_then_people_are_told(events: list[str]) -> None:
    run_in_virtual_time(scenario(events))
