"""Rows for people. On a terminal rich draws them; elsewhere, and with NO_COLOR, they are columns as kubectl's."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TextIO

from copilot_operator.plugin.times import age, moment, until

GAP: Final = "   "
WRAPPED: Final = frozenset({"FOUND", "SUMMARY"})  # columns of text
NARROWEST: Final = 40
STYLES: Final = {
    "Ready": "green", "True": "green", "OK": "green", "Failed": "bold red", "FAIL": "bold red", "Error": "bold red",
    "False": "red", "WARN": "yellow", "Warning": "yellow", "Draining": "yellow", "Suspended": "dim", "Info": "cyan",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A title ("" for none), names of columns, and rows of text."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def status_tables(
    status: dict[str, Any], now: datetime, *, wide: bool = False, everywhere: bool = False
) -> list[Table]:
    """Pools and tenants at a glance; ``everywhere`` names their namespaces."""
    place: tuple[str, ...] = ("NAMESPACE",) if everywhere else ()
    pool_columns: tuple[str, ...] = (
        "POOL",
        "ISOLATION",
        "READY",
        "REASON",
        "SERVERS",
        "TENANTS",
        "GATEWAY",
        "DRAINS",
        "UPDATE",
        "AGE",
    )
    tenant_columns: tuple[str, ...] = ("TENANT", "PHASE", "READY", "REASON", "POOL", "DRAIN", "AGE")
    if wide:
        pool_columns += ("IMAGE",)
        tenant_columns += ("SERVER", "HOST")

    def at(each: dict[str, Any]) -> tuple[str, ...]:
        return (each["namespace"],) if everywhere else ()

    pools = [
        at(each)
        + (each["name"], each["isolation"], _ready(each), each["reason"], _of(each["servers"]), _text(each["tenants"]),
           _of(each["gateway"]), _drains(each["drains"], now), each["update"]["reason"], age(each["created"], now))
        + ((each["image"],) if wide else ())
        for each in status["pools"]
    ]  # fmt: skip
    tenants = [
        at(each)
        + (each["name"], each["phase"], _ready(each), each["reason"], each["pool"], _drain(each["drain"], now),
           age(each["created"], now))
        + ((each["server"] or ",".join(each["homes"]), _host(each)) if wide else ())
        for each in status["tenants"]
    ]  # fmt: skip
    return [Table("", place + pool_columns, pools), Table("", place + tenant_columns, tenants)]


def problem_lines(status: dict[str, Any], *, everywhere: bool = False) -> list[tuple[str, str]]:
    """What is wrong and what to do: (severity, sentence)."""
    found = []
    for kind, objects in (("pool", status["pools"]), ("tenant", status["tenants"])):
        for each in objects:
            name = f"{kind} {each['namespace']}/{each['name']}" if everywhere else f"{kind} {each['name']}"
            for problem in each["problems"]:
                if not problem["source"].startswith("pool "):
                    hint = f"\n    → {problem['hint']}" if problem.get("hint") else ""
                    found.append((problem["severity"], f"{name}: {problem['reason']}: {problem['message']}{hint}"))
    return found


def show(tables: Sequence[Table], out: TextIO | None = None) -> None:
    """Print them, with an empty line between two."""
    out = out or sys.stdout
    shown = [table for table in tables if table.rows]
    for number, table in enumerate(shown):
        if number:
            print(file=out)
        if table.title:
            say(table.title, style="bold", out=out)
        _draw(table, out)


def say(text: str, *, style: str = "", out: TextIO | None = None) -> None:
    """A line, with a style where there is a terminal."""
    out = out or sys.stdout
    if style and colourful(out):
        from rich.console import Console
        from rich.text import Text

        Console(file=out, soft_wrap=True).print(Text(text, style=STYLES.get(style, style)))
    else:
        print(text, file=out, flush=True)


def colourful(out: TextIO) -> bool:
    """Whether what is printed may have colours (https://no-color.org)."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def plain(table: Table) -> list[str]:
    """Columns, each as wide as its widest word."""
    sizes = widths(table)
    return [GAP.join(cell.ljust(size) for cell, size in zip(row, sizes, strict=True)).rstrip() for row in _cells(table)]


def widths(table: Table) -> list[int]:
    """What each column needs."""
    return [max(len(row[place]) for row in _cells(table)) for place in range(len(table.columns))]


def _cells(table: Table) -> list[Sequence[str]]:
    return [table.columns, *[[cell or "-" for cell in row] for row in table.rows]]


def _draw(table: Table, out: TextIO) -> None:
    if not colourful(out):
        print("\n".join(plain(table)), file=out)
        return
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    sizes = [
        min(size, NARROWEST) if name in WRAPPED else size
        for name, size in zip(table.columns, widths(table), strict=True)
    ]
    console = Console(file=out)
    console.width = max(
        console.width, sum(sizes) + len(GAP) * len(sizes)
    )  # names are not cut, however small the terminal
    drawn = Drawn(box=None, pad_edge=False, header_style="bold", padding=(0, len(GAP), 0, 0))
    for name in table.columns:
        drawn.add_column(name, no_wrap=name not in WRAPPED)
    for row in table.rows:
        drawn.add_row(*(Text(cell or "-", style=STYLES.get(cell, "")) for cell in row))
    console.print(drawn)


def _of(count: dict[str, Any] | None) -> str:
    return f"{_text(count['ready'])}/{_text(count['desired'])}" if count else ""


def _text(value: Any) -> str:
    return "?" if value is None else str(value)


def _ready(each: dict[str, Any]) -> str:
    return f"{each['ready']},Paused" if each["paused"] else str(each["ready"])


def _host(each: dict[str, Any]) -> str:
    return f"{each['host']}:{each['port']}" if each["host"] else ""


def _drain(drain: dict[str, Any] | None, now: datetime) -> str:
    if not drain:
        return ""
    busy = "" if drain["busy"] is None else f", {drain['busy']} busy"
    return f"{drain['cause']}{busy}, {until(moment(drain['deadline']), now)}"


def _drains(drains: Sequence[dict[str, Any]], now: datetime) -> str:
    if len(drains) == 1:
        return _drain(drains[0], now)
    causes = sorted({each["cause"] for each in drains})
    return f"{len(drains)} ({','.join(causes)})" if drains else ""
