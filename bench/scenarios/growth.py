"""8: what an event costs to append, to fold and to read, in a log that is small or large.

The small log is new for each measurement, so that it stays small. In all of them a measurement
works on as many events: new orders, a window that the projection catches up with, pages spread
over the log. And what it takes to read one boundary, which must be found by an index at each size.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Final

from bench import loader, plans
from bench.figures import OURS, Backend, Contest, Entrant, Figures
from bench.orders import Added, Confirmed, Opened, opened
from bench.places import Place
from bench.scenarios.commands import run_orders
from bench.setup import Setup
from bench.timing import percentiles

PIECES: Final = 10
UNIT: Final = "µs/event"
WORKS: Final = ("order workload", "projection catch-up", "read and decode")
BOUNDARY: Final = "one boundary"
BOUNDARIES: Final = 2000


def subject(events: int) -> str:
    """Return how a size is called among the subjects."""
    return f"{OURS}, {events:,} events in the log"


def contests(setup: Setup) -> Iterator[Contest]:
    """Yield the contests of scenario 8; the sizes take turns."""
    sizes = setup.sizes
    works = (appending, folding, reading, bounded)
    for backend in setup.backends:
        for name, work in zip((*WORKS, BOUNDARY), works, strict=True):
            entrants = [
                Entrant(
                    subject(events),
                    max(sizes.in_flight) if work is appending else 1,
                    functools.partial(work, setup, backend, events),
                )
                for events in sorted({sizes.small, sizes.events, sizes.largest})
            ]
            yield Contest(8, name, backend, entrants)


class _Sides:
    """A log of a size, and views that have caught up with it."""

    _turn = 0

    @classmethod
    async def of(cls, setup: Setup, backend: Backend, events: int, place: Place) -> tuple[str, str]:
        if events <= setup.sizes.small:
            log, views = place.database(), place.database()
            await loader.fill(log, events)
            async with opened(log, views) as running:
                await running.catch_up()
            return log, views
        filled = await setup.prepared(backend, OURS, events, loader.fill)

        async def build(url: str, _events: int) -> None:
            async with opened(filled.url, url) as running:
                await running.catch_up()

        built = await setup.prepared(backend, "views of the whole log", events, build)
        return filled.url, built.url

    @classmethod
    def name(cls) -> str:
        """Return a new name for orders, the same in length."""
        cls._turn += 1
        return f"n{cls._turn:04}"


async def appending(setup: Setup, backend: Backend, events: int, place: Place) -> Figures:
    """Run order workloads on a log of this size."""
    sizes = setup.sizes
    log, _ = await _Sides.of(setup, backend, events, place)
    async with opened(log, "memory:") as running:
        rate = await run_orders(running, max(sizes.in_flight), sizes.commands // 2, _Sides.name())
    return {UNIT: 1e6 / rate}


async def folding(setup: Setup, backend: Backend, events: int, place: Place) -> Figures:
    """Append a window of events, and let the projection catch up with it."""
    window = setup.sizes.window
    log, views = await _Sides.of(setup, backend, events, place)
    async with opened(log, views) as running:
        await running.catch_up()  # with what other measurements have appended
        (before,) = await running.status()
        await loader.load(running, window, start=before.position)  # numbers not used so far
        began = time.perf_counter()
        await running.catch_up()
        seconds = time.perf_counter() - began
    return {UNIT: seconds / window * 1e6}


async def reading(setup: Setup, backend: Backend, events: int, place: Place) -> Figures:
    """Read and decode pieces that are spread over the log."""
    log, _ = await _Sides.of(setup, backend, events, place)
    piece = min(events, setup.sizes.window, setup.sizes.small)
    starts = [(events - piece) * number // PIECES for number in range(PIECES)]
    count = 0
    async with opened(log, "memory:") as running:
        began = time.perf_counter()
        for start in starts:
            async for _ in running.events.all(after=start, until=start + piece):
                count += 1
        seconds = time.perf_counter() - began
    assert count == piece * PIECES
    return {UNIT: seconds / count * 1e6}


async def bounded(setup: Setup, backend: Backend, events: int, place: Place) -> Figures:
    """Read the events of orders that are spread over the log, one after the other."""
    log, _ = await _Sides.of(setup, backend, events, place)
    orders = max(events // loader.ROUND, 1) * loader.CLIENTS  # those with all their events
    step = max(orders // BOUNDARIES, 1)
    named = [loader.order_of(number) for number in range(0, orders, step)]
    types = (Opened, Added, Confirmed)
    await plans.require_index(log, [one.__name__ for one in types], f"order:{named[0]}")
    taken: list[float] = []
    async with opened(log, "memory:") as running:
        for order in named:
            began = time.perf_counter()
            found = await running.events.read(types, [f"order:{order}"])
            taken.append(time.perf_counter() - began)
            assert len(found) >= 4, order
    return percentiles(taken)
