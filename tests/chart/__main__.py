"""``make chart``: write what of the chart is made from something else."""

import sys

from tests.chart.generate import CHART, files


def main() -> int:
    for name, text in files().items():
        path = CHART / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {path.relative_to(CHART.parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
