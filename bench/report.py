"""The table on the screen, and results.json."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from bench.bars import Bar
from bench.figures import OURS, Contest, Missing, Results, Row


class Report(msgspec.Struct):
    """What results.json holds."""

    conditions: dict[str, str]
    rows: list[Row]
    bars: list[Bar]
    missing: list[Missing]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")

    @staticmethod
    def read(path: Path) -> Report:
        """Read it back."""
        return msgspec.json.decode(path.read_bytes(), type=Report)


def tell(console: Console, contest: Contest, results: Results) -> None:
    """Print the figures of one contest, and ours by those of the others."""
    title = f"{contest.scenario} {contest.name}, {contest.backend}"
    table = Table("subject", "in flight", "median", "unit", "diptych by it", title=title, box=None)
    table.title_justify = "left"
    for cells in lines(contest, results):
        table.add_row(*cells)
    console.print(table)


def lines(contest: Contest, results: Results) -> Iterator[tuple[str, ...]]:
    """Yield a line for each row of a contest, and one for each who is missing."""
    here = (contest.scenario, contest.name, contest.backend)
    entered = {(entrant.subject, entrant.in_flight) for entrant in contest.entrants}
    rows = [
        row
        for row in results.rows
        if (row.scenario, row.name, row.backend) == here and (row.subject, row.in_flight) in entered
    ]
    own = {row.unit: row.median for row in rows if row.subject == OURS}
    for row in rows:
        ratio = ""
        if row.subject != OURS and row.unit in own:
            ratio = f"{own[row.unit] / row.median:.2f}"
        yield row.subject, str(row.in_flight), number(row.median), row.unit, ratio
    for missing in results.missing:
        if (missing.scenario, missing.name, missing.backend) == here and (
            missing.subject,
            missing.in_flight,
        ) in entered:
            yield missing.subject, str(missing.in_flight), "-", f"not available: {missing.why}", ""


def bars_table(bars: list[Bar]) -> Table:
    """Return the table of bars."""
    table = Table("bar", "required", "measured", "", box=None)
    for bar in bars:
        measured = "not measured" if bar.measured is None else number(bar.measured)
        table.add_row(bar.name, number(bar.required), measured, "held" if bar.held else "MISSED")
    return table


def number(value: float) -> str:
    """Return a figure as people read it."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def conditions_text(conditions: dict[str, Any]) -> str:
    """Return the conditions, a line each."""
    return "\n".join(f"{name}: {value}" for name, value in conditions.items())
