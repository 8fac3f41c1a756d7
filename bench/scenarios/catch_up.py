"""4: a projection catches up with the whole log, into a table."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator

from bench import loader
from bench.figures import OURS, Backend, Contest, Entrant, Figures
from bench.floors import folding, pages
from bench.orders import opened
from bench.peers import events_peer, events_reading
from bench.places import Place
from bench.setup import Setup

FLOOR = "bare loop, 1,000 a transaction"


def contests(setup: Setup) -> Iterator[Contest]:
    """Yield the contests of scenario 4."""
    for backend in setup.backends:
        entrants = [
            Entrant(OURS, 1, functools.partial(ours, setup, backend)),
            Entrant(FLOOR, 1, functools.partial(floor, setup, backend)),
            Entrant(
                events_peer.SUBJECT, 1, functools.partial(events_reading.catch_up, setup, backend)
            ),
        ]
        yield Contest(4, "projection catch-up", backend, entrants)


async def ours(setup: Setup, backend: Backend, place: Place) -> Figures:
    """Bring a new projection to the head."""
    log = await setup.prepared(backend, OURS, setup.sizes.events, loader.fill)
    async with opened(log.url, place.database()) as running:
        began = time.perf_counter()
        await running.catch_up()
        seconds = time.perf_counter() - began
        (status,) = await running.status()
    assert status.lag == 0, status
    return {"events/s": status.position / seconds}


async def floor(setup: Setup, backend: Backend, place: Place) -> Figures:
    """Do the same by hand."""
    log = await setup.prepared(backend, FLOOR, setup.sizes.events, pages.fill)
    views = place.database()
    began = time.perf_counter()
    rows = await folding.catch_up(log.url, views)
    seconds = time.perf_counter() - began
    assert rows, "nothing was folded"
    return {"events/s": log.events / seconds}
