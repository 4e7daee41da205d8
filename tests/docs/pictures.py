"""The pictures of docs/concepts.md: boxes and arrows as SVG, without a program to draw them."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, Literal

DIRECTORY: Final = "docs/pictures"
LINE_PX: Final = 17
Tone = Literal["people", "ours", "cli", "store", "plain"]
FILLS: Final[dict[Tone, tuple[str, str]]] = {
    "people": ("#fff4d6", "#b98900"),
    "ours": ("#dcecff", "#2f6fb5"),
    "cli": ("#e3f6e5", "#3a8f47"),
    "store": ("#efe8fb", "#7a55b8"),
    "plain": ("#f4f4f4", "#8a8a8a"),
}
STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#222;text-anchor:middle}.small{font-size:11px;fill:#555}"
    ".head{font-weight:600}line{stroke:#555;stroke-width:1.3;marker-end:url(#tip)}.dashed{stroke-dasharray:4 3}"
)
TIP: Final = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0,0L8,4L0,8z" fill="#555"/></marker></defs>'
)


@dataclass(frozen=True)
class Box:
    """A rectangle with lines of text in its middle. Pixels."""

    x: int
    y: int
    width: int
    height: int
    text: str
    tone: Tone = "plain"

    def draw(self) -> str:
        fill, edge = FILLS[self.tone]
        lines = self.text.split("\n") if self.text else []
        top = self.y + self.height / 2 - LINE_PX * (len(lines) - 1) / 2 + 4
        texts = "".join(
            f'<text x="{self.x + self.width / 2:g}" y="{top + LINE_PX * row:g}" '
            f'class="{"head" if row == 0 else "small"}">{escape(line)}</text>'
            for row, line in enumerate(lines)
        )
        return (
            f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="6" '
            f'fill="{fill}" stroke="{edge}"/>{texts}'
        )


@dataclass(frozen=True)
class Arrow:
    """From (x1, y1) to (x2, y2)."""

    x1: int
    y1: int
    x2: int
    y2: int
    dashed: bool = False

    def draw(self) -> str:
        kind = ' class="dashed"' if self.dashed else ""
        return f'<line x1="{self.x1}" y1="{self.y1}" x2="{self.x2}" y2="{self.y2}"{kind}/>'


@dataclass(frozen=True)
class Word:
    """Text around a point."""

    x: int
    y: int
    text: str
    head: bool = False

    def draw(self) -> str:
        return f'<text x="{self.x}" y="{self.y}" class="{"head" if self.head else "small"}">{escape(self.text)}</text>'


def picture(width: int, height: int, title: str, parts: Sequence[Box | Arrow | Word]) -> str:
    """An SVG document; ``title`` is what it shows, for those who don't see it."""
    lines = "\n".join(part.draw() for part in parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n{TIP}\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n{lines}\n</svg>\n'
    )


def parts() -> str:
    return picture(760, 330, "Applications reach their servers through a gateway; the operator looks after both", [
        Box(20, 150, 130, 60, "application\nthe SDK, unchanged", "people"),
        Box(240, 120, 130, 50, "gateway", "ours"), Box(240, 190, 130, 50, "gateway", "ours"),
        Box(470, 60, 150, 50, "CLI server\nand its agent", "cli"),
        Box(470, 150, 150, 50, "CLI server\nand its agent", "cli"),
        Box(470, 240, 150, 50, "CLI server\nsuspended: no pod", "plain"),
        Box(670, 60, 70, 50, "volume", "store"), Box(670, 150, 70, 50, "volume", "store"),
        Box(670, 240, 70, 50, "volume", "store"),
        Arrow(150, 175, 238, 148), Word(186, 140, "tenant's token"), Arrow(150, 190, 238, 213),
        Arrow(370, 140, 468, 88), Word(432, 142, "server's token"), Arrow(370, 152, 468, 172),
        Arrow(370, 220, 468, 262),
        Arrow(620, 85, 668, 85), Arrow(620, 175, 668, 175), Arrow(620, 265, 668, 265, dashed=True),
        Box(240, 20, 130, 50, "operator\ntwo, one acts", "ours"), Box(20, 20, 130, 50, "API server", "plain"),
        Arrow(240, 38, 152, 38), Arrow(150, 54, 238, 54), Word(195, 72, "pools, tenants"),
        Arrow(370, 40, 468, 70, dashed=True), Word(432, 36, "pings, drains"), Arrow(305, 70, 305, 118, dashed=True),
        Word(305, 270, "with the operator down,"), Word(305, 286, "conversations go on"),
    ])  # fmt: skip


def isolation() -> str:
    return picture(760, 300, "A server for each tenant, or a few for all, kept apart by the gateway", [
        Word(180, 26, "isolation: Dedicated", head=True), Word(570, 26, "isolation: Shared", head=True),
        *(part for row, name in enumerate(("alice", "bob", "carol")) for part in (
            Box(20, 50 + 80 * row, 70, 44, name, "people"), Arrow(90, 72 + 80 * row, 148, 72 + 80 * row),
            Box(150, 50 + 80 * row, 90, 44, "server", "cli"), Arrow(240, 72 + 80 * row, 278, 72 + 80 * row),
            Box(280, 50 + 80 * row, 70, 44, "volume", "store"),
            Box(400, 50 + 80 * row, 70, 44, name, "people"), Arrow(470, 72 + 80 * row, 508, 128 + 24 * row),
        )),
        Box(510, 110, 76, 84, "gateway\nnames\nof its own", "ours"),
        *(part for row in range(2) for part in (
            Arrow(586, 140 + 24 * row, 618, 112 + 80 * row), Box(620, 90 + 80 * row, 56, 44, "server", "cli"),
            Arrow(676, 112 + 80 * row, 690, 112 + 80 * row), Box(692, 90 + 80 * row, 60, 44, "volume", "store"),
        )),
        Word(180, 290, "own process, memory, volume, tools"), Word(570, 290, "many tenants a server, no tools there"),
    ])  # fmt: skip


def drain() -> str:
    bars: list[Box | Arrow | Word] = [
        Box(150, 60, 190, 34, "turn under way", "cli"), Box(440, 60, 110, 34, "stopped", "plain"),
        Box(550, 60, 90, 34, "starting", "plain"), Box(640, 60, 110, 34, "serving", "cli"),
        Box(340, 60, 100, 34, "closing", "ours"),
        Box(440, 120, 200, 34, "a new request is held", "people"), Box(640, 120, 110, 34, "answered", "cli"),
        Word(70, 82, "the server", head=True), Word(70, 142, "the gateway", head=True),
    ]  # fmt: skip
    moments = ((190, "cause"), (340, "turn ends"), (440, "stop"), (640, "resumed"))
    marks = [part for x, text in moments for part in (Arrow(x, 36, x, 58), Word(x, 30, text))]
    return picture(
        770, 180, "A server that is to stop waits for its turn; what comes meanwhile is held", [*bars, *marks]
    )


def files() -> dict[str, str]:
    return {f"{DIRECTORY}/{made.__name__}.svg": made() for made in (parts, isolation, drain)}
