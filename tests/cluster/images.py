"""The project's container images, built with or without a Docker daemon: ``python3 -m tests.cluster.images build``.

Each is a file in the cache, named after all that went into it, so that building again costs nothing. Standard library
only: this runs before there is a virtual environment.
"""

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.image_builders import Buildah, builder
from tests.cluster.image_cache import cache_directory, digest, digest_of_tree, forget_siblings, made_once
from tests.cluster.image_npm import cli_package, cli_tarball, pinned_cli
from tests.cluster.image_wheels import LOCK, dependency_wheels, project_wheel

__all__ = ["CLI_IMAGE", "OPERATOR_IMAGE", "cli_image", "cli_package", "main", "operator_image"]

PROJECT = Path(__file__).resolve().parents[2]
RECIPES = PROJECT / "operator" / "images"
SOURCE = PROJECT / "operator" / "copilot_operator"

CLI_IMAGE = f"docker.io/library/copilot-cli:{pinned_cli().version}"
OPERATOR_IMAGE = "docker.io/library/copilot-operator:dev"

log = logging.getLogger(__name__)


def cli_image(*, again: bool = False) -> Path:
    """Return the archive of ``CLI_IMAGE``."""
    recipe = RECIPES / "cli"
    inputs = [recipe / name for name in ("Dockerfile", "copilot-server", "package-lock.json", "sbom")]

    def build(archive: Path, context: Path) -> None:
        for file in (*inputs, cli_tarball()):
            link_or_copy(file, context / file.name)
        arguments = {"TARBALL": pinned_cli().tarball_name}
        builder().build(recipe / "Dockerfile", context, CLI_IMAGE, arguments, archive)

    return archive_of("copilot-cli", digest(builder().base_key, *inputs), build, again=again)


def operator_image(*, again: bool = False) -> Path:
    """Return the archive of ``OPERATOR_IMAGE``."""
    dockerfile = RECIPES / "operator" / "Dockerfile"
    key = digest(builder().base_key, dockerfile, LOCK, PROJECT / "pyproject.toml", digest_of_tree(SOURCE))

    def build(archive: Path, context: Path) -> None:
        wheels = dependency_wheels(again=again)
        shutil.copytree(wheels, context / "dependencies", copy_function=link_or_copy)
        own = project_wheel(context / "project")
        names = (wheel.name for wheel in sorted(wheels.iterdir()))
        arguments = {"DEPENDENCIES": digest(*names), "PROJECT": digest(own)}
        builder().build(dockerfile, context, OPERATOR_IMAGE, arguments, archive)

    return archive_of("copilot-operator", key, build, again=again)


def archive_of(name: str, key: str, build: Callable[[Path, Path], None], *, again: bool) -> Path:
    """Return the archive of what ``key`` names, built by ``build(archive, context)`` if it is not in the cache."""
    archive = cache_directory() / "images" / f"{name}-{key}.tar"

    def make(scratch: Path) -> None:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="context-", dir=cache_directory()) as context:
            build(scratch / archive.name, Path(context))
        log.info("built %s in %.1f s", name, time.monotonic() - started)

    made = made_once(archive, make, again=again)
    forget_siblings(made, f"{name}-*.tar")
    return made


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Put a file into a context without copying it where that is possible."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.cluster.images", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("cli-path", help="print the path of the CLI's binary")
    build = commands.add_parser("build", help="build both images and print where their archives are")
    build.add_argument("--force", action="store_true", help="build everything again, on a new base")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if options.command == "cli-path":
        print(cli_package() / "copilot")
        return 0
    chosen = builder()
    if options.force and isinstance(chosen, Buildah):
        chosen.forget_base()
    for image, make in ((CLI_IMAGE, cli_image), (OPERATOR_IMAGE, operator_image)):
        print(image, make(again=options.force))
    return 0


if __name__ == "__main__":
    sys.exit(main())
