"""6: read and decode the whole log."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator

from bench import loader
from bench.figures import OURS, Backend, Contest, Entrant, Figures
from bench.floors import pages
from bench.orders import opened
from bench.peers import events_peer, events_reading, uma, uma_reading
from bench.places import Place
from bench.scenarios import catch_up
from bench.setup import Setup

FLOOR = "bare pages, msgspec"


def contests(setup: Setup) -> Iterator[Contest]:
    """Yield the contests of scenario 6."""
    sizes = setup.sizes
    for backend in setup.backends:
        entrants = [
            Entrant(OURS, 1, functools.partial(ours, setup, backend)),
            Entrant(FLOOR, 1, functools.partial(floor, setup, backend)),
            Entrant(
                events_peer.SUBJECT, 1, functools.partial(events_reading.read, sizes.peer_events)
            ),
            Entrant(uma.SUBJECT, 1, functools.partial(uma_reading.read, sizes.uma_events)),
        ]
        yield Contest(6, "read and decode the log", backend, entrants)


async def ours(setup: Setup, backend: Backend, _place: Place) -> Figures:
    """Iterate over all events, decoded, with their metadata."""
    log = await setup.prepared(backend, OURS, setup.sizes.events, loader.fill)
    count = 0
    async with opened(log.url, "memory:") as running:
        began = time.perf_counter()
        async for _ in running.events.all():
            count += 1
        seconds = time.perf_counter() - began
    assert count >= log.events
    return {"events/s": count / seconds}


async def floor(setup: Setup, backend: Backend, _place: Place) -> Figures:
    """Select pages and decode them, data and metadata."""
    log = await setup.prepared(backend, catch_up.FLOOR, setup.sizes.events, pages.fill)
    began = time.perf_counter()
    count = await pages.read_all(log.url)
    seconds = time.perf_counter() - began
    assert count == log.events
    return {"events/s": count / seconds}
