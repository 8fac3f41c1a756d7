"""What other processes do to a log: ``python -m tests.logs.worker <what> <file or URL> …``."""

import asyncio
import json
import os
import sys
import warnings
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

from diptych.errors import DiptychError
from diptych.log import Append, Appended, Condition, EventQuery, Log, NewEvent, Refused
from diptych.logs.postgres import PostgresLog
from diptych.logs.sqlite import SqliteLog
from diptych.messages import new_id
from diptych.testing.contracts.making import put


async def opened(where: str) -> Log:
    if where.startswith("postgresql:"):
        return await PostgresLog.open(where)
    return await SqliteLog.open(Path(where))


def event(*tags: str) -> NewEvent:
    return NewEvent(new_id(), "Taken", tags, b"{}", b"{}")


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


async def identity(where: str) -> None:
    log = await opened(where)
    say(log.identity)
    await log.close()


async def once(where: str) -> None:
    log = await opened(where)
    await log.append([Append((event("a:1"),))])
    await log.close()


async def race(where: str, rounds: int) -> None:
    """Try to take every seat, eight at a time, when told to start; say which were won."""
    log = await opened(where)
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


async def keys(where: str, rounds: int) -> None:
    """Use keys that others use too, when told to start; say how each was answered."""
    log = await opened(where)
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    answers: dict[str, list[tuple[int, bool]]] = {}
    numbers = iter(range(rounds))

    async def client() -> None:
        for number in numbers:
            (outcome,) = await log.append([Append((event(f"key:{number}"),), key=f"k{number}")])
            assert isinstance(outcome, Appended)
            answers.setdefault(f"k{number}", []).append((outcome.last, outcome.replayed))

    await asyncio.gather(*(client() for _ in range(4)))
    say(answers)
    await log.close()


async def conflicts(where: str, rounds: int) -> None:
    """Race like `race`; say by which positions the conflicts were explained."""
    log = await opened(where)
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    answers: dict[int, int] = {}
    for number in range(rounds):
        tag = f"seat:{number}"
        condition = Condition(EventQuery.of(["Taken"], [tag]))
        (outcome,) = await log.append([Append((event(tag),), (condition,))])
        answers[number] = outcome.position if isinstance(outcome, Refused) else outcome.last
    say(answers)
    await log.close()


async def fill(where: str) -> None:
    """Append for ever, several at a time; say the id of each event once it is acknowledged."""
    log = await opened(where)
    numbers = count()

    async def client() -> None:
        while True:
            one, two = (event(f"n:{next(numbers)}", f"by:{os.getpid()}") for _ in range(2))
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
        outcome = runner.run(put(log, event("a:1")))
        say(outcome.last if isinstance(outcome, Appended) else None)
        runner.run(log.close())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    what, where = sys.argv[1], sys.argv[2]
    if what == "fork":
        fork(Path(where))
    elif what in ("race", "keys", "conflicts"):
        asyncio.run(
            {"race": race, "keys": keys, "conflicts": conflicts}[what](where, int(sys.argv[3]))
        )
    else:
        asyncio.run({"identity": identity, "once": once, "fill": fill}[what](where))
