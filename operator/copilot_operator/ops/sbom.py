"""``copilot-operator sbom``: a bill of materials of what is installed beside this program, as CycloneDX 1.6 (JSON,
https://cyclonedx.org/docs/1.6/json/): Python's distributions, and, where dpkg keeps its status, Debian's packages.

The image holds one that its build made: /opt/copilot-operator/sbom.cdx.json. It tells no times and no random numbers:
the same content gives the same bill.
"""

import json
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions, version
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

NAME: Final = "copilot-operator"
DPKG_STATUS: Final = Path("/var/lib/dpkg/status")
OS_RELEASE: Final = Path("/etc/os-release")

Component = dict[str, Any]


def main(argv: list[str]) -> int:
    """Print the bill; no arguments are taken (2)."""
    if argv:
        print("usage: copilot-operator sbom", file=sys.stderr)
        return 2
    status = DPKG_STATUS.read_text(errors="replace") if DPKG_STATUS.is_file() else ""
    release = OS_RELEASE.read_text(errors="replace") if OS_RELEASE.is_file() else ""
    found = {each["bom-ref"]: each for each in (*python_components(), *debian_components(status, release))}
    print(json.dumps(bill(list(found.values())), indent=1))
    return 0


def bill(components: list[Component]) -> Component:
    """The document: its serial number is made from what it lists."""
    listed = sorted(components, key=lambda each: str(each["bom-ref"]))
    content = json.dumps(listed, sort_keys=True)
    own = version(NAME)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": NAME, "name": NAME, "version": own}},
        "components": listed,
    }


def python_components() -> Iterator[Component]:
    """The installed distributions, but this program, which the bill is of."""
    for each in distributions():
        name = re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower()
        if name != NAME:
            yield _component("library", name, each.version, f"pkg:pypi/{name}@{quote(each.version)}") | _licence(each)


def debian_components(status: str, release: str) -> Iterator[Component]:
    """The installed packages of ``/var/lib/dpkg/status``; ``release`` is ``/etc/os-release``."""
    said = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', release, re.MULTILINE))
    distribution = f"{said.get('ID', 'debian')}-{said.get('VERSION_ID', 'unknown')}"
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            yield _debian(fields, distribution)


def _debian(fields: Mapping[str, str], distribution: str) -> Component:
    name, found = fields["Package"], fields["Version"]
    query = f"arch={fields.get('Architecture', 'all')}&distro={distribution}"
    return _component("library", name, found, f"pkg:deb/debian/{name}@{quote(found)}?{query}")


def _component(kind: str, name: str, found: str, purl: str) -> Component:
    return {"type": kind, "bom-ref": purl, "name": name, "version": found, "purl": purl}


def _licence(distribution: Distribution) -> Component:
    """An SPDX expression, where the distribution gives one (PEP 639)."""
    expressions = distribution.metadata.get_all("License-Expression") or []
    return {"licenses": [{"expression": str(each)} for each in expressions]} if expressions else {}
