"""A view with a changed column is built anew beside the live one, under load, and killed meanwhile.

Meanwhile one client writes and others ask: no query may fail, or see half of anything, and in the
end the rows are those of a cold fold, and every effect was made once.

    python -m torture.rebuilds 20 sqlite|postgresql 100000

kills so many builders at random steps, in a log of so many events, with a writer at half of what
one can write, and says how long queries took, and the switches.
"""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from diptych import Running
from diptych.errors import DiptychError
from torture import backends
from torture.application import ACCOUNTS, Books, Move, Open, accounts
from torture.backends import Backend
from torture.processes import worker

KILLS = 2
EVENTS = 400
LATEST = 24
"""At which of its steps a builder dies at the latest; to open what is there takes some of them."""

SMALL_PAGE = 50
"""So that there are many steps in a small log."""

PATIENT = 200.0
"""Commands a second beside builders whose steps are that small."""

LEAST_PAGE = 1000
"""A builder of smaller steps never catches up with a writer at half of the maximum."""

IN_FLIGHT = 64


class Seen(Struct):
    """What came of a run: what does not hold, and how long things took, in seconds."""

    found: list[str] = []
    queries: list[float] = []
    switches: list[float] = []
    killed: int = 0
    most: float = 0.0
    written: float = 0.0


# --- the run --------------------------------------------------------------------------------------


async def rebuilds(backend: Backend, rng: random.Random) -> list[str]:
    """Kill two builders at random steps, let a third come to its end; return what does not hold."""
    seen = Seen()
    await rebuild_under_load(backend, rng, seen, KILLS, EVENTS, SMALL_PAGE, PATIENT)
    return seen.found


async def rebuild_under_load(
    backend: Backend,
    rng: random.Random,
    seen: Seen,
    kills: int,
    events: int,
    page: int,
    rate: float | None = None,
) -> None:
    """Build the next version while people write and ask; then go back, and forth again.

    ``rate``: how many commands a second are written beside it; None: half of what can be.
    """
    log = backend.new_log()
    views = backend.new_views(log)[0]
    old = accounts(slices=1)
    async with old.open(log=log, views=views) as running:
        await asyncio.gather(*(running.do(Open(f"a{n}")) for n in range(ACCOUNTS)))
        seen.most = await _fill(running, rng, events)
        await running.catch_up()
        ended = asyncio.Event()
        tasks = [
            asyncio.create_task(_write(running, rng, seen, rate or seen.most / 2, ended)),
            *(asyncio.create_task(_ask(running, seen, ended, strict=n > 0)) for n in range(2)),
        ]
        try:
            await _kill_and_build(log, views, rng, seen, kills, page)
            async with accounts(changed=True, slices=1).open(
                log=log, views=views, rebuild="manual"
            ) as new:
                tasks.append(asyncio.create_task(_ask(new, seen, ended, strict=True)))
                await _switch(new, seen)
                ended.set()
                await asyncio.gather(*tasks)
                seen.found += await _check(new)
                seen.found += await _check_rows(new)
            seen.found += await _check(running)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _kill_and_build(
    log: str, views: str, rng: random.Random, seen: Seen, kills: int, page: int
) -> None:
    """Start builders that die, then one that does not."""
    for number in range(kills + 1):
        at = 0 if number == kills else rng.randint(1, LATEST)
        with worker(at, page, log, views, program="torture.builder") as process:
            code = await asyncio.to_thread(process.wait)
        seen.killed += code == -signal.SIGKILL
        if code == 0:
            return
        if code != -signal.SIGKILL:
            seen.found.append(f"a builder has failed with {code}")


async def _switch(new: Running, seen: Seen) -> None:
    """Go back to the old version, and forth again, as people ask."""
    for switch in (new.projections.rollback, new.projections.cutover) * 3:
        asked = len(seen.queries)
        began = time.monotonic()
        await switch("balance")
        seen.switches.append(time.monotonic() - began)
        while len(seen.queries) < asked + 20 and not seen.found:
            await asyncio.sleep(0.001)


async def _fill(running: Running, rng: random.Random, events: int) -> float:
    """Write events as fast as may be; return how many commands a second that were."""
    began, done = time.monotonic(), 0

    async def client() -> None:
        nonlocal done
        while done < events:
            done += 1
            await running.do(_move(rng))

    await asyncio.gather(*(client() for _ in range(IN_FLIGHT)))
    return done / (time.monotonic() - began)


async def _write(
    running: Running, rng: random.Random, seen: Seen, rate: float, ended: asyncio.Event
) -> None:
    """Write so many commands a second."""
    began, done = time.monotonic(), 0
    while not ended.is_set():
        due = int((time.monotonic() - began) * rate) - done
        if due <= 0:
            await asyncio.sleep(0.002)
            continue
        due = min(due, IN_FLIGHT)
        await asyncio.gather(*(running.do(_move(rng)) for _ in range(due)))
        done += due
        seen.written = done / (time.monotonic() - began)


async def _ask(running: Running, seen: Seen, ended: asyncio.Event, *, strict: bool) -> None:
    """Ask again and again: money is neither made nor lost, and nothing goes back."""
    as_of = moves = 0
    while not ended.is_set():
        token = f"{running.log.identity}.{await running.log.head()}" if strict else None
        began = time.monotonic()
        try:
            answer = await running.ask(Books(), after=token, wait=30, strict=strict)
        except DiptychError as error:
            seen.found.append(f"a query has failed: {error}")
            return
        seen.queries.append(time.monotonic() - began)
        total, counted = answer.value
        if total:
            seen.found.append(f"a query has seen {total} made of nothing, as of {answer.as_of}")
        if counted % 2 or counted < moves or (strict and answer.as_of < as_of):
            seen.found.append(
                f"a query has gone back from {moves} moves as of {as_of} to {counted} as of "
                f"{answer.as_of}"
            )
        as_of, moves = answer.as_of, counted
        await asyncio.sleep(0)


async def _check(running: Running) -> list[str]:
    """Hold what a program's version has applied against the log."""
    await running.catch_up()
    return [
        f"{verdict.projection} is not proved: {verdict.reason}"
        for verdict in await running.verify()
        if not verdict.ok
    ]


async def _check_rows(running: Running) -> list[str]:
    """Hold the rows of the version that is live against a cold fold."""
    return [
        f"{rows.projection} has rows that differ: {rows}"
        for rows in await running.verify_rows()
        if not rows.ok
    ]


def _move(rng: random.Random) -> Move:
    a, b = rng.sample(range(ACCOUNTS), 2)
    return Move(f"a{a}", f"a{b}", rng.randrange(1, 6))


async def _measure(kills: int, kind: str, events: int) -> Sequence[str]:
    seen = Seen()
    with tempfile.TemporaryDirectory() as folder, backends.backend(kind, Path(folder)) as backend:
        backend = backend.within(Path(folder))
        await rebuild_under_load(
            backend, random.Random(1), seen, kills, events, max(events // (4 * kills), LEAST_PAGE)
        )
    seen.queries.sort()
    p99 = seen.queries[-1 - len(seen.queries) // 100]
    print(f"{seen.killed} builders killed on {kind}, {len(seen.found)} violations")
    print(f"written: {seen.written:,.0f} commands/s beside it, of {seen.most:,.0f}")
    print(
        f"{len(seen.queries):,} queries: median {statistics.median(seen.queries) * 1000:.1f} ms, "
        f"p99 {p99 * 1000:.1f} ms, slowest {seen.queries[-1] * 1000:.1f} ms"
    )
    print(f"switches: slowest {max(seen.switches):.3f} s")
    return seen.found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    found = asyncio.run(_measure(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
    print(*found[:20], sep="\n")
    sys.exit(bool(found))
