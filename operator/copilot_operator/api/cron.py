"""Times as cron writes them, in a time zone: five fields, minute, hour, day of the month, month, day of the week.

Fields hold ``*``, numbers, ranges, steps and lists; months and days of the week have names, too (JAN, MON; 0 and 7 are
Sunday). A day must fit both day fields; where neither is ``*``, one of them, as everywhere with cron.

Times are those on the wall. What falls into the hour that is skipped in spring happens when it ends; what falls into
the one that comes twice in autumn happens the first time.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
CHANGES_BY: Final = timedelta(hours=3)  # at most, when clocks are changed: farther off on the wall is before, or after
YEARS_AHEAD: Final = 8  # around 2100 it takes so long from one 29 February to the next


@dataclass(frozen=True)
class _Field:
    """One of the five; ``number`` is the regular expression of what may stand there, names come with ``names``."""

    name: str
    least: int
    most: int
    number: str
    names: tuple[str, ...] = ()

    @property
    def pattern(self) -> str:
        """Of the whole field, for Go's and for Python's engine."""
        names = "".join(f"|{name}" for name in self.names)
        one = f"({self.number}{names})"
        part = f"([*]|{one}(-{one})?)(/[1-9][0-9]?)?"
        return f"{part}(,{part})*"

    def value(self, text: str) -> int:
        return self.names.index(text) + self.least if text in self.names else int(text)

    def values(self, text: str) -> frozenset[int]:
        """Raises ValueError."""
        found: set[int] = set()
        for part in text.split(","):
            span, _, step = part.partition("/")
            first, _, last = span.partition("-")
            low = self.least if span == "*" else self.value(first)
            # "5/10" is "from 5 on, every 10th"; a lone number is itself
            high = self.most if span == "*" or (step and not last) else self.value(last or first)
            if low > high:
                raise ValueError(f"{self.name} {span!r} runs backwards: write the smaller one first, or two ranges")
            found |= set(range(low, high + 1, int(step or 1)))
        return frozenset(found)


FIELDS: Final = (
    _Field("minute", 0, 59, "[0-5]?[0-9]"),
    _Field("hour", 0, 23, "[01]?[0-9]|2[0-3]"),
    _Field("day of the month", 1, 31, "0?[1-9]|[12][0-9]|3[01]"),
    _Field("month", 1, 12, "0?[1-9]|1[0-2]", MONTHS),
    _Field("day of the week", 0, 7, "[0-7]", DAYS),
)
PATTERN: Final = "^" + " ".join(field.pattern for field in FIELDS) + "$"
MAX_LENGTH: Final = 128
NEVER: Final = "0 0 30 2 *"

_WHOLE = re.compile(PATTERN[:-1] + r"\Z")


@dataclass(frozen=True)
class Cron:
    """What the fields allow. ``either``: a day need fit only one of ``days`` and ``weekdays`` (0 is Sunday)."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def on(self, day: date) -> bool:
        """Whether there is any time on that day."""
        if day.month not in self.months:
            return False
        fits = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return any(fits) if self.either else all(fits)

    def times(self, day: date, *, backwards: bool = False) -> Iterator[datetime]:
        """On the wall, of one day."""
        if self.on(day):
            for hour in reversed(self.hours) if backwards else self.hours:
                for minute in reversed(self.minutes) if backwards else self.minutes:
                    yield datetime.combine(day, time(hour, minute))


def has_shape(text: str) -> bool:
    """Whether each field holds what may stand there; a range may still run backwards."""
    return bool(_WHOLE.match(text))


@lru_cache(maxsize=1024)
def cron(text: str) -> Cron:
    """Read five fields; raises ValueError with what is wrong and the way out."""
    if not has_shape(text):
        raise ValueError(
            f"{text!r} is no time of cron: write minute, hour, day of the month, month and day of the week, "
            "such as 0 8 * * MON-FRI"
        )
    fields = text.split(" ")
    minutes, hours, days, months, weekdays = (
        field.values(each) for field, each in zip(FIELDS, fields, strict=True)
    )  # fmt: skip
    return Cron(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=days,
        months=months,
        weekdays=frozenset(each % 7 for each in weekdays),
        either="*" not in (fields[2], fields[4]),
    )


def instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """When a time on the wall is, in UTC; later times are never earlier instants."""
    found = wall.replace(tzinfo=zone, fold=0)
    utc = found.astimezone(UTC)
    if utc.astimezone(zone).replace(tzinfo=None) == wall:
        return utc
    # It is skipped: its two offsets put it on both sides of the moment at which the clock is changed.
    before, after = found.utcoffset(), wall.replace(tzinfo=zone, fold=1).utcoffset()
    assert before is not None
    assert after is not None
    low, high = utc - (after - before), utc  # the gap's end lies between
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        low, high = (middle, high) if middle.astimezone(zone).utcoffset() == before else (low, middle)
    return high.replace(microsecond=0)


def last_before(text: str, zone: ZoneInfo, now: datetime) -> datetime | None:
    """The latest of its times up to ``now``; None if there was none in eight years."""
    read, wall = cron(text), now.astimezone(zone).replace(tzinfo=None)
    for days in range(-1, 366 * YEARS_AHEAD):
        for each in read.times((wall - timedelta(days=days)).date(), backwards=True):
            if each < wall + CHANGES_BY and (found := instant(each, zone)) <= now:
                return found
    return None


def first_after(text: str, zone: ZoneInfo, now: datetime) -> datetime | None:
    """The first of its times after ``now``; None if there is none in eight years."""
    read, wall = cron(text), now.astimezone(zone).replace(tzinfo=None)
    for days in range(-1, 366 * YEARS_AHEAD):
        for each in read.times((wall + timedelta(days=days)).date()):
            if each > wall - CHANGES_BY and (found := instant(each, zone)) > now:
                return found
    return None


@lru_cache(maxsize=1024)
def ever_without(text: str, other: str = NEVER) -> bool:
    """Whether it has any time at all, that is no time of ``other``."""
    read, without = cron(text), cron(other)
    apart = set(read.hours) - set(without.hours) or set(read.minutes) - set(without.minutes)
    first = date(2096, 1, 1)  # the longest time without a 29 February follows
    days = (first + timedelta(days=number) for number in range(366 * (YEARS_AHEAD + 1)))
    return any(read.on(day) and (apart or not without.on(day)) for day in days)
