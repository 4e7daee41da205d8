"""Hours of a Shared pool whose operator decides how many servers it has, and is started again at random."""

from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from copilot_operator.api.autoscaling import AutoscalingSpec
from copilot_operator.api.duration import duration_s
from tests.elastic.day import BLIND_S, CYCLE_S, DOWN_S, START_S, Day, by_the_minute, turns

SLOTS = 10
SPECS = st.fixed_dictionaries(
    {"maxReplicas": st.just(40), "minReplicas": st.integers(0, 2), "scaleInDelay": st.sampled_from(["1m", "5m"])},
    optional={"freeSessions": st.sampled_from(["0%", "30%", 1, 15]), "step": st.sampled_from(["100%", "50%"])},
)
RATES = st.lists(st.sampled_from([0.0, 0.0, 0.5, 2.0, 5.0, 10.0]), min_size=3, max_size=12).map(
    lambda rates: [rate for rate in rates for _ in range(6)]
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(spec=SPECS, rates=RATES, seed=st.integers(0, 10_000), restarts=st.sampled_from([0.0, 0.1, 1.0]))
@example(
    spec={"maxReplicas": 40, "minReplicas": 0, "scaleInDelay": "5m"},
    rates=[rate for rate in (0.0, 5.0, 0.0, 2.0) for _ in range(6)],
    seed=0,
    restarts=0.0,
)
def test_whatever_comes_nothing_flaps_nobody_is_cut_and_nobody_waits_for_long(
    spec: dict[str, Any], rates: list[float], seed: int, restarts: float
) -> None:
    day = Day(AutoscalingSpec.model_validate(spec), SLOTS, by_the_minute(rates), seed, restarts)
    day.run(len(rates) * 60)
    assert day.stopped_busy == 0
    numbers = {sample.decided for sample in day.samples}
    assert min(numbers) >= spec["minReplicas"]
    assert max(numbers) <= 40
    delay = duration_s(spec["scaleInDelay"])
    turned = turns(day.samples)
    for before, after in pairwise(turned):
        assert after.second - before.second >= delay or after.short, "it flaps, and nobody would have gone short"
    if restarts == 0.0 and "step" not in spec:
        assert max(day.waits, default=0) <= START_S + 2 * CYCLE_S
        assert day.lost == 0
    if restarts == 0.1 and "step" not in spec:
        assert max(day.waits, default=0) <= START_S + 2 * (CYCLE_S + DOWN_S + BLIND_S)


def test_what_nobody_needs_goes_in_the_end_and_the_next_request_brings_it_back() -> None:
    spec = AutoscalingSpec.model_validate({"minReplicas": 0, "maxReplicas": 9, "scaleInDelay": "1m"})
    day = Day(spec, SLOTS, by_the_minute([10.0] * 20 + [0.0] * 220), restarts=0.1)
    day.run(14_400)
    assert max(sample.running for sample in day.samples) > 3
    assert (day.samples[-1].running, day.samples[-1].decided) == (0, 0)
    day.rate, lost = by_the_minute([10.0]), day.lost  # at maxReplicas some found no room
    day.run(60, start=14_400)
    assert day.samples[-1].running > 0
    assert day.lost == lost
