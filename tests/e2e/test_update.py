"""A changed pool reaches its servers: two at a time, the busy one last; one that does not work is undone."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final

from copilot_operator.domain.kinds import DEPLOYMENT, POD, POOL, REVISION
from copilot_operator.domain.naming import POOL_REVISION_ANNOTATION, PROTECTED_LABEL, TENANT_ANNOTATION, server_of
from tests.support.kube import Object, conditions, is_ready
from tests.support.place import CLI_IMAGE, POOL_NAME, Place

NAMES: Final = ("ann", "ben", "cleo", "dora", "emil", "fay")
BUSY: Final = "ann"  # first in the order of names
ASLEEP: Final = "gus"
AT_MOST: Final = 2
TURN_S: Final = 55  # an application waits a minute for an answer
NO_IMAGE: Final = "copilot-cli:never-built"


@dataclass
class Watch:
    """Who is away how long, seen several times a second."""

    place: Place
    names: tuple[str, ...]
    most: int = 0
    left_at: dict[str, float] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> "Watch":
        self._task = asyncio.create_task(self._look_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.ended.set()
        await self._task

    async def _look_on(self) -> None:
        while not self.ended.is_set():
            serving = await asyncio.to_thread(self.serving)
            away = [name for name in self.names if name not in serving]
            self.most = max(self.most, len(away))
            for name in away:
                self.left_at.setdefault(name, time.monotonic())
            await asyncio.sleep(0.1)

    def serving(self) -> set[str]:
        pods = self.place.kube.list(POD, self.place.namespace, "app.kubernetes.io/name=copilot")
        return {
            pod["metadata"]["annotations"][TENANT_ANNOTATION]
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"] and conditions(pod).get("Ready", {}).get("status") == "True"
        }


def pool_of(place: Place) -> Object:
    return place.kube.get(POOL, place.namespace, POOL_NAME)


def progressing(place: Place) -> tuple[str, str]:
    row = conditions(pool_of(place)).get("Progressing", {})
    return str(row.get("status")), str(row.get("reason"))


def revisions(place: Place) -> list[str]:
    return sorted(each["metadata"]["name"] for each in place.kube.list(REVISION, place.namespace))


def revision_of(place: Place, tenant: str) -> str:
    live = place.deployment(tenant)
    assert live
    return str(live["metadata"]["annotations"].get(POOL_REVISION_ANNOTATION))


def works(place: Place, tenant: str) -> bool:
    """Whether the operator knows that the server is in a turn: it shows on the pod."""
    return any(pod["metadata"]["labels"].get(PROTECTED_LABEL) == "true" for pod in place.pods(tenant))


async def test_two_at_a_time_and_the_busy_one_last(place: Place, provider: Any) -> None:
    update = {"maxUnavailable": AT_MOST}
    place.pool(update=update)
    for name in NAMES:
        place.tenant(name)
    for name in NAMES:
        await place.until_ready(name, within_s=180)
    await place.until(lambda: progressing(place) == ("False", "UpToDate"), within_s=20, what="the pool is settled")
    before = pool_of(place)["status"]
    assert revisions(place) == [before["currentRevision"]]
    assert (before["updateRevision"], before["updatedReplicas"]) == (before["currentRevision"], len(NAMES))

    turn = asyncio.create_task(place.say(BUSY, provider, f"SLEEP={TURN_S} remember NOTE=walnut", server_stops=True))
    await place.until(lambda: works(place, BUSY), within_s=40, what="the operator knows of the turn", about=BUSY)
    changed = place.pool(update=update, sessions={"idleTimeout": "1h"})
    began = time.monotonic()
    async with Watch(place, NAMES) as watch:
        await place.until(
            lambda: progressing(place) == ("True", "RollingUpdate"), within_s=10, what="it is said", about=BUSY
        )
        await place.until(
            lambda: pool_of(place)["status"]["currentRevision"] != before["currentRevision"],
            within_s=240, what="all servers run it", about=BUSY,
        )  # fmt: skip
    seconds = time.monotonic() - began
    await turn

    after = pool_of(place)
    assert after["status"]["currentRevision"] == after["status"]["updateRevision"]
    assert after["status"]["updatedReplicas"] == len(NAMES)
    assert progressing(place) == ("False", "UpToDate")
    assert revisions(place) == [after["status"]["currentRevision"]]
    assert {revision_of(place, name) for name in NAMES} == {after["status"]["currentRevision"]}
    assert watch.most <= AT_MOST, watch.left_at
    others = [at for name, at in watch.left_at.items() if name != BUSY]
    assert len(others) == len(NAMES) - 1
    assert watch.left_at[BUSY] >= max(others), "who works goes last"
    await place.until_ready(BUSY)
    assert await place.say(BUSY, provider, "RECALL", resume=True) == ["notes: walnut"]

    history = place.kube.history(POOL, place.namespace, changed["metadata"]["resourceVersion"])
    reasons = [event["reason"] for event in place.kube.events(place.namespace, POOL_NAME)]
    assert reasons == ["RollingUpdate", "UpToDate"]
    assert len(history) <= 2 + seconds / 5, "a quiet status"
    print(f"away after: { {name: round(at - began, 1) for name, at in watch.left_at.items()} } s")
    print(
        f"update: {len(NAMES)} servers in {seconds:.0f} s beside a turn of {TURN_S} s, at most {watch.most} away, "
        f"{len(history)} writes of the pool's status"
    )


async def test_an_image_that_is_not_there_is_undone_and_remembered(place: Place, provider: Any) -> None:
    names = NAMES[:3]
    place.pool()
    for name in names:
        place.tenant(name)
    place.tenant(ASLEEP, suspended=True)
    for name in names:
        await place.until_ready(name, within_s=120)
    await place.until(lambda: progressing(place) == ("False", "UpToDate"), within_s=20, what="the pool is settled")
    await place.say(BUSY, provider, "remember NOTE=hazel")
    good = pool_of(place)["status"]["currentRevision"]
    place.pool(image=NO_IMAGE)
    began = time.monotonic()
    async with Watch(place, names) as watch:
        await place.until(
            lambda: progressing(place) == ("False", "UpdateFailed"), within_s=120, what="given up", about=BUSY
        )
        given_up_s = time.monotonic() - began
        await place.until(
            lambda: all(is_ready(place.get(name)) for name in names) and all_run(place, names, CLI_IMAGE),
            within_s=60, what="all are back", about=BUSY,
        )  # fmt: skip
    back_s = time.monotonic() - began
    status = pool_of(place)["status"]
    bad = status["updateRevision"]
    assert (status["currentRevision"], bad != good) == (good, True)
    assert (status["failedRevision"]["revision"], status["failedRevision"]["reason"]) == (bad, "ImagePullFailed")
    assert watch.most == 1
    assert len(watch.left_at) == 1, "nobody followed the first"
    assert revisions(place) == sorted([good, bad])
    assert await place.say(BUSY, provider, "RECALL", resume=True) == ["notes: hazel"]
    await place.until(
        lambda: pool_of(place)["status"]["readyReplicas"] == len(names), within_s=20, what="the pool has counted"
    )

    versions = versions_of(place, names)
    place.operator.restart()
    for name in names:
        await place.ping(name)
    changed = place.tenant(ASLEEP, suspended=True, deletionPolicy="Retain")
    await place.until(
        lambda: place.get(ASLEEP)["status"].get("observedGeneration") == changed["metadata"]["generation"],
        within_s=20, what="everything was looked at, and one cycle more", about=ASLEEP,
    )  # fmt: skip
    assert versions_of(place, names) == versions, "a failed revision is not tried again, and nothing is written anew"

    place.pool(sessions={"idleTimeout": "1h"})
    await place.until(
        lambda: pool_of(place)["status"]["currentRevision"] not in (good, bad), within_s=120, what="the next one works"
    )
    status = pool_of(place)["status"]
    assert "failedRevision" not in status
    assert revisions(place) == [status["currentRevision"]]
    print(f"undo: given up after {given_up_s:.0f} s, all back after {back_s:.0f} s, {len(watch.left_at)} server away")


async def test_a_flag_that_ends_the_cli_is_undone_by_an_operator_that_knows_nothing_of_its_beginning(
    place: Place,
) -> None:
    names = NAMES[:2]
    good = place.pool()["spec"]["server"]
    for name in names:
        place.tenant(name)
    for name in names:
        await place.until_ready(name, within_s=120)
    await place.until(lambda: progressing(place) == ("False", "UpToDate"), within_s=20, what="the pool is settled")
    current = pool_of(place)["status"]["currentRevision"]
    place.pool(server=good | {"args": ["--no-such-flag"]})
    began = time.monotonic()
    async with Watch(place, names) as watch:
        await place.until(lambda: watch.left_at, within_s=30, what="the first has gone")
        place.operator.kill()
        await asyncio.to_thread(place.operator.start)
        await place.until(
            lambda: progressing(place) == ("False", "UpdateFailed"), within_s=90, what="given up", about=BUSY
        )
        status = pool_of(place)["status"]
        await place.until(
            lambda: {revision_of(place, name) for name in names} == {current} and len(watch.serving()) == len(names),
            within_s=60, what="all are back", about=BUSY,
        )  # fmt: skip
    assert (status["currentRevision"], status["failedRevision"]["reason"]) == (current, "CrashLooping")
    assert len(watch.left_at) == 1, f"another followed the first: {watch.left_at}\n{place.operator.said(80)}"
    print(f"undo after a restart of the operator: all back after {time.monotonic() - began:.0f} s")


def all_run(place: Place, names: tuple[str, ...], image: str) -> bool:
    deployments = [place.deployment(name) for name in names]
    return all(each and each["spec"]["template"]["spec"]["containers"][0]["image"] == image for each in deployments)


def versions_of(place: Place, names: tuple[str, ...]) -> dict[str, str]:
    kube, namespace = place.kube, place.namespace
    found = {f"Deployment {name}": kube.get(DEPLOYMENT, namespace, server_of(name)) for name in names}
    found |= {f"CopilotTenant {name}": place.get(name) for name in names}
    found["CopilotPool"] = pool_of(place)
    found |= {each["metadata"]["name"]: each for each in kube.list(REVISION, namespace)}
    return {name: each["metadata"]["resourceVersion"] for name, each in found.items()}
