"""10 and 11: commands and queries over HTTP; client and server are processes of their own."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Final

from bench import loader, servers
from bench.client import Task, Work, sent
from bench.figures import OURS, Backend, Contest, Entrant, Figures
from bench.floors import asking
from bench.orders import opened
from bench.places import Place
from bench.servers import Served
from bench.setup import Prepared, Setup

HANDLER: Final = "bare handler"
COMMANDS: Final = "commands/s"
QUERIES: Final = "queries/s"
CPU: Final = "µs of the server's CPU"
LATENCY: Final = "p99 ms at half load"


def command_contests(setup: Setup) -> Iterator[Contest]:
    """Yield the contests of scenario 10."""
    connections = setup.sizes.connections
    for backend in setup.backends:
        entrants = [
            Entrant(OURS, connections, functools.partial(commands, setup)),
            Entrant(HANDLER, connections, functools.partial(bare_commands, setup)),
        ]
        yield Contest(10, "commands over HTTP", backend, entrants)


def query_contests(setup: Setup) -> Iterator[Contest]:
    """Yield the contests of scenario 11."""
    connections = setup.sizes.connections
    for backend in setup.backends:
        entrants = [
            Entrant(OURS, connections, functools.partial(queries, setup, backend)),
            Entrant(HANDLER, connections, functools.partial(bare_queries, setup, backend)),
        ]
        yield Contest(11, "queries by key over HTTP", backend, entrants)


async def commands(setup: Setup, place: Place) -> Figures:
    """Find the maximum, then offer half of it."""
    sizes = setup.sizes
    async with servers.ours("commands", place.database(), "memory:") as served:
        found = await _most(served, "commands", sizes.connections, sizes.requests)
        rate = found[COMMANDS] / 2
        count = max(sizes.connections, int(rate * sizes.steady_seconds))
        half = Task(served.url, "commands", sizes.connections, count, rate=rate, name="half")
        found[LATENCY] = (await sent(half)).figures["p99 ms"]
        return found


async def bare_commands(setup: Setup, _place: Place) -> Figures:
    """Decode the same commands, and do nothing."""
    async with servers.bare("commands") as served:
        return await _most(served, "commands", setup.sizes.connections, setup.sizes.requests)


async def queries(setup: Setup, backend: Backend, _place: Place) -> Figures:
    """Ask for orders by their keys, of a process that keeps the views current too."""
    log = await setup.prepared(backend, "queries", _events(setup), loader.fill)

    async def build(url: str, _events: int) -> None:
        async with opened(log.url, url) as running:
            await running.catch_up()

    views = await setup.prepared(backend, "views", log.events, build)
    return await _asked(setup, servers.ours("all", log.url, views.url))


async def bare_queries(setup: Setup, backend: Backend, _place: Place) -> Figures:
    """Run the same SQL for each."""

    async def build(url: str, events: int) -> None:
        await asking.fill(url, asking.rows(events // 4))

    table: Prepared = await setup.prepared(backend, asking.SUBJECT, _events(setup), build)
    return await _asked(setup, servers.bare("queries", table.url))


async def _asked(setup: Setup, server: AbstractAsyncContextManager[Served]) -> Figures:
    sizes = setup.sizes
    async with server as served:
        orders = _events(setup) // 4
        return await _most(served, "queries", sizes.connections, sizes.requests, orders)


async def _most(
    served: Served, work: Work, connections: int, requests: int, orders: int = 0
) -> Figures:
    """Send as fast as answers come, after some requests that do not count."""
    warm = Task(served.url, work, connections, max(connections, requests // 8), orders, name="warm")
    await sent(warm)
    before = served.cpu()
    taken = await sent(Task(served.url, work, connections, requests, orders))
    count = taken.count
    found = {
        COMMANDS if work == "commands" else QUERIES: count / taken.seconds,
        **taken.figures,
    }
    after = served.cpu()
    if before is not None and after is not None:
        found[CPU] = max(after - before, servers.TICK) / count * 1e6
    return found


def _events(setup: Setup) -> int:
    return max(loader.CLIENTS * 4, setup.sizes.events // 2)
