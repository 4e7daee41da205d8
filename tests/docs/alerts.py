"""The table of alerts in docs/monitoring.md."""

from collections.abc import Iterator
from typing import Final

import yaml

from tests.cluster.layout import ROOT

PAGE: Final = "docs/monitoring.md"
ALERTS: Final = ROOT / "manifests" / "monitoring" / "alerts.yaml"
BEGINS: Final = "<!-- alerts: made by `make docs` -->\n"
ENDS: Final = "<!-- end of alerts -->\n"


def page() -> str:
    """The page, with the table as it should be."""
    before, _, rest = (ROOT / PAGE).read_text().partition(BEGINS)
    return before + BEGINS + "".join(_table()) + ENDS + rest.partition(ENDS)[2]


def _table() -> Iterator[str]:
    yield "| alert | severity | after |\n| --- | --- | --- |\n"
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            link = f"[{rule['alert']}](runbooks/{rule['alert']}.md)"
            yield f"| {link} | {rule['labels']['severity']} | {rule.get('for', 'at once')} |\n"
