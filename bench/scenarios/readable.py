"""5: how long after its acknowledgement an event can be read, at half of the maximum load."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeAlias

from bench import four, orders
from bench.figures import OURS, Contest, Entrant, Figures
from bench.orders import SummaryOf, workload
from bench.places import Place
from bench.scenarios.commands import run_orders
from bench.setup import Setup
from bench.timing import percentiles
from diptych import Running

TICK: Final = 0.005
PROBES_A_SECOND: Final = 200
ONE: Final = "event to readable at half load"
FOUR: Final = "event to readable at half load, four projections"
Opening: TypeAlias = Callable[..., AbstractAsyncContextManager[Running]]


def contests(setup: Setup) -> Iterator[Contest]:
    """Yield the contests of scenario 5."""
    for backend in setup.backends:
        for name, opened in ((ONE, orders.opened), (FOUR, four.opened)):
            measure = functools.partial(ours, setup, opened)
            entrants = [Entrant(OURS, max(setup.sizes.in_flight), measure)]
            yield Contest(5, name, backend, entrants)


async def ours(setup: Setup, opened: Opening, place: Place) -> Figures:
    """Find the maximum with the projections running; offer half of it; ask with tokens."""
    sizes = setup.sizes
    async with opened(place.database(), place.database(), projections=True) as running:
        most = await run_orders(running, max(sizes.in_flight), sizes.commands // 2, "max")
        await running.catch_up()
        load = Load(running, most / 2 / 4, sizes.steady_seconds)
        await load.run()
    return {**percentiles(load.taken), "commands/s": load.done / load.seconds}


class Load:
    """So many orders a second, whether or not earlier ones are done; some are asked for.

    ``taken``: seconds from a receipt to the answer that shows its event.
    """

    def __init__(self, running: Running, orders_a_second: float, seconds: float) -> None:
        self._running = running
        self._rate = orders_a_second
        self._probe_each = max(1, round(orders_a_second / PROBES_A_SECOND))
        self.seconds = seconds
        self.taken: list[float] = []
        self.done = 0

    async def run(self) -> None:
        """Offer the load, and wait for what is still on its way."""
        began = time.perf_counter()
        started = 0
        async with asyncio.TaskGroup() as group:
            while (elapsed := time.perf_counter() - began) < self.seconds:
                due = int(elapsed * self._rate)
                while started < due:
                    group.create_task(self._order(started))
                    started += 1
                await asyncio.sleep(TICK)
        self.seconds = time.perf_counter() - began

    async def _order(self, number: int) -> None:
        order = f"steady-{number}"
        for step, command in enumerate(workload(order)):
            receipt = await self._running.do(command)
            self.done += 1
            # Each step of an order is asked for in its turn.
            if number % self._probe_each == 0 and number // self._probe_each % 4 == step:
                began = time.perf_counter()
                answer = await self._running.ask(SummaryOf(order), after=receipt.token, wait=10)
                self.taken.append(time.perf_counter() - began)
                assert answer.value is not None
                assert not answer.stale
