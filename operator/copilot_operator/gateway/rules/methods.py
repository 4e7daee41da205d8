"""What the gateway does with each method of a CLI: the pinned table ``methods.json``, default deny.

``python -m copilot_operator.gateway.rules.methods --schema api.schema.json`` lists how the methods of a CLI differ from
the table, and fails if they do; the CLI's package ships that file as ``schemas/api.schema.json``. With ``--pin`` the
table takes over the shapes of that schema, and new methods as refused: what they deserve is for a person to say.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from copilot_operator.gateway.rules.schema import TO_CLIENT, TO_SERVER, parameters, shapes

TABLE: Final = Path(__file__).with_name("methods.json")


class Isolation(StrEnum):
    """How tenants are kept apart (``spec.isolation`` of the pool)."""

    SHARED = "Shared"
    DEDICATED = "Dedicated"


class Verdict(StrEnum):
    """What becomes of a request."""

    ANSWER = "answer"  # by the gateway itself
    FORWARD = "forward"
    REFUSE = "refuse"  # -32601 "Unhandled method X", as by a CLI that does not know it


class Scope(StrEnum):
    """Whether a method is about one session (``params.sessionId``, and it goes where that is) or about a server."""

    SERVER = "server"
    SESSION = "session"


class Need(StrEnum):
    """The permission of the pool's policy without which a method is refused."""

    HOST_TOOLS = "hostTools"
    MCP_SERVERS = "mcpServers"


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One method in the table. ``schema``: the shape of its parameters and result; None: not in the CLI's schema."""

    shared: Verdict = Verdict.REFUSE
    dedicated: Verdict = Verdict.REFUSE
    scope: Scope = Scope.SERVER
    needs: Need | None = None
    turn: bool = False
    ids: tuple[str, ...] = ()
    result_ids: tuple[str, ...] = ()
    result_events: str | None = None
    result_text: str | None = None
    hidden: tuple[str, ...] = ()
    fields: tuple[str, ...] | None = None
    schema: str | None = None


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``methods.json``. ``reverse``: requests of the server, and whether a client gets them."""

    cli: str  # version
    methods: dict[str, Row]
    reverse: dict[str, Row]


@dataclass(frozen=True)
class Rule:
    """What is done with one method.

    Session ids stand at ``ids`` in the parameters and at ``result_ids`` in the result. A place is a path: ``a.b``
    members, ``[]`` each item, ``{}`` the keys of a map; ``prefix`` of sessions.findByPrefix is the beginning of one.
    ``result_events`` is the member that holds session events, ``result_text`` one that holds an error message.
    ``hidden`` members of the result are kept from clients of Shared pools.
    """

    method: str
    verdict: Verdict
    scope: Scope = Scope.SERVER
    needs: Need | None = None
    counts_as_turn: bool = False  # asks a model; session.idle ends it for session.send and .sendMessages only
    ids: tuple[str, ...] = ()
    result_ids: tuple[str, ...] = ()
    result_events: str | None = None
    result_text: str | None = None
    hidden: tuple[str, ...] = ()
    fields: tuple[str, ...] | None = None  # the parameters that are known; None: judged by a function of ``fields``

    @cached_property
    def is_of_session(self) -> bool:
        """Whether it goes where the session is that it names."""
        return self.scope is Scope.SESSION

    @cached_property
    def names_session_only(self) -> bool:
        """Whether the session's own id is the only one in its parameters."""
        return self.ids == ("sessionId",)

    @cached_property
    def keeps_result(self) -> bool:
        """Whether its result reaches the client as the server wrote it."""
        return not (self.result_ids or self.result_events or self.result_text or self.hidden)


@cache
def table() -> Table:
    """The pinned table."""
    return msgspec.json.decode(TABLE.read_bytes(), type=Table)


def rule(method: str, isolation: str) -> Rule:
    """The rule for a method; one that is not in the table is refused."""
    return rules(isolation).get(method) or Rule(method, Verdict.REFUSE)


@cache
def rules(isolation: str) -> Mapping[str, Rule]:
    """The rules of all methods in the table; others are refused."""
    known = Isolation(isolation)
    return {method: _rule(method, row, known) for method, row in table().methods.items()}


@cache
def served(isolation: str) -> Mapping[str, Rule]:
    """The rules of all methods that are not refused."""
    return {method: each for method, each in rules(isolation).items() if each.verdict is not Verdict.REFUSE}


def _rule(method: str, row: Row, isolation: Isolation) -> Rule:
    return Rule(
        method,
        verdict=row.shared if isolation is Isolation.SHARED else row.dedicated,
        scope=row.scope,
        needs=row.needs,
        counts_as_turn=row.turn,
        ids=row.ids,
        result_ids=row.result_ids,
        result_events=row.result_events,
        result_text=row.result_text,
        hidden=row.hidden,
        fields=row.fields,
    )


def reaches_client(method: str, isolation: str) -> bool:
    """Whether a request of the server goes on to a client; the gateway answers the others itself, with -32601."""
    row = table().reverse.get(method, Row())
    return (row.shared if Isolation(isolation) is Isolation.SHARED else row.dedicated) is Verdict.FORWARD


def unhandled(method: str) -> tuple[int, str]:
    """Code and message of the answer to a refused method."""
    return -32601, f"Unhandled method {method}"


# The schema of a CLI against the table


@dataclass(frozen=True, slots=True)
class Difference:
    """Methods of a schema that are not pinned, pinned ones it lacks, and those of another shape; each sorted."""

    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.gone or self.changed)

    def lines(self) -> list[str]:
        """For people, one method a line."""
        kinds = (("new", self.new), ("gone", self.gone), ("changed", self.changed))
        return [f"{kind} {method}" for kind, methods in kinds for method in methods]


def difference(schema: Mapping[str, Any], pinned: Table) -> Difference:
    """How the methods of a schema, both directions, differ from the pinned ones."""
    live = shapes(schema, TO_SERVER) | shapes(schema, TO_CLIENT)
    rows = pinned.methods | pinned.reverse
    known = {method: row.schema for method, row in rows.items() if row.schema is not None}
    return Difference(
        new=tuple(sorted(live.keys() - known.keys())),
        gone=tuple(sorted(known.keys() - live.keys())),
        changed=tuple(sorted(method for method in live.keys() & known.keys() if live[method] != known[method])),
    )


def pin(schema: Mapping[str, Any], pinned: Table, cli: str) -> Table:
    """The table with the shapes of a schema: verdicts stay, new methods are refused, gone ones go."""
    there, back, names = shapes(schema, TO_SERVER), shapes(schema, TO_CLIENT), parameters(schema)
    by_hand = {method: row for method, row in pinned.methods.items() if row.schema is None and method not in there}
    back_by_hand = {method: row for method, row in pinned.reverse.items() if row.schema is None and method not in back}
    methods = by_hand | {
        method: _pinned(pinned.methods.get(method, Row()), shape, names[method]) for method, shape in there.items()
    }
    reverse = back_by_hand | {
        method: msgspec.structs.replace(pinned.reverse.get(method, Row()), schema=shape)
        for method, shape in back.items()
    }
    return Table(cli, dict(sorted(methods.items())), dict(sorted(reverse.items())))


def _pinned(row: Row, shape: str, names: tuple[str, ...]) -> Row:
    if Verdict.FORWARD not in (row.shared, row.dedicated):
        return msgspec.structs.replace(row, schema=shape)
    return msgspec.structs.replace(row, schema=shape, fields=names)


def written(pinned: Table) -> bytes:
    """The table as the file keeps it: a line for each method, so that a change is one line in review."""
    parts = [f' "cli": {_text(pinned.cli)}', _lines("methods", pinned.methods), _lines("reverse", pinned.reverse)]
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def _lines(part: str, rows: Mapping[str, Row]) -> str:
    lines = ",\n".join(f"  {_text(method)}: {_text(row)}" for method, row in sorted(rows.items()))
    return f' "{part}": {{\n{lines}\n }}'


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def main(argv: list[str] | None = None) -> int:
    """The command; exit code 1 if the schema and the table differ."""
    parser = argparse.ArgumentParser(
        prog="copilot_operator.gateway.rules.methods", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--schema", type=Path, required=True, help="schemas/api.schema.json of a CLI's package")
    parser.add_argument("--pin", metavar="VERSION", help="write the table anew for this version of the CLI")
    options = parser.parse_args(argv)
    schema = msgspec.json.decode(options.schema.read_bytes())
    found = difference(schema, table())
    sys.stdout.write("".join(f"{line}\n" for line in found.lines()))
    if options.pin:
        TABLE.write_bytes(written(pin(schema, table(), options.pin)))
        return 0
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
