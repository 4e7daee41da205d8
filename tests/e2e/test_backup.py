"""A tenant's volume, copied and put back as docs/upgrade.md says: what was said is known in another namespace."""

import asyncio
import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from copilot_operator.domain.naming import server_of
from tests.cluster.api import kubectl
from tests.cluster.layout import ROOT
from tests.docs.manifests import blocks
from tests.support.kube import NAMESPACE
from tests.support.place import Place

PAGE: Final = (ROOT / "docs" / "upgrade.md").read_text()
COPY: Final = next(each for block in blocks(PAGE) for each in block if each.get("kind") == "Pod")
OUT: Final = "tar -C /data -cf - copilot home workspace"
IN: Final = "tar -C /data -xf -"


@pytest.fixture
def elsewhere(place: Place) -> Iterator[Place]:
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    place.kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield replace(place, namespace=name)
    place.kube.delete(NAMESPACE, "", name)


def with_copy(place: Place, tenant: str, *words: str, **files: Any) -> None:
    """Run a command in the pod of the docs, with standard input or output from or to a file."""
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": server_of(tenant)}}
    metadata = COPY["metadata"] | {"namespace": place.namespace}
    pod = COPY | {"metadata": metadata, "spec": COPY["spec"] | {"volumes": [volume]}}
    place.kube.kubectl("create", "-f=-", stdin=json.dumps(pod))
    place.kube.kubectl("-n", place.namespace, "wait", "pod/copy", "--for=condition=Ready", "--timeout=90s")
    command = [kubectl(), f"--kubeconfig={place.kube.kubeconfig}", "-n", place.namespace, "exec", "--stdin", "copy"]
    subprocess.run([*command, "--", *words], check=True, timeout=120, **files)
    place.kube.kubectl("-n", place.namespace, "delete", "pod", "copy", "--grace-period=1", "--wait")


def is_suspended(place: Place, tenant: str) -> bool:
    return bool((place.get(tenant).get("status") or {}).get("phase") == "Suspended")


async def test_a_copied_volume_is_a_tenants_sessions_elsewhere(
    place: Place, elsewhere: Place, provider: Any, tmp_path: Path
) -> None:
    assert f"-- {OUT} > alice.tar" in PAGE
    assert f"-- {IN} < alice.tar" in PAGE
    archive = tmp_path / "alice.tar"
    place.pool()
    place.tenant("alice")
    await place.until_ready("alice")
    await place.say("alice", provider, "remember NOTE=elm")
    place.tenant("alice", suspended=True)
    await place.until(lambda: is_suspended(place, "alice") and not place.pods("alice"), within_s=60, what="it rests")
    with archive.open("wb") as file:
        await asyncio.to_thread(with_copy, place, "alice", *OUT.split(), stdout=file)

    elsewhere.pool()
    elsewhere.tenant("alice", suspended=True)
    await elsewhere.until(lambda: elsewhere.claim("alice"), within_s=30, what="it has a claim, and no server")
    with archive.open("rb") as file:
        await asyncio.to_thread(with_copy, elsewhere, "alice", *IN.split(), stdin=file)
    elsewhere.tenant("alice", suspended=False)
    await elsewhere.until_ready("alice")
    assert await elsewhere.say("alice", provider, "RECALL", resume=True) == ["notes: elm"]
