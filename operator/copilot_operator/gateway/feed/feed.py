"""Keeps a directory of configuration files as the cluster says. The last good one stays for the next start.

The settings name all other Secrets; whoever is named is followed from then on. A burst of changes makes one new
configuration; what is no configuration (a shard that is still to come, garbage) changes nothing, and is told once.
"""

import asyncio
import base64
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from copilot_operator.gateway.feed.compiled import Incomplete, Seen, SeenPod, compiled, seen, selector_of, shards_of
from copilot_operator.gateway.feed.kube import KubeReader

log = logging.getLogger(__name__)

BURST_S: Final = 0.03


class Feed:
    """``changed`` is called when the files in ``directory`` have."""

    def __init__(self, reader: KubeReader, settings: str, directory: Path, changed: Callable[[], None]) -> None:
        self._reader, self._settings, self._directory, self._changed = reader, settings, directory, changed
        self._seen = Seen()
        self._following: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._due = asyncio.Event()
        self._written: dict[str, bytes] = {}
        self._complaint = ""

    async def run(self) -> None:
        """Until cancelled."""
        self._follow_secret(self._settings)
        try:
            while True:
                await self._due.wait()
                await asyncio.sleep(BURST_S)
                self._due.clear()
                self._compile()
        finally:
            for task in self._following.values():
                task.cancel()

    # What watchers call

    def told_of_secret(self, name: str, values: Mapping[str, str] | None) -> None:
        if name == self._settings:
            if values is not None:  # while it is gone what it said last holds
                self._seen.settings = values
                self._follow_all()
        elif values is None:
            self._seen.secrets.pop(name, None)
        else:
            self._seen.secrets[name] = values
        self._due.set()

    def told_of_pods(self) -> None:
        self._seen.listed = True  # whoever follows them lists them first
        self._due.set()

    # What is followed

    def _follow_all(self) -> None:
        assert self._seen.settings is not None
        try:
            shards, selector = shards_of(self._seen.settings), selector_of(self._seen.settings)
        except Incomplete as error:
            self._complain(str(error))
            return
        wanted = {("secrets", name) for names in shards for name in names} | {("secrets", self._settings)}
        wanted |= {("pods", selector)}
        for key in self._following.keys() - wanted:
            self._following.pop(key).cancel()
            self._seen.secrets.pop(key[1], None)
        for names in shards:
            for name in names:
                self._follow_secret(name)
        self._follow("pods", selector, {"labelSelector": selector}, _Pods(self, self._seen.pods))

    def _follow_secret(self, name: str) -> None:
        self._follow("secrets", name, {"fieldSelector": f"metadata.name={name}"}, _Secret(self, name))

    def _follow(self, resource: str, name: str, selector: Mapping[str, str], watcher: "_Secret | _Pods") -> None:
        if (resource, name) not in self._following:
            work = self._reader.follow(resource, selector, watcher)
            self._following[resource, name] = asyncio.get_running_loop().create_task(work, name=f"follow-{name}")

    # What comes of it

    def _compile(self) -> None:
        try:
            files = compiled(self._seen)
        except Incomplete as error:
            self._complain(str(error))
            return
        self._complaint = ""
        if files == self._written:
            return
        for name, content in files.items():
            if content != self._written.get(name):
                write(self._directory / name, content)
        self._written = files
        self._changed()

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            log.warning("no new configuration: %s", why)
        self._complaint = why


def write(path: Path, content: bytes) -> None:
    """As a whole or not at all; for this user's eyes only."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@dataclass
class _Secret:
    feed: Feed
    name: str

    def listed(self, objects: list[dict[str, Any]]) -> None:
        if objects:
            self.changed(objects[0])
        else:
            self.feed.told_of_secret(self.name, None)

    def changed(self, obj: dict[str, Any]) -> None:
        data = obj.get("data") or {}
        values = {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}
        self.feed.told_of_secret(self.name, values)

    def gone(self, obj: dict[str, Any]) -> None:
        self.feed.told_of_secret(self.name, None)


@dataclass
class _Pods:
    feed: Feed
    known: dict[str, SeenPod]

    def listed(self, objects: list[dict[str, Any]]) -> None:
        self.known.clear()
        self.known.update({pod.name: pod for pod in map(seen, objects)})
        self.feed.told_of_pods()

    def changed(self, obj: dict[str, Any]) -> None:
        pod = seen(obj)
        if self.known.get(pod.name) != pod:
            self.known[pod.name] = pod
            self.feed.told_of_pods()

    def gone(self, obj: dict[str, Any]) -> None:
        if self.known.pop(obj["metadata"]["name"], None):
            self.feed.told_of_pods()
