"""What other processes do to a log: ``python -m tests.logs.worker <what> <path> …``."""

import asyncio
import json
import os
import sys
import warnings
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

from diptych.errors import DiptychError
from diptych.log import Append, Appended, Condition, EventQuery, NewEvent
from diptych.logs.sqlite import SqliteLog
from diptych.messages import new_id


def event(tag: str) -> NewEvent:
    return NewEvent(new_id(), "Taken", (tag,), b"{}", b"{}")


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


async def identity(path: Path) -> None:
    log = await SqliteLog.open(path)
    say(log.identity)
    await log.close()


async def once(path: Path) -> None:
    log = await SqliteLog.open(path)
    await log.append([Append((event("a:1"),))])
    await log.close()


async def race(path: Path, rounds: int) -> None:
    """Try to take every seat, eight at a time, when told to start; say which were won."""
    log = await SqliteLog.open(path)
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    won: dict[int, int] = {}
    numbers = iter(range(rounds))

    async def racer() -> None:
        for number in numbers:
            tag = f"seat:{number}"
            condition = Condition(EventQuery.of(["Taken"], [tag]))
            (outcome,) = await log.append([Append((event(tag),), (condition,))])
            if isinstance(outcome, Appended):
                won[number] = outcome.last

    await asyncio.gather(*(racer() for _ in range(8)))
    say(won)
    await log.close()


async def fill(path: Path) -> None:
    """Append for ever, several at a time; say the id of each event once it is acknowledged."""
    log = await SqliteLog.open(path)
    numbers = count()

    async def client() -> None:
        while True:
            one, two = (event(f"n:{next(numbers)}") for _ in range(2))
            await log.append([Append((one, two), key=one.id)])
            say([one.id, two.id])

    await asyncio.gather(*(client() for _ in range(16)))


def fork(path: Path) -> None:
    """Use a log in a forked child, and say what came of it; then use it in the parent."""
    with asyncio.Runner() as runner:
        log = runner.run(SqliteLog.open(path))
        child = os.fork()
        if child == 0:
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: log.append([]),
                log.read,
                log.head,
                lambda: log.wait(0),
            ]

            async def make(call: Callable[[], Awaitable[object]]) -> None:
                await call()

            for call in calls:
                try:
                    asyncio.run(make(call))
                    say("went on working")
                except DiptychError as error:
                    say(error.code)
            asyncio.run(log.close())
            os._exit(0)
        os.waitpid(child, 0)
        (outcome,) = runner.run(log.append([Append((event("a:1"),))]))
        say(outcome.last if isinstance(outcome, Appended) else None)
        runner.run(log.close())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    what, path = sys.argv[1], Path(sys.argv[2])
    if what == "fork":
        fork(path)
    elif what == "race":
        asyncio.run(race(path, int(sys.argv[3])))
    else:
        asyncio.run({"identity": identity, "once": once, "fill": fill}[what](path))
