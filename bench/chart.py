"""An SVG chart of the throughputs, a panel for each scenario and backend, for light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from bench.figures import OURS, Row
from bench.report import Report, number

WIDTH: Final = 760
LABEL: Final = 250
BAR: Final = 18
GAP: Final = 7
RATES: Final = ("commands/s", "events/s", "queries/s")

# Middle tones and currentColor-like greys: both grounds keep them apart from the text.
STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.ours { fill: #2a78d6 } .floor { fill: #8b949e } .peer { fill: #c8803a }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
"""


def chart(report: Report) -> str:
    """Return the chart of a report as SVG."""
    parts: list[str] = []
    top = 10
    for title, rows in panels(report):
        height, body = _panel(title, rows, top)
        parts += body
        top += height
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" '
        f'height="{top}" role="img" aria-label="Throughput of Diptych, peers and bare floors">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def panels(report: Report) -> Iterator[tuple[str, list[Row]]]:
    """Yield title and rows of each panel: for each subject its best figure."""
    best: dict[tuple[int, str, str, str], dict[str, Row]] = {}
    # Of ours and of the floor the highest concurrency counts, of peers their best.
    for row in report.rows:
        if row.unit not in RATES or row.scenario not in (1, 2, 4, 6, 10, 11):
            continue
        subjects = best.setdefault((row.scenario, row.name, row.backend, row.unit), {})
        known = subjects.get(row.subject)
        if known is None or row.median > known.median:
            subjects[row.subject] = row
    for (scenario, name, backend, unit), subjects in best.items():
        title = f"{scenario} {name}, {LABELS[backend]}, {unit}"
        yield title, sorted(subjects.values(), key=lambda row: -row.median)


LABELS: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def _panel(title: str, rows: list[Row], top: int) -> tuple[int, list[str]]:
    parts = [f'<text class="title" x="10" y="{top + 14}">{escape(title)}</text>']
    y = top + 26
    longest = max(row.median for row in rows)
    room = WIDTH - LABEL - 90
    for row in rows:
        kind = "ours" if row.subject == OURS else "floor" if "bare" in row.subject else "peer"
        width = max(1, round(row.median / longest * room))
        label = escape(f"{row.subject} ({row.in_flight})")
        middle = y + BAR - 4
        parts += [
            f'<text x="{LABEL - 8}" y="{middle}" text-anchor="end">{label}</text>',
            f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{width}" height="{BAR}" rx="2"/>',
            f'<text x="{LABEL + width + 6}" y="{middle}">{number(row.median)}</text>',
        ]
        y += BAR + GAP
    return y + 14 - top, parts
