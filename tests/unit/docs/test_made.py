"""What of the docs is made from the code is up to date."""

import pytest

from tests.cluster.layout import ROOT
from tests.docs.made import files

MADE = files()


@pytest.mark.parametrize("name", sorted(MADE))
def test_made_files_are_up_to_date(name: str) -> None:
    assert (ROOT / name).read_text() == MADE[name], "make docs"
