"""A whole replay, from the file to verified views, and the report on it."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from diptych import Limits, Running
from examples.flights import app
from examples.flights.replay.commands import Part, commands, count
from examples.flights.replay.file import Slice, open_flights
from examples.flights.replay.load import Load
from examples.flights.replay.reader import in_memory, reader


class Report(Struct, frozen=True, omit_defaults=True):
    """What a replay has done, and what it took."""

    accepted: dict[str, int]
    rejected: dict[str, int]
    events: int
    seconds: float
    commands_per_second: float
    caught_up_seconds: float
    peak_memory_mb: float
    verified: bool
    stopped: bool = False


LIMITS = Limits(states=20_000)
"""Flights of two weeks and their aircraft stay in memory; those of a day would do."""


async def replay(
    log: str, views: str, slice: Slice, part: Part = (1, 1), *, verify: bool = True
) -> tuple[Load, Report]:
    """Send what has not been answered yet; wait for the views; prove them. Ctrl-C stops it."""
    alone = in_memory(log, views)
    async with app.open(log=log, views=views, limits=LIMITS, projections=alone) as running:
        load = Load(running)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, load.stop)
        try:
            async with reader(running, log, views) as catch_up:
                with open_flights() as flights:
                    async with _progress(load, running, count(flights, slice) // part[1]):
                        began = time.perf_counter()
                        await load.run(commands(flights, slice, part))
                        sent = time.perf_counter()
                        await catch_up()
                        caught_up = time.perf_counter()
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        proved = verify and not load.stopped
        verified = proved and all(verdict.ok for verdict in await running.verify())
        events = await running.log.head()
    seconds = sent - began
    return load, Report(
        accepted=_by_name(load.accepted),
        rejected=_by_name(load.rejected),
        events=events,
        seconds=round(seconds, 3),
        commands_per_second=round((load.answered - load.recalled) / seconds, 1),
        caught_up_seconds=round(caught_up - sent, 3),
        peak_memory_mb=round(peak_memory_mb(), 1),
        verified=verified,
        stopped=load.stopped,
    )


def peak_memory_mb() -> float:
    """Return the most memory that this process and the reader have used, in MB."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = sum(resource.getrusage(which).ru_maxrss for which in both)
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _by_name(counted: dict[str, int]) -> dict[str, int]:
    return {name.lower(): counted[name] for name in sorted(counted)}


@asynccontextmanager
async def _progress(load: Load, running: Running, total: int) -> AsyncGenerator[None]:
    """Draw a bar on stderr, where that is a terminal."""
    screen = Console(stderr=True)
    if not screen.is_terminal:
        yield
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,} commands"),
        TextColumn("[cyan]{task.fields[rate]:,.0f}/s"),
        TextColumn("[dim]views behind by {task.fields[lag]:,}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task("replaying", total=total, rate=0.0, lag=0)

        async def follow() -> None:
            began = time.perf_counter()
            while True:
                await asyncio.sleep(0.25)
                done = load.answered
                rate = (done - load.recalled) / (time.perf_counter() - began)
                lag = max((one.lag for one in await running.status()), default=0)
                progress.update(task, completed=done, rate=rate, lag=lag)

        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
