"""Which servers of a Shared pool run: enough of them, none that works stopped for one that does not."""

from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.domain.seats import Seat, is_seat, ordinal_of, pool_of_seat, running, seat_name, seats_of

COUNTS = st.integers(0, 3)


@st.composite
def pools(draw: st.DrawFn) -> list[Seat]:
    """A seat of which nothing runs has no sessions."""
    seats = []
    for ordinal in draw(st.sets(st.integers(0, 12), max_size=10)):
        up, leaves = draw(st.sampled_from([(True, False), (False, True), (False, False)]))
        there = up or leaves
        seats.append(
            Seat(
                seat_name("saas", ordinal),
                up=up,
                leaves=leaves,
                known=draw(st.booleans()) if there else True,
                busy=draw(COUNTS) if there else 0,
                loaded=draw(COUNTS) if there else 0,
                demanded=draw(st.booleans()),
            )
        )
    return seats


@given(pools(), st.integers(0, 8))
def test_as_many_run_as_are_asked_for_and_those_that_are_wanted_for_what_they_store(
    seats: list[Seat], replicas: int
) -> None:
    chosen = running(seats, replicas)
    demanded = {seat.name for seat in seats if seat.demanded}
    assert demanded <= chosen
    others = len(chosen - demanded)
    unknown = sum(seat.up and not seat.known and not seat.demanded for seat in seats)
    assert others >= min(replicas, len(seats) - len(demanded))
    working = sum(seat.up and seat.known and seat.busy > 0 and not seat.demanded for seat in seats)
    assert others <= max(replicas, unknown + working if unknown else 0), "more only while not all have been counted"


@given(pools(), st.integers(0, 8))
def test_what_works_or_cannot_tell_stays_before_what_is_idle(seats: list[Seat], replicas: int) -> None:
    chosen = running(seats, replicas)
    stopped = [seat for seat in seats if seat.up and seat.name not in chosen]
    assert all(seat.known for seat in stopped)
    if not all(seat.known for seat in seats if seat.up and not seat.demanded):
        assert not any(seat.busy for seat in stopped), "somebody who has not been counted may be idle"
    stays = [seat for seat in seats if seat.up and seat.known and seat.name in chosen and not seat.demanded]
    for gone in stopped:
        assert all((gone.busy > 0, gone.loaded) <= (seat.busy > 0, seat.loaded) for seat in stays)


@given(pools(), st.integers(0, 8))
def test_nobody_starts_while_somebody_stops(seats: list[Seat], replicas: int) -> None:
    chosen = running(seats, replicas)
    starts = [seat for seat in seats if seat.name in chosen and not seat.up and not seat.demanded]
    stops = [seat for seat in seats if seat.up and seat.name not in chosen]
    assert not (starts and stops)


@given(pools(), st.integers(0, 8))
def test_what_is_on_its_way_out_comes_back_before_what_is_new(seats: list[Seat], replicas: int) -> None:
    chosen = running(seats, replicas)
    starts = {seat.name for seat in seats if seat.name in chosen and not seat.up and not seat.demanded}
    left_out = [seat for seat in seats if seat.leaves and seat.name not in chosen]
    assert not left_out or all(seat.leaves for seat in seats if seat.name in starts)


@given(pools(), st.integers(0, 8))
def test_once_it_is_done_nothing_changes(seats: list[Seat], replicas: int) -> None:
    chosen = running(seats, replicas)
    done = [Seat(seat.name, up=seat.name in chosen, demanded=seat.demanded) for seat in seats]
    if all(seat.known for seat in seats):
        assert running(done, replicas) == chosen


def test_seats_are_those_that_shall_run_and_those_that_have_run() -> None:
    assert seats_of("a.b", 2, ["a.b/11", "a.b/1"]) == ["a.b/0", "a.b/1", "a.b/11"]
    assert (pool_of_seat("a.b/11"), ordinal_of("a.b/11"), is_seat("a.b/11")) == ("a.b", 11, True)
    assert (pool_of_seat("a.b"), is_seat("a.b")) == (None, False)
