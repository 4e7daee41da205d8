"""Workflows of GitHub, which can't run here: they are small, call targets that exist, and pin what they use."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.layout import ROOT

PATHS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
MAKEFILE = (ROOT / "Makefile").read_text()


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in PATHS:
        for name, job in yaml.safe_load(path.read_text())["jobs"].items():
            yield f"{path.stem}-{name}", job


JOBS = dict(jobs())


@pytest.mark.parametrize("name", JOBS)
def test_jobs_end_and_pin_what_they_use(name: str) -> None:
    job = JOBS[name]
    assert 0 < job["timeout-minutes"] <= 120
    assert not str(job["runs-on"]).endswith("latest")
    for step in job["steps"]:
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", step["uses"]), step["uses"]
        else:
            assert "latest" not in step["run"]


@pytest.mark.parametrize("name", JOBS)
def test_targets_of_make_that_workflows_call_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))
    script = "\n".join(step.get("run", "") for step in JOBS[name]["steps"])
    called = set(re.findall(r"\bmake (?:--silent )?([a-z][a-z0-9-]*)", script))
    assert called <= targets


def test_the_whole_suite_runs() -> None:
    script = "\n".join(step.get("run", "") for name, job in JOBS.items() for step in job["steps"] if "test" in name)
    parts = re.search(r"^test: (.*?) ##", MAKEFILE, re.MULTILINE)
    assert parts
    assert set(parts[1].split()) <= set(re.findall(r"make ([a-z0-9-]+)", script))


def test_rights_are_given_job_by_job() -> None:
    for path in PATHS:
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}, path
