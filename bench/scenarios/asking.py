"""7: a query by primary key and one by index, through ``ask``."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

from bench import loader
from bench.figures import OURS, Backend, Contest, Entrant, Figures
from bench.floors import asking
from bench.orders import SummariesOf, SummaryOf, opened
from bench.places import Place
from bench.setup import Setup

FLOOR: Final = asking.SUBJECT
Way: TypeAlias = Literal["by primary key", "by index"]
UNIT: Final = "µs/query"
WAYS: Final[tuple[Way, ...]] = ("by primary key", "by index")


def contests(setup: Setup) -> Iterator[Contest]:
    """Yield the contests of scenario 7."""
    for backend in setup.backends:
        for way in WAYS:
            entrants = [
                Entrant(OURS, 1, functools.partial(ours, setup, backend, way)),
                Entrant(FLOOR, 1, functools.partial(floor, setup, backend, way)),
            ]
            yield Contest(7, f"query {way}", backend, entrants)


def _events(setup: Setup) -> int:
    return max(loader.CLIENTS * 4, setup.sizes.events // 2)


def _numbers(setup: Setup) -> list[int]:
    """Return the numbers of the orders that are asked for: everybody asks for the same."""
    chosen = random.Random(7)
    orders = _events(setup) // 4
    return [chosen.randrange(orders) for _ in range(setup.sizes.asked)]


async def ours(setup: Setup, backend: Backend, way: Way, _place: Place) -> Figures:
    """Ask queries one after the other, with the projection running."""
    log = await setup.prepared(backend, "queries", _events(setup), loader.fill)

    async def build(url: str, _events: int) -> None:
        async with opened(log.url, url) as running:
            await running.catch_up()

    views = await setup.prepared(backend, "views", log.events, build)
    async with opened(log.url, views.url, projections=True) as running:
        numbers = _numbers(setup)
        found = await running.ask(SummaryOf(loader.order_of(0)))
        assert found.value is not None
        assert not found.stale
        began = time.perf_counter()
        if way == "by primary key":
            for number in numbers:
                one = await running.ask(SummaryOf(loader.order_of(number)))
                assert one.value is not None
        else:
            for number in numbers:
                some = await running.ask(SummariesOf(loader.customer_of(number)))
                assert some.value
        return {UNIT: (time.perf_counter() - began) / len(numbers) * 1e6}


async def floor(setup: Setup, backend: Backend, way: Way, _place: Place) -> Figures:
    """Run the same selects by SQLAlchemy."""

    async def build(url: str, events: int) -> None:
        await asking.fill(url, asking.rows(events // 4))

    table = await setup.prepared(backend, FLOOR, _events(setup), build)
    numbers = _numbers(setup)
    if way == "by primary key":
        statements = [asking.by_key(loader.order_of(number)) for number in numbers]
    else:
        statements = [asking.by_index(loader.customer_of(number)) for number in numbers]
    seconds, count = await asking.ask(table.url, statements)
    assert count >= len(numbers)
    return {UNIT: seconds / len(numbers) * 1e6}
