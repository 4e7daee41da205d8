"""Times of cron in a time zone, against a clock on the wall that is looked at every minute."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_operator.api.cron import DAYS, cron, ever_without, first_after, has_shape, instant, last_before

ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])
# Lord Howe's clock changes by half an hour; the changes of all of them lie in these days.
CHANGES = [
    datetime(2026, month, day, tzinfo=UTC) for month, day in ((3, 8), (3, 29), (4, 4), (10, 3), (10, 25), (11, 1))
]
MOMENTS = st.builds(
    lambda day, minutes: day + timedelta(minutes=minutes), st.sampled_from(CHANGES), st.integers(-1440, 2880)
)


def parts(least: int, most: int) -> st.SearchStrategy[str]:
    numbers = st.integers(least, most)
    ranges = st.tuples(numbers, numbers).map(lambda pair: f"{min(pair)}-{max(pair)}")
    steps = st.tuples(st.one_of(st.just("*"), ranges), st.integers(1, 40)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    one = st.one_of(st.just("*"), numbers.map(str), ranges, steps)
    return st.lists(one, min_size=1, max_size=3).map(",".join)


CRONS = st.tuples(parts(0, 59), parts(0, 23), parts(1, 31), parts(1, 12), parts(0, 7)).map(" ".join)


def fits(text: str, wall: datetime) -> bool:
    """Whether cron would start something now, by the letter of its manual."""
    minute, hour, day, month, weekday = (fields(part) for part in text.split(" "))
    days = text.split(" ")[2::2]
    on_day, on_weekday = wall.day in day, {wall.isoweekday(), wall.isoweekday() % 7} & weekday
    right_day = (on_day or on_weekday) if "*" not in days else (on_day and on_weekday)
    return wall.minute in minute and wall.hour in hour and wall.month in month and bool(right_day)


def fields(part: str) -> set[int]:
    found = set[int]()
    for each in part.split(","):
        span, _, step = each.partition("/")
        low, _, high = ("0-59" if span == "*" else span).partition("-")
        found |= set(range(int(low), int(high or (59 if step else low)) + 1, int(step or 1)))
    return found


@settings(deadline=None, max_examples=50)
@given(CRONS.filter(lambda text: "*/" not in text), ZONES, MOMENTS)
def test_the_last_time_is_the_one_that_a_clock_on_the_wall_shows(text: str, zone_name: str, now: datetime) -> None:
    zone, found = ZoneInfo(zone_name), last_before(text, ZoneInfo(zone_name), now)
    for back in range(720):
        moment = now.replace(second=0, microsecond=0) - timedelta(minutes=back)
        wall = moment.astimezone(zone)
        skipped = skipped_before(moment, zone)
        if (wall.fold == 0 and fits(text, wall)) or any(fits(text, each) for each in skipped):
            assert found == moment
            return
    assert found is None or found <= now - timedelta(minutes=719)


def skipped_before(moment: datetime, zone: ZoneInfo) -> list[datetime]:
    """The minutes that no clock on the wall ever showed, if they were skipped right before."""
    wall = moment.astimezone(zone).replace(tzinfo=None)
    before = (moment - timedelta(minutes=1)).astimezone(zone).replace(tzinfo=None)
    gap = int((wall - before).total_seconds() // 60)
    return [before + timedelta(minutes=each) for each in range(1, gap)]


@settings(deadline=None, max_examples=50)
@given(CRONS, ZONES, MOMENTS)
def test_nothing_lies_between_the_last_time_and_the_next(text: str, zone_name: str, now: datetime) -> None:
    zone = ZoneInfo(zone_name)
    last, following = last_before(text, zone, now), first_after(text, zone, now)
    if last is None or following is None:
        return
    assert last <= now < following
    assert first_after(text, zone, last) == following
    assert last_before(text, zone, following) == following
    assert last_before(text, zone, following - timedelta(microseconds=1)) == last


@settings(deadline=None, max_examples=50)
@given(ZONES, MOMENTS, st.integers(0, 240))
def test_later_on_the_wall_is_never_earlier(zone_name: str, now: datetime, minutes: int) -> None:
    zone, wall = ZoneInfo(zone_name), now.replace(tzinfo=None)
    assert instant(wall, zone) <= instant(wall + timedelta(minutes=minutes), zone)


@settings(deadline=None, max_examples=50)
@given(CRONS)
def test_what_can_be_read_has_the_shape_that_the_api_server_asks_for(text: str) -> None:
    assert has_shape(text)
    assert cron(text)


@settings(deadline=None, max_examples=50)
@given(CRONS, CRONS)
def test_what_is_said_to_come_does(text: str, other: str) -> None:
    zone, now = ZoneInfo("UTC"), datetime(2096, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
    first = first_after(text, zone, now)
    if not ever_without(text, other):
        assert first is None or last_before(other, zone, first) == first
    assert ever_without(text, "0 0 30 2 *") or first is None


def test_days_have_the_numbers_of_cron() -> None:
    names = [cron(f"0 0 * * {name}").weekdays for name in DAYS]
    assert names == [frozenset({number}) for number in range(7)]
    assert cron("0 0 * * 7") == cron("0 0 * * 0")
