"""``make docs``: write what of the docs, the alerts and the dashboards is made from something else."""

import sys

from tests.cluster.layout import ROOT
from tests.docs.made import files
from tests.support.made import write_changed


def main() -> int:
    write_changed(ROOT, files())
    return 0


if __name__ == "__main__":
    sys.exit(main())
