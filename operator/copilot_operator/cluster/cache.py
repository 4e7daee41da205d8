"""What the watches have told us: one compact record per object, and indexes to find an object's owner and its users.

A record keeps the object as JSON bytes (a parsed Deployment takes ten times the memory) without what nobody reads.
Of foreign Secrets only digests are kept; of our server tokens the values, since pings need them.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from copilot_operator.domain.kinds import DEPLOYMENT, NODE, POD, POOL, REVISION, SECRET, TENANT, Kind
from copilot_operator.domain.manifest import Manifest, annotations_of, controller_uid, labels_of
from copilot_operator.domain.naming import POOL_LABEL, TENANT_ANNOTATION, TENANT_LABEL
from copilot_operator.domain.seats import is_seat
from copilot_operator.domain.secrets import as_observed

Key = tuple[str, str]  # namespace, name
Index = tuple[Kind, str, str, str]  # kind, namespace, label, value
MOST_GONE = 4096  # deletions during one list, and not for ever
FOR_GOOD = ""  # in the place of a version: none is newer
DROPPED = ("managedFields", "selfLink")


@dataclass(frozen=True, slots=True)
class Record:
    """One object: its version and controller at hand, the rest as JSON."""

    uid: str
    version: str
    controller: str | None
    seen_at: float  # monotonic seconds of the watch event or list that told us
    body: bytes
    indexes: "tuple[Index, ...]" = ()  # under what it is found

    @property
    def manifest(self) -> Manifest:
        manifest: Manifest = json.loads(self.body)
        return manifest


def transform(kind: Kind, manifest: Manifest) -> Manifest:
    """What is kept of an object; a test names what is dropped and why nobody misses it."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key not in DROPPED}
    kept = manifest | {"metadata": metadata, "apiVersion": kind.api_version, "kind": kind.kind}
    if kind == SECRET and POOL_LABEL in labels_of(manifest) and TENANT_LABEL not in labels_of(manifest):
        return kept  # of a pool: tokens of servers, and what its gateway is told
    if kind == SECRET:
        return as_observed(kept)
    if kind == POD:
        return kept | {"spec": {"nodeName": (manifest.get("spec") or {}).get("nodeName")}}
    if kind == NODE:
        return _node(kept)
    return kept


def _node(kept: Manifest) -> Manifest:
    """Whether it is being emptied, and nothing of its size, its images and its addresses."""
    identity = {key: kept["metadata"].get(key) for key in ("name", "uid", "resourceVersion")}
    spec = kept.get("spec") or {}
    found = {key: spec[key] for key in ("unschedulable", "taints") if spec.get(key)}
    return {"apiVersion": kept["apiVersion"], "kind": kept["kind"], "metadata": identity, "spec": found}


class Cache:
    """Objects by kind and key. Not thread-safe; every method returns at once."""

    def __init__(self) -> None:
        self._records: dict[Kind, dict[Key, Record]] = {}
        self._by_label: dict[Index, set[Key]] = {}
        self._gone: dict[str, str] = {}  # of the latest that left: UID and version or FOR_GOOD, oldest first

    def put(self, kind: Kind, manifest: Manifest, seen_at: float) -> bool:
        """Record an object, unless it is older than what we have, or than its deletion. True if it is news.

        A page of a list, or an answer, may be older than the watch's news of a deletion. What only lost its label, and
        so left the watch, comes back with a newer version.
        """
        metadata = manifest["metadata"]
        left_at = self._gone.get(metadata["uid"])
        if left_at == FOR_GOOD or (left_at and not _newer(metadata.get("resourceVersion", "0"), left_at)):
            return False
        key = (metadata.get("namespace", ""), metadata["name"])
        records = self._records.setdefault(kind, {})
        before = records.get(key)
        version = metadata.get("resourceVersion", "0")
        if before and before.uid == metadata["uid"] and not _newer(version, before.version):
            records[key] = replace(before, seen_at=seen_at)
            return False
        kept = transform(kind, manifest)
        body = json.dumps(kept, separators=(",", ":")).encode()
        indexes = tuple(_indexes(kind, kept))
        if before and before.indexes != indexes:
            self._unindex(key, before)
        records[key] = Record(metadata["uid"], version, controller_uid(kept), seen_at, body, indexes)
        for index in indexes:
            self._by_label.setdefault(index, set()).add(key)
        return True

    def drop(self, kind: Kind, manifest: Manifest, *, for_good: bool = False) -> None:
        """Forget an object that left the watch (this very one, not a namesake that came since).

        ``for_good``: the API server was asked, and it is gone. News of its last changes may still be under way.
        """
        metadata = manifest["metadata"]
        gone = for_good or self._gone.get(metadata["uid"]) == FOR_GOOD
        self._gone[metadata["uid"]] = FOR_GOOD if gone else metadata.get("resourceVersion", "0")
        if len(self._gone) > MOST_GONE:
            del self._gone[next(iter(self._gone))]
        key = (metadata.get("namespace", ""), metadata["name"])
        record = self._records.get(kind, {}).get(key)
        if record and record.uid == metadata["uid"]:
            self._forget(kind, key)

    def replace(self, kind: Kind, listed: Iterable[Key], started_at: float) -> list[Manifest]:
        """After a list that began at ``started_at``: drop what it did not hold and nobody has seen since (ghosts)."""
        present = set(listed)
        records = self._records.get(kind, {})
        ghosts = [key for key, record in records.items() if key not in present and record.seen_at < started_at]
        gone = [records[key].manifest for key in ghosts]
        for key in ghosts:
            self._forget(kind, key)
        return gone

    def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        record = self._records.get(kind, {}).get((namespace, name))
        return record.manifest if record else None

    def record(self, kind: Kind, namespace: str, name: str) -> Record | None:
        """For who remembers the rest by its version."""
        return self._records.get(kind, {}).get((namespace, name))

    def version(self, kind: Kind, namespace: str, name: str) -> str | None:
        record = self._records.get(kind, {}).get((namespace, name))
        return record.version if record else None

    def keys(self, kind: Kind) -> list[Key]:
        return list(self._records.get(kind, {}))

    def labelled(self, kind: Kind, namespace: str, label: str, value: str) -> Iterator[Manifest]:
        """Objects of a namespace found by one of the indexed labels, in the order of their names."""
        for _, record in self.records(kind, namespace, label, value):
            yield record.manifest

    def records(self, kind: Kind, namespace: str, label: str, value: str) -> Iterator[tuple[str, Record]]:
        """The same, as name and record: for who needs no more than the version, or remembers the rest by it."""
        for key in sorted(self._by_label.get((kind, namespace, label, value), ())):
            yield key[1], self._records[kind][key]

    def uid(self, kind: Kind, namespace: str, name: str) -> str | None:
        record = self._records.get(kind, {}).get((namespace, name))
        return record.uid if record else None

    def tenants_of(self, namespace: str, pool: str) -> list[str]:
        """Names of the tenants whose ``poolRef`` is ``pool``, sorted."""
        return sorted(name for _, name in self._by_label.get((TENANT, namespace, "poolRef", pool), ()))

    def users_of(self, kind: Kind, namespace: str, secret: str) -> list[str]:
        """Names of the pools or tenants that take a credential from ``secret``, sorted."""
        return sorted(name for _, name in self._by_label.get((kind, namespace, "secret", secret), ()))

    def tenants_on(self, node: str) -> list[Key]:
        """Namespaces and names of the tenants that have a pod on a node, sorted."""
        found = (self._records[POD][key] for key in self._by_label.get((POD, "", "node", node), ()))
        owners = ((record.manifest["metadata"]["namespace"], annotations_of(record.manifest)) for record in found)
        return sorted({(where, said[TENANT_ANNOTATION]) for where, said in owners if TENANT_ANNOTATION in said})

    def _forget(self, kind: Kind, key: Key) -> None:
        record = self._records[kind].pop(key)
        self._unindex(key, record)

    def _unindex(self, key: Key, record: Record) -> None:
        for index in record.indexes:
            if keys := self._by_label.get(index):
                keys.discard(key)
                if not keys:
                    del self._by_label[index]


def _indexes(kind: Kind, manifest: Manifest) -> Iterator[Index]:
    namespace = manifest["metadata"].get("namespace", "")
    labels = labels_of(manifest)
    if kind in (POD, SECRET) and (tenant := labels.get(TENANT_LABEL)):
        yield kind, namespace, TENANT_LABEL, tenant
    elif (kind in (SECRET, REVISION, POD) or _is_seats(kind, manifest)) and (pool := labels.get(POOL_LABEL)):
        yield kind, namespace, POOL_LABEL, pool
    if kind == POD and (node := manifest["spec"]["nodeName"]):
        yield kind, "", "node", node
    if kind in (POOL, TENANT):
        spec = manifest.get("spec") or {}
        if pool := (spec.get("poolRef") or {}).get("name"):
            yield kind, namespace, "poolRef", pool
        if secret := secret_of(spec):
            yield kind, namespace, "secret", secret


def _is_seats(kind: Kind, manifest: Manifest) -> bool:
    """Of a Shared pool's servers; the many of Dedicated pools are found by their tenants."""
    return kind == DEPLOYMENT and is_seat(annotations_of(manifest).get(TENANT_ANNOTATION, ""))


def secret_of(spec: Manifest) -> str | None:
    """Name of the Secret that a pool's or tenant's ``auth`` refers to."""
    auth = spec.get("auth") or {}
    git_hub = auth.get("gitHub") or {}
    token = git_hub.get("tokenSecretRef") or (git_hub.get("app") or {}).get("privateKeySecretRef") or {}
    token = token or (git_hub.get("userToken") or {}).get("secretRef") or {}
    key = (auth.get("provider") or {}).get("apiKeySecretRef") or {}
    return token.get("name") or key.get("name")


def _newer(version: str, than: str) -> bool:
    """resourceVersions of one resource can be compared as numbers (KEP-5504, Kubernetes 1.35)."""
    try:
        return int(version) > int(than)
    except ValueError:
        return version != than
