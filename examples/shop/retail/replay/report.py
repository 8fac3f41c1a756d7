"""A load from beginning to end, and what it has come to: counts, figures from the views, proof."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import Struct

from examples.shop.retail.countries.query import SalesByCountry
from examples.shop.retail.holdings.query import AllHeld, Held
from examples.shop.retail.replay.load import Load
from examples.shop.retail.totals.query import Totals

if TYPE_CHECKING:
    from diptych import Running
    from examples.shop.retail.replay.file import Invoice


class Rejections(Struct, frozen=True):
    """Commands that were rejected for one reason."""

    command: str
    code: str
    count: int
    amount: Decimal
    by_month: dict[str, int]


class Sum(Struct, frozen=True):
    """Events of one type."""

    count: int
    amount: Decimal


class Report(Struct, frozen=True):
    """What ``load --json`` prints. Amounts are GBP, exact, as text.

    ``totals`` has count and amount of each type of event; ``gross``, ``cancelled``, ``net``,
    ``held`` and ``totals`` come from the views, by queries, after all events are in them.
    """

    accepted: dict[str, int]
    rejected: dict[str, int]
    rejections: list[Rejections]
    recalled: int
    events: int
    seconds: float
    commands_per_second: float
    caught_up_seconds: float
    peak_memory_mb: float
    verified: bool
    gross: Decimal
    cancelled: Decimal
    net: Decimal
    held: Held
    totals: dict[str, Sum]


async def replay(
    running: Running,
    invoices: Iterator[Invoice],
    progress: Callable[[Load], None] | None = None,
) -> Report:
    """Load the invoices, wait for the views, verify them and ask for the figures."""
    load = Load(running, progress)
    began = time.perf_counter()
    await load.run(invoices)
    seconds = time.perf_counter() - began
    await running.catch_up()
    caught_up = time.perf_counter() - began - seconds
    verified = all(verdict.ok for verdict in await running.verify())
    countries = (await running.ask(SalesByCountry())).value
    gross = sum((row.gross for row in countries), Decimal())
    cancelled = sum((row.cancelled for row in countries), Decimal())
    rejected: dict[str, int] = {}
    for (command, _), tally in load.rejected.items():
        rejected[command] = rejected.get(command, 0) + tally.count
    return Report(
        accepted={name: tally.count for name, tally in sorted(load.accepted.items())},
        rejected=rejected,
        rejections=[
            Rejections(command, code, tally.count, tally.amount, tally.by_month)
            for (command, code), tally in sorted(load.rejected.items())
        ],
        recalled=load.recalled,
        events=await running.log.head(),
        seconds=round(seconds, 3),
        commands_per_second=round(load.answered / seconds, 1),
        caught_up_seconds=round(caught_up, 3),
        peak_memory_mb=round(peak_memory_mb(), 1),
        verified=verified,
        gross=gross,
        cancelled=cancelled,
        net=gross - cancelled,
        held=(await running.ask(AllHeld())).value,
        totals={
            row.event: Sum(row.count, row.amount) for row in (await running.ask(Totals())).value
        },
    )


def peak_memory_mb() -> float:
    """Return the most memory that this process has used."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
