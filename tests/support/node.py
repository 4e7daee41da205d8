"""The node's processes, where they can be seen from here: on an embedded cluster, by root."""

import contextlib
import os
from pathlib import Path

import pytest

from tests.support.kube import Object


def cli_of(pod: Object) -> int:
    """The process of a pod's CLI."""
    return process_of(pod, b"--headless")


def agent_of(pod: Object) -> int:
    """The process of a pod's agent."""
    return process_of(pod, b"agent")


def process_of(pod: Object, word: bytes) -> int:
    """The process of a pod with ``word`` among its arguments; the pod's UID is in its processes' cgroup.

    Skips the test where the node's processes can't be seen.
    """
    uid = pod["metadata"]["uid"]
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if not name.isdigit() or word not in Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0"):
                continue
            groups = Path(f"/proc/{name}/cgroup").read_text()
            if uid in groups or uid.replace("-", "_") in groups:
                return int(name)
    pytest.skip("the node's processes can't be seen from here")
