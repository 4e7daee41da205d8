"""``make chart``: write what of the chart is made from something else."""

import sys

from tests.chart.generate import CHART, files
from tests.support.made import write_changed


def main() -> int:
    write_changed(CHART, files())
    return 0


if __name__ == "__main__":
    sys.exit(main())
