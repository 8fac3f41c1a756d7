"""1 to 3: order workloads, one hot boundary, the latency of one client."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator

from bench.figures import OURS, Contest, Entrant, Figures
from bench.floors.appending import floor_on
from bench.floors.inserting import bare_inserts
from bench.orders import Open, opened, workload
from bench.peers import events_peer, uma
from bench.places import Place
from bench.setup import Setup
from bench.timing import percentiles, together
from diptych import Running

GROUP_COMMIT = "bare group commit"
INSERT = "bare durable insert"
ROW_ALONE = "bare durable insert, without index and head"


def orders_contests(setup: Setup) -> Iterator[Contest]:
    """Yield the contests of scenario 1."""
    sizes = setup.sizes
    for backend in setup.backends:
        modes = events_peer.modes(backend, cached=True)
        for in_flight in sizes.in_flight:
            count = sizes.sequential if in_flight == 1 else sizes.commands
            entrants = [
                Entrant(OURS, in_flight, functools.partial(orders, in_flight, count)),
                Entrant(GROUP_COMMIT, in_flight, functools.partial(floor, in_flight, count)),
            ]
            if in_flight == max(sizes.in_flight):
                # Peers run at several numbers of threads; their best one counts.
                for mode in modes:
                    for threads in sizes.threads:
                        peer = functools.partial(
                            events_peer.orders, mode, threads, sizes.peer_commands
                        )
                        entrants.append(Entrant(mode.subject, threads, peer))
                for threads in sizes.uma_threads:
                    served = functools.partial(uma.orders, threads, sizes.uma_commands)
                    entrants.append(Entrant(uma.SUBJECT, threads, served))
            yield Contest(1, "order workload", backend, entrants)


def hot_contests(setup: Setup) -> Iterator[Contest]:
    """Yield the contests of scenario 2."""
    sizes = setup.sizes
    for backend in setup.backends:
        most = max(sizes.in_flight)
        entrants = [
            Entrant(OURS, most, functools.partial(hot, most, sizes.commands // 2)),
            Entrant(GROUP_COMMIT, most, functools.partial(hot_floor, most, sizes.commands // 2)),
        ]
        for mode in events_peer.modes(backend):
            for threads in sizes.threads[:2]:
                peer = functools.partial(events_peer.hot, mode, threads, sizes.peer_commands)
                entrants.append(Entrant(mode.subject, threads, peer))
        yield Contest(2, "one hot boundary", backend, entrants)


def latency_contests(setup: Setup) -> Iterator[Contest]:
    """Yield the contests of scenario 3."""
    sizes = setup.sizes
    for backend in setup.backends:
        entrants = [
            Entrant(OURS, 1, functools.partial(latency, sizes.sequential)),
            Entrant(INSERT, 1, functools.partial(bare_inserts, sizes.sequential, True)),
            Entrant(ROW_ALONE, 1, functools.partial(bare_inserts, sizes.sequential, False)),
        ]
        for mode in events_peer.modes(backend):
            peer = functools.partial(events_peer.latency, mode, sizes.peer_commands)
            entrants.append(Entrant(mode.subject, 1, peer))
        yield Contest(3, "one sequential client", backend, entrants)


async def orders(in_flight: int, count: int, place: Place) -> Figures:
    """Order workloads through ``do``, each client at its own orders."""
    async with opened(place.database(), "memory:") as running:
        return {"commands/s": await run_orders(running, in_flight, count)}


async def run_orders(running: Running, in_flight: int, count: int, name: str = "o") -> float:
    """Run about so many commands; return how many a second."""
    each = max(1, count // in_flight // 4)

    async def client(number: int) -> None:
        for turn in range(each):
            for command in workload(f"{name}-{number}-{turn}"):
                await running.do(command)

    return in_flight * each * 4 / await together(in_flight, client)


async def floor(in_flight: int, count: int, place: Place) -> Figures:
    """Append as many events to as many boundaries, bare."""
    bare = await floor_on(place.database())
    each = max(1, count // in_flight // 4)

    async def client(number: int) -> None:
        for turn in range(each):
            tag = f"order:o-{number}-{turn}"
            for _ in range(4):
                await bare.append(tag)

    seconds = await together(in_flight, client)
    await bare.close()
    return {"commands/s": in_flight * each * 4 / seconds}


async def hot(in_flight: int, count: int, place: Place) -> Figures:
    """All clients at one order: every command is decided anew, and accepted."""
    each = max(1, count // in_flight)
    async with opened(place.database(), "memory:") as running:
        await running.do(Open("hot", "ann"))

        async def client(number: int) -> None:
            for turn in range(each):
                await running.do(workload("hot")[1 + (number + turn) % 2])

        return {"commands/s": in_flight * each / await together(in_flight, client)}


async def hot_floor(in_flight: int, count: int, place: Place) -> Figures:
    """Append as many events to one boundary, bare."""
    bare = await floor_on(place.database())
    each = max(1, count // in_flight)

    async def client(_: int) -> None:
        for _turn in range(each):
            await bare.append("order:hot")

    seconds = await together(in_flight, client)
    await bare.close()
    return {"commands/s": in_flight * each / seconds}


async def latency(count: int, place: Place) -> Figures:
    """One client, one command after the other."""
    taken: list[float] = []
    async with opened(place.database(), "memory:") as running:
        for number in range(max(1, count // 4)):
            for command in workload(f"o-{number}"):
                began = time.perf_counter()
                await running.do(command)
                taken.append(time.perf_counter() - began)
    return percentiles(taken)
