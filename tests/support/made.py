"""Files that are made from something else."""

from collections.abc import Mapping
from pathlib import Path

from tests.cluster.layout import ROOT


def write_changed(directory: Path, files: Mapping[str, str]) -> None:
    """Those that are not there as they shall be, by their paths below ``directory``; says which."""
    for name, text in files.items():
        path = directory / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
