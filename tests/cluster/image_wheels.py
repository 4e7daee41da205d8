"""The wheels that the operator's image is made of: the project's own, and those of everything it depends on.

They are made on this machine, so that the build of the image itself needs no network.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.cluster.image_cache import cache_directory, digest, forget_siblings, made_once

PROJECT = Path(__file__).resolve().parents[2]
PYTHON_OF_IMAGE = "3.11"
GLIBC_OF_IMAGE = 36  # 2.36, Debian 12
TIMEOUT_S = 600


LOCK = PROJECT / "operator" / "images" / "operator" / "requirements.txt"
HEAD = """\
# What the operator's image is built of, with the digest of each wheel: Python {python}, Linux x86_64, glibc 2.{glibc}.
# Made by `make lock` from pyproject.toml; pip takes nothing that differs.
"""


def dependency_wheels(*, again: bool = False) -> Path:
    """Return a directory with the wheels of the project's dependencies, for the image's Python, and pip."""
    directory = cache_directory() / "wheels" / f"dependencies-{digest(PYTHON_OF_IMAGE, LOCK)}"

    def download(scratch: Path) -> None:
        pinned = ["--require-hashes", "--no-deps", f"--requirement={LOCK}"]
        pip("download", "--dest", str(scratch / directory.name), *for_image(), *pinned)

    made = made_once(directory, download, again=again)
    forget_siblings(made, "dependencies-*")
    return made


def lock() -> str:
    """What ``LOCK`` is to hold: the newest versions that ``pyproject.toml`` allows."""
    wanted = [*pyproject()["project"]["dependencies"], "pip"]
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        dry = ["--dry-run", "--ignore-installed", f"--report={report}", f"--target={scratch}"]
        pip("install", *dry, *for_image(), *wanted)
        found = json.loads(report.read_text())["install"]
    pins = (
        f"{name_of(each['metadata']['name'])}=={each['metadata']['version']} \\\n"
        f"    --hash=sha256:{each['download_info']['archive_info']['hashes']['sha256']}\n"
        for each in found
    )
    return HEAD.format(python=PYTHON_OF_IMAGE, glibc=GLIBC_OF_IMAGE) + "".join(sorted(pins))


def for_image() -> list[str]:
    """What pip is told so that it takes wheels for the image, whatever machine it runs on."""
    newest_first = [f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC_OF_IMAGE, 16, -1)]
    platforms = [f"--platform={name}" for name in (*newest_first, "manylinux2014_x86_64", "linux_x86_64")]
    return ["--only-binary=:all:", f"--python-version={PYTHON_OF_IMAGE}", *platforms]


def name_of(distribution: str) -> str:
    """The name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def project_wheel(target: Path) -> Path:
    """Build the project's own wheel into ``target``."""
    environment = {**os.environ, "PYTHONPATH": str(build_backend())}
    build = f"import {backend()} as backend; print(backend.build_wheel({str(target)!r}))"
    target.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", build],
        cwd=PROJECT,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
    )
    return target / done.stdout.splitlines()[-1]


def build_backend() -> Path:
    """Return a directory with what builds the project; kept, so that a build does not ask the index each time."""
    wanted: list[str] = pyproject()["build-system"]["requires"]
    directory = cache_directory() / "wheels" / f"backend-{digest(sys.version, *wanted)}"

    def install(scratch: Path) -> None:
        pip("install", "--target", str(scratch / directory.name), *wanted)

    return made_once(directory, install)


def backend() -> str:
    """Return the module that builds the project (PEP 517)."""
    name: str = pyproject()["build-system"]["build-backend"]
    return name


def pyproject() -> dict[str, dict]:  # type: ignore[type-arg]
    """Read the project's own description."""
    return tomllib.loads((PROJECT / "pyproject.toml").read_text())


def pip(*arguments: str) -> None:
    """Run pip as it is configured on this machine."""
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    # by the environment: not every command of every version knows the option
    environment = os.environ | {"PIP_ROOT_USER_ACTION": "ignore"}
    subprocess.run(command, env=environment, check=True, timeout=TIMEOUT_S)


if __name__ == "__main__":
    LOCK.write_text(lock())
