"""``python -m bench [--only 1,2] [--rounds 5] [--largest 10000000] [--page]``.

Prints tables, writes results.json and chart.svg into build/bench, with ``--page`` the page of the
documentation too. The exit status is 1 when a bar of what was measured does not hold.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import get_args

import msgspec
from rich.console import Console

from bench.bars import bars
from bench.chart import chart
from bench.conditions import conditions
from bench.figures import Backend
from bench.page import write_page
from bench.places import BUILD
from bench.report import Report, bars_table, conditions_text, tell
from bench.run import SCENARIOS, run
from bench.setup import Sizes
from diptych.errors import SqliteVersionWarning


def main() -> int:
    """Run what is asked for; 1 when a bar does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--only", default="", help="numbers of scenarios, as in 1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--largest", type=int, default=Sizes().largest, help="events, for 8 and 9")
    parser.add_argument("--backend", choices=get_args(Backend), help="one of the two, not both")
    parser.add_argument("--page", action="store_true", help="write the page of the documentation")
    options = parser.parse_args()
    only = sorted({int(number) for number in options.only.split(",") if number})
    if unknown := set(only) - set(SCENARIOS):
        parser.error(f"there is no scenario {unknown}; there are {sorted(SCENARIOS)}")
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    warnings.simplefilter("ignore", SqliteVersionWarning)
    backends: list[Backend] = [options.backend] if options.backend else ["sqlite", "postgresql"]
    sizes = msgspec.structs.replace(Sizes(), largest=options.largest)
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    whole = run(
        sizes,
        options.rounds,
        only,
        backends,
        lambda contest, results: tell(console, contest, results),
    )
    report = Report(
        conditions(whole, sizes, options.rounds),
        whole.results.rows,
        bars(whole.results, sizes, only, backends),
        whole.results.missing,
    )
    console.print(conditions_text(report.conditions), highlight=False)
    console.print(bars_table(report.bars))
    report.write(BUILD / "results.json")
    (BUILD / "chart.svg").write_text(chart(report))
    if options.page:
        write_page(report)
    return 0 if all(bar.held for bar in report.bars) else 1


if __name__ == "__main__":
    sys.exit(main())
