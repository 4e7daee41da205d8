"""How many servers a Shared pool shall have, and what is told of it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from copilot_operator.api.autoscaling import AutoscalingSpec
from copilot_operator.domain.scaling import Decision, Load, Scale, Window, decide, load_of, scale_of, servers_for
from copilot_operator.domain.seats import Seat, running_as_needed, seat_of
from tests.support.snapshots import NOW

SLOTS = 10
DELAY = timedelta(minutes=5)


def spec(**fields: Any) -> AutoscalingSpec:
    return AutoscalingSpec.model_validate({"maxReplicas": 5, "freeSessions": 4} | fields)


def decided(load: Load, last: int = 2, *, out_s: int | None = None, in_s: int | None = None, **more: Any) -> Decision:
    """``out_s``, ``in_s``: how long ago it grew and fell; ``watched_s``: for how long it was looked at, with this."""
    out_at, in_at = (None if ago is None else NOW - timedelta(seconds=ago) for ago in (out_s, in_s))
    watched_s = more.pop("watched_s", 600)
    window = Window(NOW - timedelta(seconds=watched_s))
    return decide(spec(**more), SLOTS, Scale(last, out_at, in_at), load, window, NOW)


@pytest.mark.parametrize(
    ("fields", "sessions", "servers"),
    [
        ({}, 0, 1), ({}, 6, 1), ({}, 7, 2), ({}, 16, 2), ({}, 17, 3),
        ({"freeSessions": "20%"}, 8, 1), ({"freeSessions": "20%"}, 9, 2), ({"freeSessions": "0%"}, 20, 2),
        ({"minReplicas": 0}, 0, 0), ({"minReplicas": 0}, 1, 1), ({"minReplicas": 0, "freeSessions": 25}, 1, 3),
    ],
)  # fmt: skip
def test_sessions_and_those_that_are_to_be_free_need_so_many_servers(
    fields: dict[str, Any], sessions: int, servers: int
) -> None:
    assert servers_for(spec(**fields), SLOTS, sessions) == servers


@pytest.mark.parametrize(
    ("load", "last", "given", "replicas", "reason"),
    [
        (Load(16, working=2, ready=2), 2, {}, 2, "AsNeeded"),
        (Load(17, ready=2), 2, {}, 3, "AsNeeded"),
        (Load(0, held=1), 0, {"minReplicas": 0}, 1, "AsNeeded"),
        (Load(), 0, {"minReplicas": 0}, 0, "NobodyNeedsIt"),
        (Load(), 0, {}, 1, "AsNeeded"),
        (Load(60, ready=2), 2, {}, 5, "AsNeeded"),
        (Load(60, ready=5), 5, {}, 5, "AtMaximum"),
        # what has just shrunk grows only for want of room
        (Load(17), 2, {"in_s": 299}, 2, "WaitsAfterScaleIn"),
        (Load(17), 2, {"in_s": 300}, 3, "AsNeeded"),
        (Load(19), 2, {"in_s": 10}, 3, "AsNeeded"),
        (Load(17, held=1), 2, {"in_s": 10}, 3, "AsNeeded"),
        (Load(16), 2, {"in_s": 10, "minReplicas": 3}, 3, "AsNeeded"),
        # steps
        (Load(60, ready=2), 2, {"step": 1}, 3, "AsNeeded"),
        (Load(60, ready=2), 3, {"step": 1, "out_s": 10}, 3, "WaitsForServers"),
        (Load(60, ready=2), 3, {"step": 1, "out_s": 120}, 4, "AsNeeded"),
        (Load(60, ready=3), 3, {"step": "50%", "out_s": 10}, 5, "AsNeeded"),
        # fewer do
        (Load(6), 5, {}, 1, "AsNeeded"),
        (Load(6), 5, {"watched_s": 299}, 5, "AsNeeded"),
        (Load(6), 5, {"out_s": 299}, 5, "AsNeeded"),
        (Load(6), 5, {"out_s": 300, "in_s": 10}, 1, "AsNeeded"),
        (Load(6), 5, {"step": 2, "in_s": 300}, 3, "AsNeeded"),
        (Load(6), 5, {"step": 2, "in_s": 299}, 5, "AsNeeded"),
        (Load(6, uncounted=1), 5, {}, 5, "NotCounted"),
        (Load(6, working=3), 5, {}, 3, "AsNeeded"),
        (Load(6, working=5), 5, {}, 5, "ServersWork"),
        # people want fewer: at once
        (Load(6), 7, {"out_s": 10, "watched_s": 0}, 5, "AsNeeded"),
        (Load(6, working=6), 7, {"out_s": 10, "watched_s": 0}, 6, "AsNeeded"),
    ],
)
def test_decisions(load: Load, last: int, given: dict[str, Any], replicas: int, reason: str) -> None:
    found = decided(load, last, **given)
    assert (found.scale.replicas, found.finding.reason) == (replicas, reason)
    assert found.as_needed == (reason in ("AsNeeded", "NobodyNeedsIt"))
    assert (found.scale.out_at == NOW, found.scale.in_at == NOW) == (replicas > last, replicas < last)


def test_a_need_that_is_over_counts_for_the_whole_delay() -> None:
    window, now = Window(NOW), NOW
    for minutes, sessions in ((0, 36), (1, 26), (2, 16), (3, 6), (8, 6)):
        now = NOW + timedelta(minutes=minutes)
        found = decide(spec(), SLOTS, Scale(4), Load(sessions), window, now)
        window = found.window
        assert found.scale.replicas == (4 if minutes < 8 else 1)
    later = decide(spec(), SLOTS, Scale(4), Load(6), replace(window, peaks=((now, 2),)), now)
    assert later.scale.replicas == 2


def test_what_was_decided_lives_in_status() -> None:
    scale = Scale(3, NOW, NOW - timedelta(hours=1), "17 loaded sessions need 3 servers")
    assert scale.document["direction"] == "Out"
    assert scale_of({"autoscaling": scale.document}, 9, spec()) == scale
    assert [scale_of({}, running, spec()).replicas for running in (0, 3, 9)] == [1, 3, 5], "what runs goes on"


def test_why_is_told_with_the_numbers_of_the_moment() -> None:
    assert decided(Load(17, held=3)).scale.message == (
        "17 loaded sessions and 3 that wait for a server need 3 servers of 10 slots; freeSessions is 4"
    )


def test_all_that_is_loaded_counts_wherever_it_is() -> None:
    seats = [
        Seat("saas/0", up=True, loaded=3, queued=2, busy=1, ready=True),
        Seat("saas/1", leaves=True, loaded=4),
        Seat("saas/2", demanded=True, loaded=1),
        Seat("saas/3", up=True, known=False),
        Seat("saas/4"),
    ]
    assert load_of(seats, 5) == Load(sessions=10, held=5, working=1, uncounted=1, ready=1)


def test_a_seat_without_a_pod_has_nothing() -> None:
    assert seat_of("saas/0", None, None, started=False, demanded=False) == Seat("saas/0")


@pytest.mark.parametrize(
    ("seats", "replicas", "chosen"),
    [
        ([Seat("p/0"), Seat("p/1")], 1, {"p/0"}),
        ([Seat("p/0"), Seat("p/1", demanded=True)], 1, {"p/1"}),  # it serves as well
        ([Seat("p/0", up=True), Seat("p/1", demanded=True)], 1, {"p/0", "p/1"}),
        ([Seat("p/0", up=True, busy=1), Seat("p/1", up=True)], 1, {"p/0"}),
        ([Seat("p/0", up=True, busy=1), Seat("p/1", up=True, busy=1)], 1, {"p/0", "p/1"}),
        ([Seat("p/0", up=True, loaded=2), Seat("p/1", up=True, loaded=1)], 1, {"p/0"}),
        ([Seat("p/0", up=True, known=False), Seat("p/1", up=True, known=False)], 1, {"p/0", "p/1"}),
        ([Seat("p/0", up=True), Seat("p/1", leaves=True, busy=1)], 1, {"p/1"}),  # a turn began on the way out
        ([Seat("p/0", up=True, busy=1), Seat("p/1", leaves=True), Seat("p/2")], 2, {"p/0", "p/1"}),
        ([Seat("p/0", up=True)], 0, set()),
    ],
)
def test_which_seats_run_where_the_operator_decides_the_number(
    seats: list[Seat], replicas: int, chosen: set[str]
) -> None:
    assert running_as_needed(seats, replicas) == chosen
