"""The read side in a process of its own: commands keep one core, projections the other."""

from __future__ import annotations

import asyncio
import signal
import sys
import warnings
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

from diptych import Running, Unavailable
from diptych.errors import SqliteVersionWarning
from examples.flights import app

CatchUp: TypeAlias = Callable[[], Awaitable[None]]
LOOK_SECONDS = 0.02
GATHER_SECONDS = 0.25


def in_memory(log: str, views: str) -> bool:
    """Whether no other process can see the log or the views."""
    return "memory:" in (log, views)


@asynccontextmanager
async def reader(running: Running, log: str, views: str) -> AsyncGenerator[CatchUp]:
    """Keep the views current; gives the function that waits until they are.

    The process ends when its stdin is closed, so it cannot outlive this one. What only this
    process can reach, in memory, it keeps current itself.
    """
    if in_memory(log, views):
        yield running.catch_up
        return
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.flights", "follow", "--log", log, "--views", views),
        stdin=PIPE,
    )

    async def catch_up() -> None:
        head = await running.log.head()
        while any(one.position < head for one in await running.status()):
            if process.returncode is not None:
                raise Unavailable("The process that keeps the views current has ended")
            await asyncio.sleep(LOOK_SECONDS)

    try:
        yield catch_up
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def follow(log: str, views: str) -> None:
    """Be that process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other's to answer
    warnings.simplefilter("ignore", SqliteVersionWarning)  # and it has warned already
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    # By itself it would follow each event at once; in large pages it leaves more to the commands.
    async with app.open(log=log, views=views, projections=False) as running:
        while not ended.is_set():
            await running.catch_up()
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), GATHER_SECONDS)
    loop.remove_reader(sys.stdin.fileno())
