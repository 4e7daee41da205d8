"""Where pools and tenants are read from: files, or the cluster that a kubeconfig leads to."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import yaml

from copilot_operator.cluster.client import AccessError, KubeApi, load_access
from copilot_operator.cluster.errors import ApiError
from copilot_operator.domain.kinds import POOL, TENANT
from copilot_operator.domain.manifest import Manifest
from copilot_operator.export.servers import ExportError

KINDS: Final = {POOL.kind: POOL, TENANT.kind: TENANT}
STANDARD_INPUT: Final = "-"


def from_files(files: Iterable[str]) -> tuple[list[Manifest], list[Manifest]]:
    """Pools and tenants of YAML or JSON files; ``-`` is standard input. Other kinds are passed over.

    Raises ExportError.
    """
    found: dict[str, list[Manifest]] = {kind: [] for kind in KINDS}
    for name in files:
        for obj in _documents(name):
            if obj.get("kind") in found:
                if not (obj.get("metadata") or {}).get("name") or not isinstance(obj.get("spec"), dict):
                    raise ExportError(f"{name}: a {obj['kind']} without metadata.name or spec: add them")
                found[obj["kind"]].append(obj)
    return found[POOL.kind], found[TENANT.kind]


def _documents(name: str) -> Iterator[Manifest]:
    try:
        text = sys.stdin.read() if name == STANDARD_INPUT else Path(name).read_text(encoding="utf-8")
        for document in yaml.safe_load_all(text):
            objects = document.get("items", [document]) if isinstance(document, dict) else []
            yield from (obj for obj in objects if isinstance(obj, dict))
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{name} can't be read: {error}") from error
    except yaml.YAMLError as error:
        raise ExportError(f"{name} is no YAML: {error}") from error


async def from_cluster(kubeconfig: str | None, namespace: str) -> tuple[list[Manifest], list[Manifest]]:
    """All of a namespace; "": of every one. Raises ExportError."""
    try:
        async with KubeApi(await load_access(kubeconfig)) as api:
            pools = [each async for each in api.list_pages(POOL, namespace=namespace)]
            tenants = [each async for each in api.list_pages(TENANT, namespace=namespace)]
    except AccessError as error:
        raise ExportError(f"no way to the cluster: {error}; give --kubeconfig, or files with -f") from error
    except ApiError as error:
        raise ExportError(f"the cluster says: {error}") from error
    for objects, kind in ((pools, POOL), (tenants, TENANT)):
        for obj in objects:  # a list does not say what its items are
            obj |= {"apiVersion": kind.api_version, "kind": kind.kind}
    return pools, tenants
