"""The day that the docs show is the one that the code decides."""

from tests.elastic.__main__ import PICTURE, TITLE, figures, simulated
from tests.elastic.day import office_day
from tests.elastic.picture import picture


def test_the_day_of_the_docs_is_what_is_decided_now() -> None:
    day = simulated(office_day(12))
    found = figures(day)
    assert (found["lost"], found["busy_servers_stopped"]) == (0, 0)
    assert found["changes_of_direction"] <= 4, "two humps"
    assert picture(day, TITLE) == PICTURE.read_text(encoding="utf-8"), "run: python -m tests.elastic"
