"""The demonstration: a replay, then what an application is asked, and what it refuses."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from diptych import Rejected, Running
from diptych.errors import SqliteVersionWarning
from examples.flights import app
from examples.flights.board.query import Board
from examples.flights.depart.command import Depart
from examples.flights.punctuality.query import Punctuality
from examples.flights.replay.file import Slice
from examples.flights.replay.load import Rejection
from examples.flights.replay.report import replay
from examples.flights.schedule.command import Schedule
from examples.flights.screen import (
    board_table,
    make_console,
    punctuality_table,
    rejections_table,
    report_text,
    verdicts_table,
)

TITLES = {
    "first_week": "the first week of 2013",
    "february": "February 2013",
    "year": "the year 2013",
}
HOURS = {
    "first_week": ("EWR", datetime(2013, 1, 3, 2, tzinfo=UTC)),
    "february": ("LGA", datetime(2013, 2, 8, 15, tzinfo=UTC)),
    "year": ("JFK", datetime(2013, 7, 14, 1, tzinfo=UTC)),
}


async def show(slice: Slice) -> int:
    """Replay a slice into ``build/flights``, show what came of it; return the exit status."""
    # The bug that it warns of needs several processes writing one file; here each has its own.
    warnings.simplefilter("ignore", SqliteVersionWarning)
    folder = _new_folder()
    log, views = f"sqlite:///{folder}/log.db", f"sqlite:///{folder}/views.db"
    console = make_console()
    done, report = await replay(log, views, slice, verify=False)
    console.print(Panel(report_text(report), title=f"Departures from New York, {TITLES[slice]}"))
    if report.stopped:
        return 130
    async with app.open(log=log, views=views) as running:
        await _show_answers(running, slice, console)
        _show_rejections(done.rejections, console)
        await _show_a_rule(running, console)
        await running.catch_up()
        verdicts = await running.verify()
        console.print(verdicts_table(verdicts))
    console.print(
        "Look around (the replay is in build/flights):\n"
        "  export DIPTYCH_APP=examples.flights:app\n"
        f"  export DIPTYCH_LOG={log}\n"
        f"  export DIPTYCH_VIEWS={views}\n"
        "  .venv/bin/diptych describe\n"
        "  .venv/bin/diptych ask History flight=20130101T10-UA1545\n"
        "  .venv/bin/diptych status\n"
        "  .venv/bin/diptych verify",
        style="dim",
        soft_wrap=True,
    )
    return 0 if all(verdict.ok for verdict in verdicts) else 1


def _new_folder() -> Path:
    folder = Path("build/flights")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


async def _show_answers(running: Running, slice: Slice, console: Console) -> None:
    airport, since = HOURS[slice]
    board = await running.ask(Board(airport, since, since + timedelta(hours=1)))
    ranking = await running.ask(Punctuality())
    side_by_side = Table.grid(padding=(0, 4))
    side_by_side.add_row(
        board_table(f"{airport}, {since:%d %B %Y}", board.value),
        punctuality_table("Punctuality", ranking.value),
    )
    console.print(side_by_side)
    console.print(f"[dim]Both answers are as of position {board.as_of:,}.[/]\n")


def _show_rejections(rejections: Iterable[Rejection], console: Console) -> None:
    if rejections:
        console.print(rejections_table(rejections))
    else:
        console.print("[bold]Rejected commands[/]: none, the traffic of this week broke no rule.\n")


async def _show_a_rule(running: Running, console: Console) -> None:
    """Break the rule that spans two entities: an aircraft in the air cannot depart."""
    noon = datetime(2014, 1, 1, 17, tzinfo=UTC)
    console.print("[bold]One aircraft, two flights[/]")
    for number, destination in (("DX1", "LAX"), ("DX2", "BOS")):
        flight = f"20140101T17-{number}"
        schedule = Schedule(flight, "N14228", "DX", "JFK", destination, noon.date(), noon)
        await running.do(schedule)
        try:
            receipt = await running.do(Depart(flight, "N14228", noon + timedelta(minutes=4)))
        except Rejected as no:
            facts = ", ".join(f"{name}: {fact}" for name, fact in no.facts.items())
            console.print(f"  Depart {number}  [yellow]rejected: {no.reason}[/] [dim]({facts})[/]")
            continue
        board = Board("JFK", noon, noon + timedelta(hours=1))
        answer = await running.ask(board, after=receipt.token)
        console.print(f"  Depart {number}  [green]accepted[/], token {receipt.token}")
        console.print(
            f"  Board JFK   {number} has {answer.value[0].state} "
            f"[dim](asked with that token: as of {answer.as_of:,}, {answer.age:.1f} s old)[/]"
        )
    console.print()
