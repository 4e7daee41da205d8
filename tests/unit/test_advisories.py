"""Advisories on disk, held against what a lock pins."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.advisories import is_affected, main

LOCK = """\
aiohttp==3.14.5 \\
    --hash=sha256:00
pyyaml==6.0.3 \\
    --hash=sha256:00
"""


def a_record(name: str, *events: dict[str, str], ecosystem: str = "PyPI", **more: Any) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": list(events)}]
    affected = [{"package": {"ecosystem": ecosystem, "name": name}, "ranges": ranges}]
    return {"id": "PYSEC-2026-1", "summary": "It does\nnot end", "affected": affected} | more


OPEN = {"introduced": "0"}
FOUND = "aiohttp 3.14.5: PYSEC-2026-1 It does not end\n"
NOTHING = "2 pins, 1 advisories: nothing is known against them\n"


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (a_record("AioHTTP", OPEN), FOUND),
        (a_record("aiohttp", OPEN, aliases=["CVE-1"]), FOUND.replace("-1 It", "-1 (CVE-1) It")),
        (a_record("aiohttp", OPEN, {"fixed": "3.14.5"}), NOTHING),
        (a_record("aiohttp", OPEN, {"fixed": "3.14.6"}), FOUND),
        (a_record("aiohttp", OPEN, {"last_affected": "3.14.5"}), FOUND),
        (a_record("aiohttp", OPEN, {"last_affected": "3.14.4"}), NOTHING),
        (a_record("aiohttp", {"introduced": "3.14.5"}), FOUND),
        (a_record("aiohttp", {"introduced": "3.15"}), NOTHING),
        (a_record("aiohttp", OPEN, {"fixed": "3.9"}, {"introduced": "3.14"}), FOUND),
        (a_record("aiohttp", {"introduced": "3.14"}, {"fixed": "3.9"}, OPEN), FOUND),
        (a_record("aiohttp", {"introduced": "2004d"}, {"fixed": "soon"}), FOUND),
        (a_record("aiohttp", OPEN, ecosystem="npm"), NOTHING),
        (a_record("aiohttp", OPEN, withdrawn="2026-01-01T00:00:00Z"), NOTHING),
        (a_record("requests", OPEN), NOTHING),
        ({"id": "GHSA-1", "affected": [{"package": {"ecosystem": "PyPI", "name": "pyyaml"}, "versions": ["6.0.3"]}]},
         "pyyaml 6.0.3: GHSA-1\n"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("zipped", [False, True])
def test_what_is_known_against_a_pin_is_told_and_nothing_else(
    record: dict[str, Any], said: str, zipped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock, path = tmp_path / "lock", tmp_path / "all.zip"
    lock.write_text(LOCK)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("PYSEC-2026-1.json", json.dumps(record))
    else:
        path = tmp_path / "advisories"
        (path / "vulns" / "a").mkdir(parents=True)
        (path / "vulns" / "a" / "PYSEC-2026-1.json").write_text(json.dumps(record))
    assert main([str(path), str(lock)]) == (0 if said == NOTHING else 1)
    assert capsys.readouterr().out == said


def test_an_empty_directory_is_no_clean_bill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no advisory" in capsys.readouterr().err
    assert main([]) == 2


@given(st.integers(0, 40), st.lists(st.integers(0, 40), min_size=2, max_size=8, unique=True))
def test_a_version_is_affected_between_each_introduction_and_its_fix(version: int, bounds: list[int]) -> None:
    bounds = sorted(bounds)[: len(bounds) // 2 * 2]
    pairs = list(zip(bounds[::2], bounds[1::2], strict=True))
    events = [{kind: f"1.{at}"} for pair in pairs for kind, at in zip(("introduced", "fixed"), pair, strict=True)]
    affected = {"ranges": [{"type": "ECOSYSTEM", "events": events}]}
    assert is_affected(affected, f"1.{version}") is any(first <= version < fixed for first, fixed in pairs)
