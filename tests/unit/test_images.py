"""What the images are built from: pinned, checked, made once."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from tests.cluster import image_npm, images
from tests.cluster.image_builders import CannotBuild, Docker, run
from tests.cluster.image_cache import digest, digest_of_tree, forget_siblings, made_once


def test_the_recipe_pins_one_version_everywhere() -> None:
    recipe = images.RECIPES / "cli"
    package = image_npm.pinned_cli()
    assert json.loads((recipe / "package.json").read_text())["dependencies"] == {package.name: package.version}
    dockerfile = (recipe / "Dockerfile").read_text()
    assert f"ARG TARBALL={package.tarball_name}\n" in dockerfile
    assert f"npm pack {package.name}@{package.version}" in dockerfile
    assert f"copilot-cli:{package.version}" in dockerfile
    assert package.integrity.startswith("sha512-")


def test_a_tarball_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    tarball = tmp_path / "x.tgz"
    tarball.write_bytes(b"hello")
    integrity = "sha512-m3HSJL1i83hdltRq0+o9czGb+8KJDKra4t/3JRlnPKcjI8PZm6XBHXx6zG4UuMXaDEZjR1wuXDre9G9zvN7AQw=="
    image_npm.check_integrity(tarball, integrity)
    tarball.write_bytes(b"hullo")
    with pytest.raises(image_npm.IntegrityMismatch, match=r"x\.tgz"):
        image_npm.check_integrity(tarball, integrity)


def test_an_entry_is_made_once_and_appears_whole(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(scratch: Path) -> None:
        made.append(scratch)
        (scratch / "entry").mkdir()
        time.sleep(0.05)  # so that the others come meanwhile
        (scratch / "entry" / "part").write_text("whole")

    threads = [threading.Thread(target=made_once, args=(tmp_path / "entry", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(made) == 1
    assert (tmp_path / "entry" / "part").read_text() == "whole"
    assert not made[0].exists()


def test_an_entry_whose_making_failed_is_not_there(tmp_path: Path) -> None:
    def make(scratch: Path) -> None:
        (scratch / "entry").write_text("half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        made_once(tmp_path / "entry", make)
    assert not (tmp_path / "entry").exists()


def test_names_follow_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    before = digest_of_tree(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("made of a source")
    assert digest_of_tree(tmp_path) == before
    (tmp_path / "a.py").write_text("2")
    assert digest_of_tree(tmp_path) != before
    assert digest("ab", "c") != digest("a", "bc")


def test_old_entries_go_and_the_one_before_stays(tmp_path: Path) -> None:
    for number in range(4):
        entry = tmp_path / f"image-{number}.tar"
        entry.write_text("")
        os.utime(entry, (number, number))
    forget_siblings(tmp_path / "image-3.tar", "image-*.tar")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["image-2.tar", "image-3.tar"]


def test_a_docker_daemon_is_asked_for_the_same_dockerfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\n[ "$1" = save ] && echo archive >"$3" || true\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    Docker().build(Path("/recipe/Dockerfile"), Path("/context"), "image:1", {"A": "b"}, tmp_path / "image.tar")
    assert (tmp_path / "asked").read_text().splitlines() == [
        "build --tag image:1 --file /recipe/Dockerfile --build-arg A=b /context",
        f"save --output {tmp_path}/image.tar image:1",
    ]
    assert (tmp_path / "image.tar").read_text() == "archive\n"


def test_a_failed_step_says_what_it_printed() -> None:
    with pytest.raises(CannotBuild, match=r"(?s)ended with 3:.*no space left"):
        run("sh", "-c", "echo no space left; exit 3")
