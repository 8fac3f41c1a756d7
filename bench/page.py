"""The page of the documentation, written from the results.

``python -m bench.page`` writes it from build/bench/results.json.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.chart import LABELS, chart
from bench.figures import OURS, Row
from bench.peers.events_peer import WARNING
from bench.places import BUILD
from bench.report import Report, number

DOCS: Final = Path(__file__).parents[1] / "docs" / "explanation"

HEAD: Final = """# Benchmarks

<!-- Written by `python -m bench.page` from the results of a run; do not edit. -->

Each figure is measured against two others in the same run: the **peers**, used as their own
documentation says, and a **bare floor**, the same work on the same driver without a framework. On
another machine all three move together, so read the ratios.

![Throughput of Diptych, the peers and the bare floors](benchmarks.svg)

"""

NOTES: Final = f"""## What is compared

- Every command is loaded, decided and appended, and on the disk when it is acknowledged. Peers run
  at several numbers of threads; the best one counts.
- The bare group commit appends events of the same size on a condition that SQL checks, one
  transaction for all that wait; it loads, decides and encodes nothing.
- The bare durable insert stores what an append stores: the event, its entries in the index by tag,
  the head. What the event's row alone costs stands beside it.
- {WARNING}.
- "cached" is eventsourcing with its cache of aggregates, told that no other process writes
  (AGGREGATE_CACHE_FASTFORWARD off). Diptych keeps states too, but checks them at each append.
- UmaDB is a server of its own; its client reads the boundary and appends on condition, a client for
  each thread. Its figures beside both backends are of the same server.
- eventsourcing has no subscriptions on SQLite, so no runner there.
- SQLAlchemy alone: Core, a connection from the engine's pool for each query; on PostgreSQL the
  async engine with asyncpg, on SQLite the ordinary engine on the caller's own thread.
- Over HTTP the client, the server and the database are processes of their own. The bare handler is
  one of Starlette under the same uvicorn, loop and settings: for commands it decodes the same JSON
  to the same type and answers; for queries it runs the same SQL by asyncpg, or by sqlite3 on the
  loop's own thread.
- One boundary is the events of one order, by types and tag, as a decision reads them: thousands of
  orders, spread over the log. At each size the plans of the statements are looked at too: the run
  ends with an error where one would go through a table.
- Memory is the peak of the process that catches up with four projections, and of the one that
  builds their next versions beside the live ones, proves them and switches; not that of the
  database's server. It is measured once in the larger logs.

<!-- no-run: takes an hour -->
```console
$ make bench
$ make bench ONLY=8,9 LARGEST=10000000 ROUNDS=5
```
"""


def write_page(report: Report) -> None:
    """Write the page and its chart."""
    (DOCS / "benchmarks.md").write_text(page(report))
    (DOCS / "benchmarks.svg").write_text(chart(report))


def page(report: Report) -> str:
    """Return the page of a report, in Markdown."""
    return (
        HEAD
        + "\n".join([*_bars(report), *_rows(report), *_missing(report), *_conditions(report)])
        + "\n"
        + NOTES
    )


def _bars(report: Report) -> Iterator[str]:
    yield "## What must hold\n"
    yield "| bar | required | measured | |"
    yield "|---|---:|---:|---|"
    for bar in report.bars:
        measured = "not measured" if bar.measured is None else number(bar.measured)
        held = "held" if bar.held else "**missed**"
        yield f"| {bar.name} | {number(bar.required)} | {measured} | {held} |"
    yield ""


def _rows(report: Report) -> Iterator[str]:
    yield "## All figures\n"
    yield '"Diptych by it" divides our figure by that of the line.\n'
    groups: dict[tuple[int, str, str], list[Row]] = {}
    for row in report.rows:
        groups.setdefault((row.scenario, row.name, row.backend), []).append(row)
    for (scenario, name, backend), rows in groups.items():
        yield f"### {scenario} {name}, {LABELS[backend]}\n"
        yield "| subject | in flight | median | unit | Diptych by it |"
        yield "|---|---:|---:|---|---:|"
        own = {row.unit: row.median for row in rows if row.subject == OURS}
        for row in rows:
            ratio = f"{own[row.unit] / row.median:.2f}" if row.unit in own else ""
            ratio = "" if row.subject == OURS else ratio
            cells = (row.subject, str(row.in_flight), number(row.median), row.unit, ratio)
            yield "| " + " | ".join(cells) + " |"
        yield ""


def _missing(report: Report) -> Iterator[str]:
    if not report.missing:
        return
    yield "## Not measured\n"
    for one in report.missing:
        where = f"{one.scenario} {one.name}, {LABELS[one.backend]}"
        yield f"- {where}, {one.subject} ({one.in_flight}): {one.why}"
    yield ""


def _conditions(report: Report) -> Iterator[str]:
    yield "## Conditions\n"
    for name, value in report.conditions.items():
        yield f"- {name}: {value}"
    yield ""


if __name__ == "__main__":
    write_page(Report.read(Path(sys.argv[1]) if len(sys.argv) > 1 else BUILD / "results.json"))
