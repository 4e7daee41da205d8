"""``python -m tests.support.advisories PATH [LOCK]``: known vulnerabilities of what the lock pins, without an index.

PATH is a directory of OSV records in JSON (https://ossf.github.io/osv-schema/), at any depth, or a zip of them, as OSV
publishes one for PyPI; pip-audit can't read them. Exit code 1: something was found.
"""

import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from tests.cluster.image_wheels import LOCK

Record = Mapping[str, Any]
ECOSYSTEM: Final = "PyPI"
PIN: Final = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)
FIRST: Final = Version("0")


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 2
    path, lock = Path(arguments[0]), Path(arguments[1]) if len(arguments) == 2 else LOCK
    pinned, read, found = dict(PIN.findall(lock.read_text())), 0, list[str]()
    for record in records(path):
        read += 1
        found += sorted(named(record, pinned))
    if not read:
        print(f"{path}: no advisory (*.json, at any depth, or in a zip)", file=sys.stderr)
        return 2
    print("\n".join(found) if found else f"{len(pinned)} pins, {read} advisories: nothing is known against them")
    return 1 if found else 0


def records(path: Path) -> Iterator[Record]:
    """Raises OSError and ValueError for what can't be read: half a database is no answer."""
    if path.is_dir():
        for file in sorted(path.rglob("*.json")):
            yield json.loads(file.read_bytes())
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                yield json.loads(archive.read(name))


def named(record: Record, pinned: Mapping[str, str]) -> Iterator[str]:
    """A line for each pin that the record is about."""
    if record.get("withdrawn"):
        return
    for affected in record.get("affected") or ():
        package = affected.get("package") or {}
        name = canonicalize_name(str(package.get("name", "")))
        if package.get("ecosystem") == ECOSYSTEM and name in pinned and is_affected(affected, pinned[name]):
            aliases = ", ".join(record.get("aliases") or ())
            text = " ".join(str(record.get("summary") or record.get("details") or "").split())[:100]
            yield f"{name} {pinned[name]}: {record['id']}{f' ({aliases})' if aliases else ''} {text}".rstrip()


def is_affected(affected: Record, version: str) -> bool:
    """As the schema says it: listed, or within a range of versions."""
    found = Version(version)
    listed = (_version(each) for each in affected.get("versions") or ())
    ranges = (each["events"] for each in affected.get("ranges") or () if each.get("type") == "ECOSYSTEM")
    return found in listed or any(_within(events, found) for events in ranges)


def _within(events: list[Mapping[str, str]], found: Version) -> bool:
    """The last event up to the version decides. Fixed is the first that is well, last_affected the last that is not.

    What is no version of Python's is taken for the worse: as introduced from the first on, and as never fixed.
    """
    known = [
        (at, kind)
        for event in events
        for kind, text in event.items()
        if (at := _version(text) or (FIRST if kind == "introduced" else None)) is not None
    ]
    inside = False
    for at, kind in sorted(known, key=lambda each: each[0]):
        if kind == "introduced" and at <= found:
            inside = True
        elif (kind == "fixed" and at <= found) or (kind == "last_affected" and at < found):
            inside = False
    return inside


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
