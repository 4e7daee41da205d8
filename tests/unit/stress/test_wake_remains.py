"""What the stress test of wakes finds left behind."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.contract.gateway_bed import Gateway
from tests.stress.wake import RESTLESS, Bed, Remains, Sleeper
from tests.support.standin import StandIn

BEFORE = Remains(open_files=17, upstreams=0, stored=Counter({"a/copilot/x": 2}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"stored": Counter()}, []),
        ({"stored": Counter({"a/copilot/x": 4, "a/y": 1})}, ["2 more files a/copilot/x", "1 more files a/y"]),
        ({"open_files": 17 + RESTLESS}, []),
        ({"open_files": 18 + RESTLESS}, ["21 open files of the gateway for 17"]),
        ({"upstreams": 1}, ["1 connections of the gateway to servers that sleep"]),
    ],
    ids=str,
)
def test_what_has_become_more_is_named(change: Any, said: list[str]) -> None:
    assert replace(BEFORE, **change).more_than(BEFORE) == said


def test_files_are_counted_whatever_numbers_their_names_have_and_logs_are_not(tmp_path: Path) -> None:
    for name in (
        "copilot/session-state/s/inuse.12.lock",
        "copilot/session-state/s/inuse.34.lock",
        "copilot/logs/9.log",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    bed = Bed(cast(Gateway, None), None)
    bed.sleepers.append(Sleeper("a", StandIn(), tmp_path, bed))
    assert bed._stored() == Counter({"a/copilot/session-state/s/inuse.#.lock": 2})
