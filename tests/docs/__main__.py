"""``make docs``: write what of the docs, the alerts and the dashboards is made from something else."""

import sys

from tests.cluster.layout import ROOT
from tests.docs.made import files


def main() -> int:
    for name, text in files().items():
        path = ROOT / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
