"""When servers run though nobody uses them, and what people are told of why one runs."""

from datetime import UTC, datetime

import pytest

from copilot_operator.api.invalid import InvalidResource
from copilot_operator.api.operations import RunningHours
from copilot_operator.domain.hours import next_change_s, running_hours
from copilot_operator.domain.idleness import needed
from copilot_operator.domain.snapshot import Finding, ServerState
from tests.support.snapshots import NOW, a_pod, a_pool, a_snapshot, pool_spec

OFFICE = RunningHours(start="0 8 * * MON-FRI", end="0 18 * * MON-FRI", time_zone="Europe/Berlin")
NIGHT = RunningHours(start="0 22 * * *", end="0 6 * * *", time_zone="Europe/Berlin")
IDLES = {"gateway.enabled": True, "suspend.afterIdle": "30m"}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("now", "until"),
    {
        "2026-03-02T07:59:59+01:00": "",
        "2026-03-02T08:00:00+01:00": "2026-03-02T17:00:00Z",
        "2026-03-02T17:59:59+01:00": "2026-03-02T17:00:00Z",
        "2026-03-02T18:00:00+01:00": "",
        "2026-03-07T12:00:00+01:00": "",  # a Saturday
        "2026-07-06T08:00:00+02:00": "2026-07-06T16:00:00Z",  # the wall tells, not UTC
    }.items(),
)
def test_office_hours_are_those_on_the_wall(now: str, until: str) -> None:
    told = running_hours([OFFICE], at(now))
    assert told == (f"suspend.runningHours: from 0 8 * * MON-FRI to 0 18 * * MON-FRI Europe/Berlin, until {until}") * (
        until != ""
    )


@pytest.mark.parametrize(
    ("now", "hours_left"),
    {"2026-03-28T22:00:00+01:00": 7.0, "2026-10-24T22:00:00+02:00": 9.0, "2026-06-01T22:00:00+02:00": 8.0}.items(),
)
def test_a_night_in_which_the_clock_changes_is_an_hour_shorter_or_longer(now: str, hours_left: float) -> None:
    assert running_hours([NIGHT], at(now))
    assert next_change_s([NIGHT], at(now)) == hours_left * 3600


def test_of_several_the_one_that_ends_last_is_told() -> None:
    assert "22 * * *" in running_hours(
        [NIGHT, OFFICE.model_copy(update={"end": "0 23 * * *"})], at("2026-03-02T22:30:00+01:00")
    )


@pytest.mark.parametrize(
    ("fields", "path", "way_out"),
    [
        ({"start": "0 8 30 2 *"}, "", "start '0 8 30 2 *' never comes, or only together with end"),
        ({"start": "0 18 * * *", "end": "0 18,20 * * *"}, "", "start '0 18 * * *' never comes, or only together"),
        ({"end": "0 18 31 4,6,9,11 *"}, "", "end '0 18 31 4,6,9,11 *' never comes: no server would ever stop"),
        ({"start": "0 8 * * FRI-MON"}, ".start", "day of the week 'FRI-MON' runs backwards"),
        ({"timeZone": "Europe/Atlantis"}, ".timeZone", "write the name of a time zone as in the tz database"),
        ({"timeZone": "Europe"}, ".timeZone", "write the name of a time zone as in the tz database"),
    ],
)
def test_hours_that_never_come_are_told_of(fields: dict[str, str], path: str, way_out: str) -> None:
    hours = {"start": "0 8 * * *", "end": "0 18 * * *"} | fields
    with pytest.raises(InvalidResource) as refused:
        pool_spec(IDLES | {"suspend.runningHours": [hours]})
    assert refused.value.path == f"spec.suspend.runningHours[0]{path}"
    assert way_out in refused.value.way_out


@pytest.mark.parametrize(
    ("fields", "age_s", "demanded", "reason", "told"),
    [
        (IDLES, 9999.0, True, "Wanted", "requests for its sessions were held"),
        (IDLES, 9999.0, False, "InUse", "within suspend.afterIdle, 30m"),
        (IDLES | {"suspend.minRunning": "3h"}, 9999.0, False, "MinRunning", "suspend.minRunning, 3h"),
        (
            IDLES | {"suspend.runningHours": [{"start": "0 8 * * *", "end": "0 18 * * *"}]},
            9999.0, False, "RunningHours", "from 0 8 * * * to 0 18 * * * UTC, until 2026-03-01T18:00:00Z",
        ),
    ],
)  # fmt: skip
def test_people_are_told_why_a_server_runs(
    fields: dict[str, object], age_s: float, demanded: bool, reason: str, told: str
) -> None:
    pod = a_pod()
    state = ServerState(pod.uid, NOW, True, loaded=0, busy=0, age_s=age_s)
    found = needed(a_snapshot(pool=a_pool(fields), pods=(pod,), state=state, demanded=demanded))
    assert isinstance(found, Finding)
    assert (found.reason, told in found.message) == (reason, True)


def test_a_moment_that_begins_and_ends_them_ends_them() -> None:
    hours = RunningHours(start="0 8,18 * * *", end="0 18 * * *")
    assert running_hours([hours], at("2026-03-02T17:59:00+00:00"))
    assert not running_hours([hours], at("2026-03-02T18:00:00+00:00"))
    assert not running_hours([hours], at("2026-03-03T07:59:00+00:00"))
