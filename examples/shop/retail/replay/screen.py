"""The load on a terminal: a progress bar while it runs, tables when it is done."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from examples.shop.retail.replay.load import Load
    from examples.shop.retail.replay.report import Report


@contextmanager
def progress_bar(path: Path, read: Callable[[], int]) -> Generator[Callable[[Load], None]]:
    """Show how much of the file has been read, and how fast; only on a terminal."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("invoices", total=path.stat().st_size, speed="")

        def progress(load: Load) -> None:
            elapsed = bar.tasks[0].elapsed or 0.0
            speed = f"{load.answered / elapsed:,.0f} commands/s" if elapsed else ""
            bar.update(task, completed=read(), speed=speed)

        yield progress


def print_report(report: Report) -> None:
    """Print what came of a load."""
    console = Console(highlight=False)
    answers = Table("command", "answer", title="Commands", title_justify="left")
    answers.add_column("number", justify="right")
    for command, count in report.accepted.items():
        answers.add_row(command, "accepted", f"{count:,}")
    for one in report.rejections:
        answers.add_row(one.command, f"[red]rejected[/]: {one.code}", f"{one.count:,}")
    console.print(answers)
    sales = Table("sales", title="From the views", title_justify="left")
    sales.add_column("GBP", justify="right")
    for name, sum_ in (
        ("gross", report.gross),
        ("cancelled", report.cancelled),
        ("net", report.net),
    ):
        sales.add_row(name, money(sum_))
    console.print(sales)
    console.print(
        f"{report.held.pieces:,} pieces held, {report.held.pairs:,} pairs of customer and product"
    )
    console.print(
        f"{report.events:,} events in {report.seconds:.1f} s, "
        f"{report.commands_per_second:,.0f} commands/s; views current "
        f"{report.caught_up_seconds:.1f} s later; {report.peak_memory_mb:,.0f} MB at most"
        + (f"; {report.recalled:,} answers from an earlier run" if report.recalled else "")
    )
    console.print(
        "[green]verified: every view has applied each event once[/]"
        if report.verified
        else "[red]not verified; see diptych verify[/]"
    )


def money(amount: Decimal) -> str:
    """Return an amount as people read it; rounded to pennies."""
    return f"{amount:,.2f}"
