"""What the stress test of wakes finds left behind."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.stress.sleepers_run import RESTLESS_FILES, Remains, _held

BEFORE = Remains(Counter({"Secret a": 2}), {"operator": 20, "gateway": 10}, ("pool.json",), Counter({"agent": 1}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"objects": Counter({"Secret a": 2, "Pod b": 1})}, ["1 more of Pod b"]),
        ({"objects": Counter({"Secret a": 5})}, ["3 more of Secret a"]),
        ({"objects": Counter()}, []),
        ({"files": {"operator": 20 + RESTLESS_FILES, "gateway": 9}}, []),
        ({"files": {"operator": 20, "gateway": 19}}, ["19 open files of the gateway for 10"]),
        ({"kept": ("pool.json", ".x")}, ["file .x of the gateway"]),
        ({"tasks": Counter({"agent": 2})}, ["1 tasks agent"]),
    ],
    ids=str,
)
def test_what_has_become_more_is_named(change: Any, said: list[str]) -> None:
    assert replace(BEFORE, **change).more_than(BEFORE) == said


def test_whatever_each_wake_might_add_to_an_object_counts() -> None:
    plain: dict[str, Any] = {"metadata": {"name": "a"}}
    more = {"metadata": {"name": "a", "annotations": {"x": "1"}, "managedFields": [{}, {}]}}
    assert (_held(plain), _held(more)) == (1, 4)
