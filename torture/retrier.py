"""One who retries what is parked, and dies at a statement; the application, whose fold may fail.

python -m torture.retrier AT LOG VIEWS SLICES [module:function]
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from itertools import count
from typing import Annotated

from diptych import App, Command, Event, Key, Tag, View
from diptych.sql import postgres, sqlite

FAULT = "DIPTYCH_TORTURE_FAULT"
"""The variable that makes an event of which the number ends in 3 fail: "fold" or "key".

No part of the fold, so that the version of the projection is the same with it and without.
"""

Name = Annotated[str, Tag("name")]


class Noted(Event):
    source: Name
    target: Name
    number: int


class Note(Command):
    source: Name
    target: Name
    number: int


class Trail(View):
    """All that a key has seen, in its order: it shows what was lost, doubled or moved."""

    name: Key[str]
    seen: list[int]


def fails(event: Noted, kind: str) -> bool:
    """Whether an event is one that cannot be applied now."""
    return event.number % 10 == 3 and os.environ.get(FAULT) == kind


def trails(slices: int) -> App:
    """Return the application."""
    app = App("trails")

    @app.decides
    def note(command: Note) -> Iterator[Noted]:
        yield Noted(command.source, command.target, command.number)

    def names(event: Noted) -> list[str]:
        if fails(event, "key"):
            raise LookupError("no key")
        return [event.source, event.target]

    @app.projects(Trail, key=names, slices=slices)
    def trail(row: Trail | None, event: Noted, key: str) -> Trail:
        if fails(event, "fold"):
            raise ValueError("no")
        return Trail(key, [*(row.seen if row else ()), event.number])

    return app


def dying(at: int) -> list[bool]:
    """Have this process killed at its ``at``-th statement; 0: never.

    What is returned is empty until they are to be counted.
    """
    armed: list[bool] = []
    statements = count(1)

    def step(_: object) -> None:
        if armed and next(statements) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    connect, open_ = postgres.Database.connect, sqlite.Database._connect  # pyright: ignore[reportPrivateUsage]

    async def connected(self: postgres.Database) -> postgres.Connection:
        connection = await connect(self)
        connection.add_query_logger(step)
        return connection

    def opened(self: sqlite.Database, *, writing: bool = False) -> sqlite3.Connection:
        connection = open_(self, writing=writing)
        connection.set_trace_callback(step)
        return connection

    postgres.Database.connect = connected  # type: ignore[method-assign]
    sqlite.Database._connect = opened  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
    return armed


async def retry(at: int, log: str, views: str, slices: int) -> None:
    """Retry everything, or die."""
    armed = dying(at)
    async with trails(slices).open(log=log, views=views, projections=False) as running:
        armed.append(True)
        await running.parked.retry()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if len(sys.argv) > 5:
        module, _, function = sys.argv[5].partition(":")
        getattr(import_module(module), function)()
    asyncio.run(retry(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
