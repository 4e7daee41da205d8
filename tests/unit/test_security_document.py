"""docs/security.md names a test for each of its rows: it is there."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
ROW: Final = re.compile(r"^\| [^|]+ \| [^|]+ \| [^|]+ \| `(tests/[\w/]+\.py)::(test_\w+)` \|$")
LINES: Final = (ROOT / "docs" / "security.md").read_text().splitlines()
ROWS: Final = [line for line in LINES if line.startswith("| ") and "---" not in line][1:]


def test_there_are_rows() -> None:
    assert len(ROWS) > 8


@pytest.mark.parametrize("row", ROWS)
def test_the_test_of_a_row_is_there(row: str) -> None:
    found = ROW.match(row)
    assert found, f"a row is attacker, way, defence and one test: {row}"
    file, name = found.groups()
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file} has no {name}"
