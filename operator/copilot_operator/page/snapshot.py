"""The page's document, put together from memory without holding up the operator.

A row is made anew when its object has another version; it is kept as JSON, so that a document of thousands of rows is
a concatenation. Work is done in slices between which the event loop serves others, by one reader for all viewers, and
only while somebody looks.
"""

import asyncio
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from copilot_operator.api.conditions import timestamp
from copilot_operator.domain.kinds import DEPLOYMENT, POD, POOL, TENANT, Kind
from copilot_operator.domain.manifest import Manifest, annotations_of, labels_of
from copilot_operator.domain.naming import NAME_LABEL, SERVER_NAME, TENANT_ANNOTATION, TENANT_LABEL, slug
from copilot_operator.domain.seats import pool_of_seat
from copilot_operator.page.rows import Row, pool_row, server_row, tenant_row

SLICE: Final = 25  # rows; a millisecond or two
FRESH_S: Final = 1.0  # viewers of the same second see the same

Key = tuple[str, str]  # namespace, name


class Stored(Protocol):
    """An object as the cache keeps it."""

    @property
    def uid(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def manifest(self) -> Manifest: ...


class Objects(Protocol):
    """The part of the cache that the page reads."""

    def keys(self, kind: Kind) -> list[Key]: ...
    def record(self, kind: Kind, namespace: str, name: str) -> Stored | None: ...
    def records(self, kind: Kind, namespace: str, label: str, value: str) -> Iterator[tuple[str, Stored]]: ...


@dataclass(frozen=True)
class Document:
    """``body`` is JSON, ``packed`` the same as gzip; ``tag`` changes with the content, whatever the time is."""

    body: bytes
    packed: bytes
    tag: str


@dataclass
class Snapshots:
    """``replica`` tells who we are and who leads; ``seat_status`` what was found of the server of a seat, and ``live``
    what was heard of any (both by namespace and name): empty and None where this replica does not lead."""

    objects: Objects
    replica: Callable[[], Mapping[str, Any]]
    events: Callable[[], list[dict[str, str]]]
    seat_status: Callable[[str, str], Mapping[str, Any]]
    live: Callable[[str, str], Row | None]
    _rows: dict[tuple[Kind, Key], tuple[object, bytes]] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _latest: Document | None = None
    _made_at: float = float("-inf")

    async def document(self) -> Document:
        """A second old at most."""
        clock = asyncio.get_running_loop().time
        async with self._lock:
            if self._latest is None or clock() - self._made_at > FRESH_S:
                self._latest = await self._make()
                self._made_at = clock()
            return self._latest

    async def _make(self) -> Document:
        kept: dict[tuple[Kind, Key], tuple[object, bytes]] = {}
        parts = [await self._part(kind, name, kept) for kind, name in PARTS.items()]
        parts.append(await self._heard([key for (kind, key), (_, row) in kept.items() if kind == DEPLOYMENT and row]))
        self._rows = kept  # rows of what is gone are forgotten with it
        rest = {"events": self.events(), "replica": dict(self.replica())}
        parts += [_member(name, _json(value)) for name, value in rest.items()]
        content = b",".join(parts)
        now = _member("time", _json(timestamp(datetime.now(UTC))))
        body = b"{" + now + b"," + content + b"}"
        packed, tag = await asyncio.to_thread(_packed, body, content)
        return Document(body, packed, tag)

    async def _part(self, kind: Kind, name: str, kept: dict[tuple[Kind, Key], tuple[object, bytes]]) -> bytes:
        rows: list[bytes] = []
        for place, key in enumerate(sorted(self.objects.keys(kind))):
            if place % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            record = self.objects.record(kind, *key)
            if record is None:
                continue  # gone since the keys were read
            found = self._row(kind, key, record)
            if found[1]:
                rows.append(found[1])
            kept[kind, key] = found
        return _member(name, b"[" + b",".join(rows) + b"]")

    async def _heard(self, servers: list[Key]) -> bytes:
        found: list[bytes] = []
        for place, key in enumerate(servers):
            if place % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            if (told := self.live(*key)) is not None:
                found.append(_member("/".join(key), _json(told)))
        return _member("live", b"{" + b",".join(found) + b"}")

    def _row(self, kind: Kind, key: Key, record: Stored) -> tuple[object, bytes]:
        before = self._rows.get((kind, key))
        if kind != DEPLOYMENT:
            mark: object = (record.uid, record.version)
            if before and before[0] == mark:
                return before
            return mark, _json(pool_row(record.manifest) if kind == POOL else tenant_row(record.manifest))
        return self._server(key, record, before)

    def _server(self, key: Key, record: Stored, before: tuple[object, bytes] | None) -> tuple[object, bytes]:
        """Of its pods and its tenant, too; gateways are Deployments as well, and have no row."""
        mark: Any = before[0] if before else None
        owner = mark[0] if mark and mark[1:3] == (record.uid, record.version) else None
        manifest = None
        if owner is None:
            manifest = record.manifest
            is_server = labels_of(manifest).get(NAME_LABEL) == SERVER_NAME
            owner = annotations_of(manifest).get(TENANT_ANNOTATION, "") if is_server else ""
        pods: dict[str, Stored] = {}
        if owner:
            pods = dict(self.objects.records(POD, key[0], TENANT_LABEL, slug(owner)))
        status = self.seat_status(key[0], owner) if owner and pool_of_seat(owner) else {}
        tenant = None if status else self.objects.record(TENANT, key[0], owner)
        seen = tuple((pod.uid, pod.version) for pod in pods.values())
        now = (owner, record.uid, record.version, seen, tenant.version if tenant else _json(status))
        if before and before[0] == now:
            return before
        if not owner:
            return now, b""
        if tenant:
            status = tenant.manifest.get("status") or {}
        row = server_row(manifest or record.manifest, (pod.manifest for pod in pods.values()), status)
        return now, _json(row)


PARTS: Final = {POOL: "pools", DEPLOYMENT: "servers", TENANT: "tenants"}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _member(name: str, value: bytes) -> bytes:
    return _json(name) + b":" + value


def _packed(body: bytes, content: bytes) -> tuple[bytes, str]:
    return gzip.compress(body, 1), hashlib.sha256(content).hexdigest()[:32]
