"""What actionlint says of the workflows."""

import subprocess
from typing import Final

from tests.cluster.layout import ROOT
from tests.cluster.programs import ensure_program

ACTIONLINT: Final = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.7"


def test_actionlint_finds_nothing() -> None:
    program = ensure_program("actionlint", ACTIONLINT)
    files = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
    assert files
    done = subprocess.run(
        [program, "-no-color", "-shellcheck=", "-pyflakes=", *files], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
