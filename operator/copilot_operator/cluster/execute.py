"""Carry out a plan's steps, in order. Every step may be repeated."""

import logging
from collections.abc import Callable

from copilot_operator.cluster.answers import Answers
from copilot_operator.cluster.client import DRAIN_MANAGER, KubeApi
from copilot_operator.cluster.errors import Absent
from copilot_operator.domain.kinds import DEPLOYMENT, POD
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.steps import Apply, Delete, DeletePod, Label, Note, Scale, Step

log = logging.getLogger(__name__)


class NotLeading(Exception):
    """The lease is not ours at the moment: nothing was written."""

    expected = True

    def __init__(self) -> None:
        super().__init__("the lease was not renewed in time, and nothing is written without it")


class Executor:
    """``may_write`` is asked before each write."""

    def __init__(self, api: KubeApi, answers: Answers, may_write: Callable[[], bool]) -> None:
        self._api, self._answers, self._may_write = api, answers, may_write

    async def run(self, steps: tuple[Step, ...]) -> None:
        """Raises NotLeading and the errors of cluster/errors.py; the steps before the failed one are done."""
        for step in steps:
            if not self._may_write():
                raise NotLeading
            await self._step(step)

    async def _step(self, step: Step) -> None:
        match step:
            case Apply(kind, manifest, why):
                live = await self._api.apply(kind, manifest)
                self._answers.keep(kind, live)
                name = manifest["metadata"]["name"]
                log.info("applied", extra={"kind": str(kind), "object": name, "why": why})
            case Scale(namespace, name, replicas, why):
                change: Manifest = {"spec": {"replicas": replicas}}
                live = await self._api.merge(DEPLOYMENT, namespace, name, change)
                self._answers.keep(DEPLOYMENT, live)
                log.info("scaled", extra={"object": name, "replicas": replicas, "why": why})
            case Note(namespace, name, uid, annotations, why):
                metadata = {"name": name, "namespace": namespace, "uid": uid, "annotations": dict(annotations)}
                note = {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.kind, "metadata": metadata}
                live = await self._api.apply(DEPLOYMENT, note, manager=DRAIN_MANAGER)
                self._answers.keep(DEPLOYMENT, live)
                log.info("noted", extra={"object": name, "annotations": dict(annotations), "why": why})
            case DeletePod(namespace, name, uid, grace_s, why):
                try:
                    await self._api.delete(POD, namespace, name, uid=uid, grace_s=grace_s)
                except Absent:
                    return
                log.info("pod deleted", extra={"object": name, "grace_s": grace_s, "why": why})
            case Delete(kind, namespace, name, uid, why):
                try:
                    await self._api.delete(kind, namespace, name, uid=uid)
                except Absent:
                    return
                log.info("deleted", extra={"kind": str(kind), "object": name, "why": why})
            case Label(namespace, name, uid, labels, why):
                marked: Manifest = {"metadata": {"uid": uid, "labels": dict(labels)}}
                try:
                    live = await self._api.merge(POD, namespace, name, marked)
                except Absent:
                    return
                self._answers.keep(POD, live)
                log.info("labelled", extra={"object": name, "labels": dict(labels), "why": why})
