"""Programs of Debian packages that tests may do without: unpacked into the cache, nothing is installed or started."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.layout import cache_directory
from tests.cluster.packages import find
from tests.cluster.process import ClusterError, run
from tests.cluster.programs import lock

PACKAGES: Final = {"promtool": "prometheus", "lua5.4": "lua5.4"}


def program(name: str) -> str:
    """The path of one of ``PACKAGES``: the machine's own, else of the package. Skips the test if neither can be had."""
    if own := find(name):
        return own
    package = PACKAGES[name]
    home = cache_directory() / "programs" / f"debian-{package}"
    path = home / "usr" / "bin" / name
    if not path.is_file():
        if shutil.which("apt-get") is None:
            pytest.skip(f"{name} is not installed, and there is no apt-get to fetch Debian's package {package} with")
        with lock(package):
            if not path.is_file():
                try:
                    _unpack(package, home)
                except ClusterError as error:
                    pytest.skip(f"{name} is not installed, and Debian's package {package} can't be fetched: {error}")
    return str(path)


def _unpack(package: str, home: Path) -> None:
    """Raises ClusterError."""
    with tempfile.TemporaryDirectory() as directory:
        download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package]
        if run(download, cwd=Path(directory), timeout_s=300, check=False).returncode != 0:
            run(["apt-get", "-qq", "update"], timeout_s=300, env=dict(os.environ))
            run(download, cwd=Path(directory), timeout_s=300)
        partial = home.with_name(home.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        (archive,) = Path(directory).glob("*.deb")
        run(["dpkg-deb", "--extract", str(archive), str(partial)], timeout_s=120)
        partial.rename(home)
