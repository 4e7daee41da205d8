"""Weeks of a Shared pool: random demand, and an operator and gateways that are killed every now and then."""

from itertools import pairwise
from typing import Any

import pytest

from copilot_operator.api.autoscaling import AutoscalingSpec
from copilot_operator.api.duration import duration_s
from tests.elastic.day import START_S, turns
from tests.elastic.week import STEP_S, WEEK_S, Week, random_week, unexcused

SLOTS = 10
BOUND_S = START_S + 2 * STEP_S  # to a decision, and to a server; of a time in which somebody is there to decide


@pytest.mark.parametrize(
    ("seed", "given"),
    [(11, {"freeSessions": "20%"}), (12, {"freeSessions": 3}), (13, {"minReplicas": 1, "scaleInDelay": "10m"})],
)
def test_in_a_week_of_kills_nothing_flaps_no_turn_is_cut_and_nobody_waits_for_long(
    seed: int, given: dict[str, Any]
) -> None:
    spec = AutoscalingSpec.model_validate({"minReplicas": 0, "maxReplicas": 40} | given)
    week = Week(spec, SLOTS, random_week(seed, most=2), seed)
    week.run(WEEK_S)
    assert week.killed > 300
    assert len(week.all_waits) > 1000
    assert week.stopped_busy == 0
    assert unexcused(week.all_waits) <= BOUND_S
    turned, delay = turns(week.samples), duration_s(spec.scale_in_delay)
    assert len(turned) > 10, "it grows and shrinks"
    for before, after in pairwise(turned):
        assert after.second - before.second >= delay or after.short, "it flaps, and nobody would have gone short"
    assert {sample.decided for sample in week.samples} <= set(range(spec.min_replicas, 41))
