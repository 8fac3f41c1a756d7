"""Load that goes on while things break: random clients and readers of a log, or an application."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from diptych import Running
from diptych.log import Log
from diptych.testing.checker import Violation, check_history, check_views
from diptych.testing.history import Call, History
from diptych.testing.recording import AppRecorder, Recorder
from torture.application import BalanceOf, accounts, customer
from torture.backends import open_log
from torture.clients import Client, follow

CLIENTS = 6


class Load:
    """Goes on until ``ended``, counted in steps: calls that were answered, or have failed."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._steps = 0
        self._news = asyncio.Condition()

    async def repeat(self, step: Callable[[], Awaitable[object]]) -> None:
        """Repeat a step until the end."""
        while not self.ended.is_set():
            await step()
            self._steps += 1
            async with self._news:
                self._news.notify_all()

    async def more(self, steps: int) -> None:
        """Wait until so many more steps were made."""
        wanted = self._steps + steps
        async with self._news:
            await self._news.wait_for(lambda: self._steps >= wanted)

    async def until(self, what: Coroutine[Any, Any, object], steps: int) -> None:
        """Wait for something, at most for so many steps or a second."""
        either = [asyncio.ensure_future(what), asyncio.ensure_future(self.more(steps))]
        try:
            await asyncio.wait(either, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in either:
                task.cancel()
            await asyncio.gather(*either, return_exceptions=True)


@asynccontextmanager
async def on_logs(
    logs: Sequence[Log], history: History, rng: random.Random
) -> AsyncGenerator[Load]:
    """Have clients and readers at work on logs that are one."""
    load = Load()
    keys = [f"key-{number}" for number in range(CLIENTS)]
    async with asyncio.TaskGroup() as group:
        for number in range(2):
            reader = Recorder(rng.choice(logs), history, f"reader-{number}")
            group.create_task(
                follow(reader, f"reader-{number}", _new(rng), load.ended, patient=True)
            )
        for number in range(CLIENTS):
            recorder = Recorder(rng.choice(logs), history, f"client-{number}")
            group.create_task(load.repeat(partial(Client(recorder, _new(rng), keys).work, 1)))
        yield load
        load.ended.set()


@asynccontextmanager
async def on_application(
    log: str, views: str, history: History, rng: random.Random
) -> AsyncGenerator[Load]:
    """Have an application do commands and answer queries while its projections run."""
    async with (
        accounts(inline=log == views).open(log=log, views=views) as running,
        customers(running, history, rng) as load,
    ):
        yield load


@asynccontextmanager
async def customers(running: Running, history: History, rng: random.Random) -> AsyncGenerator[Load]:
    """Have customers of an application that is open do commands and ask queries."""
    load = Load()
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            app = AppRecorder(running, history, f"client-{number}")
            group.create_task(load.repeat(partial(customer, app, number, _new(rng))))
        yield load
        load.ended.set()


async def check_log(url: str, history: History) -> list[Violation]:
    """Check a history on a log that is opened anew."""
    log = await open_log(url)
    try:
        return await check_history(history, log)
    finally:
        await log.close()


async def check_application(log: str, views: str, calls: Iterable[Call]) -> list[Violation]:
    """Check an application that is opened anew: its views as they were left, and caught up."""
    calls = list(calls)
    app = accounts(inline=log == views)
    async with app.open(log=log, views=views, projections=False) as running:
        found = await check_history(calls, running.log)
        found += await check_views(running)
        if found:  # nobody can go on from what is broken already
            return found
        await running.catch_up()
        return found + await check_views(running, calls, answers=[BalanceOf])


@asynccontextmanager
async def opened(urls: Sequence[str], **options: Any) -> AsyncGenerator[list[Log]]:
    """Open logs."""
    async with AsyncExitStack() as stack:
        logs: list[Log] = []
        for url in urls:
            logs.append(await open_log(url, **options))
            stack.push_async_callback(logs[-1].close)
        yield logs


def _new(rng: random.Random) -> random.Random:
    return random.Random(rng.random())
