"""A day as a picture: sessions and slots, servers, held requests, one above the other. SVG, the same at every call."""

from collections.abc import Callable, Sequence
from typing import Final

from tests.elastic.day import Day, Sample

WIDTH, LEFT, RIGHT, TOP, HEIGHT, GAP = 960, 56, 16, 34, 150, 44
EVERY_S: Final = 60  # a point a minute, the most of the minute
DAY_S: Final = 86_400
COLOURS: Final = ("#0969da", "#8250df", "#cf222e", "#57606a")

Line = tuple[str, Callable[[Sample], float]]


def picture(day: Day, title: str) -> str:
    minutes = _by_the_minute(day.samples)
    rows: list[tuple[str, list[Line]]] = [
        ("sessions", [("loaded", lambda s: s.loaded), ("slots", lambda s: s.running * day.slots)]),
        ("servers", [("running", lambda s: s.running), ("decided", lambda s: s.decided)]),
        ("held requests", [("held", lambda s: s.held)]),
    ]
    height = TOP + len(rows) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12" fill="#24292f">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{title}</text>',
    ]
    for number, (name, lines) in enumerate(rows):
        parts += _row(TOP + number * (HEIGHT + GAP) + 14, name, lines, minutes)
    return "\n".join([*parts, "</svg>", ""])


def _row(top: int, name: str, lines: Sequence[Line], minutes: Sequence[Sequence[Sample]]) -> list[str]:
    curves = [(label, [max(of(sample) for sample in each) for each in minutes]) for label, of in lines]
    most = max(1.0, *(value for _, values in curves for value in values))
    bottom, width = top + HEIGHT, WIDTH - LEFT - RIGHT
    found = [f'<text x="{LEFT - 8}" y="{top + 10}" text-anchor="end">{most:g}</text>']
    found.append(f'<text x="{LEFT - 8}" y="{bottom}" text-anchor="end">0</text>')
    for hour in range(0, 25, 3):
        x = LEFT + width * hour // 24
        found.append(f'<path d="M{x} {top}V{bottom}" stroke="#d0d7de" stroke-width="0.5"/>')
        found.append(f'<text x="{x}" y="{bottom + 14}" text-anchor="middle" fill="#57606a">{hour}:00</text>')
    for number, (label, values) in enumerate(curves):
        x = LEFT + 8 + 110 * number
        found.append(f'<text x="{x}" y="{top + 10}" fill="{COLOURS[number]}">{name}: {label}</text>'.replace(
            f"{name}: {name}", name
        ))  # fmt: skip
        steps = "".join(
            f"H{LEFT + width * place / len(values):.1f}V{bottom - (HEIGHT - 18) * value / most:.1f}"
            for place, value in enumerate(values)
            if place == 0 or value != values[place - 1]
        )
        path = f"M{LEFT} {bottom}{steps}H{LEFT + width}"
        found.append(f'<path d="{path}" fill="none" stroke="{COLOURS[number]}" stroke-width="1.2"/>')
    return found


def _by_the_minute(samples: Sequence[Sample]) -> list[list[Sample]]:
    found: list[list[Sample]] = [[] for _ in range(DAY_S // EVERY_S)]
    for sample in samples:
        found[sample.second // EVERY_S].append(sample)
    kept, last = list[list[Sample]](), samples[:1]
    for each in found:  # the operator was away for a minute: what it knew
        last = each or list(last)
        kept.append(list(last))
    return kept
