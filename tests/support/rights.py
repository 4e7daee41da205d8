"""Which rights an account has used, as the API server's audit log tells (audit.k8s.io/v1, level Metadata), beside those
that roles give it."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Right(NamedTuple):
    """What may be done, or was: ``resource`` with its subresource, if any (``pods/log``)."""

    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "")


@dataclass(frozen=True)
class Use:
    """Of a right, by an account (``system:serviceaccount:NAMESPACE:NAME``)."""

    account: str
    right: Right
    allowed: bool


def uses(log: Path, since: int = 0) -> Iterator[Use]:
    """All that accounts asked for, in the order of the log; twice where both was needed: a server-side apply of what is
    not there yet is a patch, and the API server looks whether it may be created."""
    with log.open("rb") as lines:
        lines.seek(since)
        for line in lines:
            if not line.endswith(b"\n"):
                return  # it is being written
            event = json.loads(line)
            what = event.get("objectRef")
            if not what or "resource" not in what:
                continue
            resource = "/".join(part for part in (what["resource"], what.get("subresource")) if part)
            right = Right(what.get("apiGroup", ""), resource, event["verb"])
            decision = (event.get("annotations") or {}).get("authorization.k8s.io/decision")
            account = event["user"]["username"]
            yield Use(account, right, decision == "allow")
            code = (event.get("responseStatus") or {}).get("code")
            if event["verb"] == "patch" and code == 201:
                yield Use(account, right._replace(verb="create"), True)


def used(log: Path, account: str, since: int = 0) -> tuple[set[Right], set[Right]]:
    """What an account was allowed, and what it was refused, after the log had the size ``since``."""
    found = [use for use in uses(log, since) if use.account == account]
    return {use.right for use in found if use.allowed}, {use.right for use in found if not use.allowed}


def granted(rules: Iterable[dict[str, Any]]) -> set[Right]:
    """The rights of some rules (rbac.authorization.k8s.io/v1), whatever names they are restricted to."""
    return {
        Right(group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def lines(rights: Iterable[Right]) -> Sequence[str]:
    return sorted(map(str, rights))
