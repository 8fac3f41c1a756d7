"""How answers look on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diptych.read.proving.verify import Verdict
from examples.flights.board.view import FlightRow
from examples.flights.punctuality.view import LATE, Carrier
from examples.flights.replay.load import Rejection
from examples.flights.replay.report import Report

COLOURS = {
    "scheduled": "white",
    "departed": "cyan",
    "landed": "green",
    "diverted": "magenta",
    "cancelled": "red",
}


def make_console() -> Console:
    """Return a console; where there is no terminal it is plain, and 100 columns wide."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=100)


def board_table(title: str, rows: Sequence[FlightRow]) -> Table:
    """Draw the departures board."""
    table = _table(title)
    for name in ("UTC", "flight", "to", "aircraft"):
        table.add_column(name)
    table.add_column("state")
    table.add_column("delay", justify="right")
    for row in rows:
        table.add_row(
            f"{row.scheduled:%H:%M}",
            row.flight.partition("-")[2],
            row.destination,
            row.aircraft or "",
            Text(row.state, COLOURS[row.state]),
            _minutes(row.departure_delay),
        )
    return table


def punctuality_table(title: str, carriers: Sequence[Carrier]) -> Table:
    """Draw the ranking of carriers."""
    table = _table(title)
    table.add_column("")
    for name in ("departed", "cancelled", "on time"):
        table.add_column(name, justify="right")
    table.add_column("")
    for carrier in carriers:
        table.add_row(
            Text(carrier.carrier, "bold"),
            f"{carrier.departed:,}",
            f"{carrier.cancelled:,}" if carrier.cancelled else "",
            f"{carrier.on_time:.1%}",
            Text("━" * round(10 * carrier.on_time), "green" if carrier.on_time > 0.8 else "yellow"),
        )
    return table


def rejections_table(rejections: Iterable[Rejection], *, most: int = 8) -> Table:
    """Draw the first of the rejected commands, and how many more there are of each kind."""
    table = _table("Rejected commands")
    for name in ("command", "reason", "facts"):
        table.add_column(name)
    listed = list(rejections)
    for one in listed[:most]:
        facts = ", ".join(f"{name}: {fact}" for name, fact in one.facts.items())
        table.add_row(one.command, Text(one.reason, "yellow"), Text(facts, "dim"))
    rest = Counter((one.command, one.reason) for one in listed[most:])
    for (command, reason), count in rest.most_common():
        table.add_row(command, Text(reason, "yellow"), f"and {count:,} more")
    return table


def verdicts_table(verdicts: Sequence[Verdict]) -> Table:
    """Draw what verify has found."""
    table = _table("Has each view applied each of its events exactly once?")
    table.add_column("projection")
    table.add_column("effects", justify="right")
    table.add_column("up to position", justify="right")
    table.add_column("verdict")
    for verdict in verdicts:
        found = Text("complete, nothing twice", "green")
        table.add_row(
            verdict.projection,
            f"{verdict.count:,}",
            f"{verdict.position:,}",
            found if verdict.ok else Text(verdict.reason, "bold red"),
        )
    return table


def report_text(report: Report) -> str:
    """Say in a line or two what a replay has done."""
    commands = sum(report.accepted.values()) + sum(report.rejected.values())
    return (
        f"[bold]{commands:,}[/] commands became [bold]{report.events:,}[/] events in "
        f"{report.seconds:.1f} s: [bold]{report.commands_per_second:,.0f}[/] commands/s.\n"
        f"All views were current {report.caught_up_seconds:.2f} s after the last command. "
        f"Peak memory {report.peak_memory_mb:.0f} MB."
    )


def print_report(report: Report, rejections: Iterable[Rejection]) -> None:
    """Print what `load` has done."""
    console = make_console()
    console.print(report_text(report))
    for name, counted in (("accepted", report.accepted), ("rejected", report.rejected)):
        console.print(f"{name}: " + (", ".join(f"{k} {n:,}" for k, n in counted.items()) or "none"))
    if report.rejected:
        console.print(rejections_table(rejections))
    if report.stopped:
        console.print("[yellow]Stopped.[/] The same command goes on from here.")
    else:
        console.print("verified: " + ("[green]yes[/]" if report.verified else "[red]no[/]"))


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_style="bold",
        title_justify="left",
        header_style="dim",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def _minutes(delay: int | None) -> Text:
    if delay is None:
        return Text("")
    return Text(f"{delay:+d}", "red" if delay >= LATE else "green")
