"""What the operator's image is built of: pinned with digests, and listed in a bill of materials."""

import json
import re
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement

from copilot_operator.ops import sbom
from tests.cluster.image_npm import pinned_cli
from tests.cluster.image_wheels import LOCK, name_of, pyproject
from tests.cluster.images import RECIPES

PIN: Final = re.compile(r"^([a-z0-9-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}$", re.MULTILINE)
TEXT: Final = LOCK.read_text()
PINS: Final = dict(PIN.findall(TEXT))
STATUS: Final = """\
Package: openssl
Status: install ok installed
Architecture: amd64
Version: 3.0.17-1~deb12u3

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1:2.0+dfsg-1
"""
PLUS: Final = """\
Package: util-linux
Status: install ok installed
Architecture: amd64
Version: 1:2.38.1-5+deb12u3
"""
RELEASE: Final = 'PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\nVERSION_ID="12"\n'


def test_the_lock_holds_nothing_but_pins() -> None:
    rest = PIN.sub("", TEXT).splitlines()
    assert [line for line in rest if line and not line.startswith("#")] == []
    assert len(PINS) > 30


@pytest.mark.parametrize("wanted", pyproject()["project"]["dependencies"])
def test_whatever_the_project_depends_on_is_pinned(wanted: str) -> None:
    """After a change of pyproject.toml: `make lock`."""
    requirement = Requirement(wanted)
    assert requirement.specifier.contains(PINS[name_of(requirement.name)]), f"{wanted}: run `make lock`"


def test_what_is_pinned_needs_nothing_that_is_not() -> None:
    """As far as the distributions tell that are installed here; the build of the image installs nothing else."""
    extras = {name_of(each.name): each.extras for each in map(Requirement, pyproject()["project"]["dependencies"])}
    for each in distributions():
        name = name_of(each.metadata["Name"])
        if name not in PINS or each.version != PINS[name]:
            continue
        for needed in map(Requirement, each.requires or ()):
            places = [{"extra": extra, "python_version": "3.11"} for extra in ("", *extras.get(name, ()))]
            if needed.marker is None or any(needed.marker.evaluate(place) for place in places):
                assert name_of(needed.name) in PINS, f"{name} needs {needed}: run `make lock`"


def test_the_bill_lists_what_is_installed_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert sbom.main([]) == 0
    bill = json.loads(capsys.readouterr().out)
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", bill["serialNumber"])
    found = {each["purl"] for each in bill["components"]}
    here = {(name_of(each.metadata["Name"]), each.version) for each in distributions()}
    assert {f"pkg:pypi/{name}@{version}" for name, version in here if name != sbom.NAME} <= found
    assert len({each["bom-ref"] for each in bill["components"]}) == len(bill["components"])
    assert sbom.main(["--help"]) == 2


def test_of_debians_packages_those_that_are_installed() -> None:
    assert list(sbom.debian_components(STATUS, RELEASE)) == [
        {
            "type": "library",
            "bom-ref": "pkg:deb/debian/openssl@3.0.17-1~deb12u3?arch=amd64&distro=debian-12",
            "name": "openssl",
            "version": "3.0.17-1~deb12u3",
            "purl": "pkg:deb/debian/openssl@3.0.17-1~deb12u3?arch=amd64&distro=debian-12",
        }
    ]
    assert list(sbom.debian_components("", "")) == []


def test_the_bill_of_the_clis_image_lists_the_cli_and_debians_packages_as_the_operators_does(tmp_path: Path) -> None:
    status, release = tmp_path / "status", tmp_path / "os-release"
    status.write_text(STATUS + "\n" + PLUS)
    release.write_text(RELEASE)
    words = [RECIPES / "cli" / "sbom", RECIPES / "cli" / "package-lock.json", status, release]
    bill = json.loads(subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout)
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    cli, version = pinned_cli(), pinned_cli().version
    purl = f"pkg:npm/{cli.name.replace('@', '%40')}@{version}"
    own = {"type": "application", "bom-ref": purl, "name": cli.name, "version": version, "purl": purl}
    assert bill["components"] == [*sbom.debian_components(status.read_text(), RELEASE), own]
    assert len(bill["components"]) == 3


def test_the_same_content_has_the_same_bill() -> None:
    once, again = ([{"bom-ref": name} for name in names] for names in (("b", "a"), ("a", "b")))
    assert sbom.bill(once) == sbom.bill(again)
    assert sbom.bill(once)["serialNumber"] != sbom.bill([])["serialNumber"]
