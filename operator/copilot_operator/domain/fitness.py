"""Whether cluster and CRDs are what this version of the operator was made for."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from copilot_operator.domain.manifest import Manifest

OLDEST: Final = (1, 30)  # of Kubernetes: sidecars, and a preStop hook that sleeps
NAMED: Final = 5  # of the fields that differ, so many are named


def too_old(git_version: str) -> str:
    """What is wrong with the API server's version (``v1.29.4``), "" if nothing, or if it can't be read."""
    found = tuple(int(number) for number in re.findall(r"\d+", git_version)[:2])
    if len(found) < 2 or found >= OLDEST:
        return ""
    needed = ".".join(map(str, OLDEST))
    return f"Kubernetes {git_version} is too old: servers need sidecars; upgrade the cluster to {needed} or later"


@dataclass(frozen=True)
class Difference:
    """A live CRD beside this version's. ``lacks``: fields that only ours has; ``more``: that only the live one has."""

    name: str
    lacks: tuple[str, ...] = ()
    more: tuple[str, ...] = ()

    @property
    def older(self) -> str:
        """Why the operator can't work with it, "" if it can: what it writes would be refused."""
        if not self.lacks:
            return ""
        return f"CRD {self.name} is older than this operator, it lacks {_some(self.lacks)}; apply crds/ of this version"

    @property
    def newer(self) -> str:
        """What people may write there that nothing comes of, "" if there is nothing."""
        if not self.more:
            return ""
        return (
            f"CRD {self.name} is newer than this operator, which does nothing for {_some(self.more)}; "
            f"upgrade the operator, or apply crds/ of its version"
        )


def difference(live: Manifest, ours: Manifest) -> Difference:
    """Between two CustomResourceDefinitions of one name, by the fields of our only version."""
    wanted = ours["spec"]["versions"][0]
    served = {each["name"]: each for each in live["spec"]["versions"] if each.get("served")}
    name = str(ours["metadata"]["name"])
    if wanted["name"] not in served:
        return Difference(name, lacks=(f"version {wanted['name']}",))
    known, there = (set(_paths(each["schema"]["openAPIV3Schema"])) for each in (wanted, served[wanted["name"]]))
    return Difference(name, tuple(sorted(known - there)), tuple(sorted(there - known)))


def as_published(schemas: Manifest, ours: Manifest) -> Manifest | None:
    """The live CRD of ours by what an API server publishes of its group's schemas; None if it publishes none of it."""
    group, version, kind = ours["spec"]["group"], ours["spec"]["versions"][0]["name"], ours["spec"]["names"]["kind"]
    wanted = {"group": group, "version": version, "kind": kind}
    found = (each for each in schemas.values() if wanted in each.get("x-kubernetes-group-version-kind", ()))
    if (schema := next(found, None)) is None:
        return None
    served = {"name": version, "served": True, "schema": {"openAPIV3Schema": schema}}
    return {"metadata": ours["metadata"], "spec": {"versions": [served]}}


def _paths(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, part in schema.get("properties", {}).items():
        yield f"{prefix}{name}"
        yield from _paths(part, f"{prefix}{name}.")
    for key in ("items", "additionalProperties"):
        if isinstance(part := schema.get(key), dict):
            yield from _paths(part, f"{prefix.removesuffix('.')}[].")


def _some(paths: tuple[str, ...]) -> str:
    """The outermost of them: a field that is missing has no fields."""
    outer = [path for path in paths if not any(path.startswith((f"{other}.", f"{other}[")) for other in paths)]
    more = len(outer) - NAMED
    return ", ".join(outer[:NAMED]) + (f" and {more} more" if more > 0 else "")
