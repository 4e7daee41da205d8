"""Who builds an image from a Dockerfile: a Docker daemon where one answers, else buildah on a base made from packages.

Both give a docker-archive, which ``docker load``, ``kind load image-archive`` and ``ctr images import`` take.
"""

import functools
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.cluster.image_cache import cache_directory, digest, locked
from tests.cluster.packages import docker_answers, find

STEP_TIMEOUT_S = 900

SUITE = "bookworm"
BASE_PACKAGES = ("ca-certificates", "libstdc++6", "openssl", "python3")
BASE_OPTIONS = (
    "--variant=minbase",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",  # or a package that merges /usr, and brings all of Perl
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)


class CannotBuild(Exception):
    """This machine has nothing that builds an image, and may not install it."""


class Builder(Protocol):
    """What builds an image and writes it to a file."""

    @property
    def base_key(self) -> str:
        """Name of what images are built upon; images on another base are other images."""

    def build(self, dockerfile: Path, context: Path, image: str, arguments: Mapping[str, str], archive: Path) -> None:
        """Build ``image`` and write it to ``archive``."""


@functools.cache
def builder() -> Builder:
    """Return the best builder of this machine."""
    return Docker() if docker_answers() else Buildah()


@dataclass(frozen=True)
class Docker:
    """A Docker daemon, with the base images that the Dockerfiles name."""

    base_key: str = "docker"

    def build(self, dockerfile: Path, context: Path, image: str, arguments: Mapping[str, str], archive: Path) -> None:
        given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}  # for RUN --mount, with an old client
        run("docker", "build", "--tag", image, "--file", str(dockerfile), *given, str(context), environment=environment)
        run("docker", "save", "--output", str(archive), image)


class Buildah:
    """Buildah without a daemon, on a local base root made from Debian packages. Needs root."""

    base_key = digest(SUITE, *BASE_PACKAGES, *BASE_OPTIONS)
    base_image = f"localhost/copilot-base:{base_key}"

    def build(self, dockerfile: Path, context: Path, image: str, arguments: Mapping[str, str], archive: Path) -> None:
        every = {"BASE": self.base_image, **arguments}
        given = [word for name, value in every.items() for word in ("--build-arg", f"{name}={value}")]
        target = ("--tag", image, "--file", str(dockerfile), *given, str(context))
        with locked(self.store):  # from build to archive, or another work tree's image of that name might come between
            self.require_base()
            self.bud("--layers", "--force-rm", "--pull=never", *target)
            run(*self.command, "push", "--quiet", "--disable-compression", image, f"docker-archive:{archive}:{image}")

    def forget_base(self) -> None:
        """Have the next build make the base anew, of today's packages."""
        with locked(self.store):
            if self.has_base():
                run(*self.command, "rmi", "--force", self.base_image)

    def require_base(self) -> None:
        """Make the base root and keep it as an image of the builder's own store, if it is not there."""
        if self.has_base():
            return
        with tempfile.TemporaryDirectory(prefix="base-", dir=cache_directory()) as scratch:
            root = Path(scratch) / "root.tar"
            include = f"--include={','.join(BASE_PACKAGES)}"
            run(tool("mmdebstrap"), "--quiet", *BASE_OPTIONS, include, SUITE, str(root))
            (Path(scratch) / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
            self.bud("--tag", self.base_image, scratch)

    def has_base(self) -> bool:
        """Tell whether the base root is in the builder's store."""
        asked = [*self.command, "inspect", "--type=image", self.base_image]
        return subprocess.run(asked, capture_output=True, timeout=STEP_TIMEOUT_S).returncode == 0

    def bud(self, *arguments: str) -> None:
        """Run a build; ``chroot`` is the isolation that works without privileges over namespaces and cgroups."""
        run(*self.command, "bud", "--quiet", "--isolation", "chroot", *arguments)

    @property
    def store(self) -> Path:
        """Where buildah keeps layers between builds."""
        return cache_directory() / "buildah"

    @functools.cached_property
    def command(self) -> tuple[str, ...]:
        """Buildah with a store of the project's own. Overlay mounts where they work: copying every layer is slow."""
        if os.geteuid() != 0:
            raise CannotBuild("building images without a Docker daemon needs root: run as root, or start Docker")
        state = Path("/run/copilot-operator-images") / digest(str(self.store))
        # In a mount namespace of its own: what buildah mounts and leaves behind ends with it.
        buildah = ("unshare", "--mount", tool("buildah"))
        common = (*buildah, "--root", str(self.store), "--runroot", str(state), "--storage-driver")
        overlay = subprocess.run([*common, "overlay", "info"], capture_output=True, timeout=60)
        return (*common, "overlay" if overlay.returncode == 0 else "vfs")


def tool(name: str) -> str:
    """Return the path of a program that comes in the Debian package of the same name, installed if it is missing."""
    if found := find(name):
        return found
    if not find("apt-get"):
        raise CannotBuild(f"{name} is missing: install it, or start Docker")
    waiting = ("-o", "DPkg::Lock::Timeout=300")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", *waiting, "update", "--quiet", environment=quiet)
    run("apt-get", *waiting, "install", "--quiet", "--yes", "--no-install-recommends", name, environment=quiet)
    return find(name) or name


def run(*command: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a step of a build; what it printed is shown only if it failed."""
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=STEP_TIMEOUT_S
    )
    if done.returncode:
        raise CannotBuild(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
