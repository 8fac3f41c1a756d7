"""One process that is used for long: laps of equal work, and after each what it holds.

    python -m torture.soaker <log> <views> <seed> <small|real> [module:function]

It says ``ready`` and waits for a line; then for each line ``lap`` it does a lap and says a sample
in JSON, for ``mark`` it says nothing, and for ``types`` which types there are more objects of than
at the mark. The function is called first: with it the tests plant bugs.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing, suppress
from importlib import import_module
from typing import Annotated, Any, Final

import asyncpg
import msgspec

from diptych import App, Command, Event, Key, Query, Rejected, Running, Tag, View, Views
from diptych.errors import CheckpointMoved, DiptychError
from diptych.http import service
from diptych.logs.postgres import PostgresLog
from diptych.logs.sqlite import SqliteLog
from diptych.messages import new_id
from diptych.sql.sqlite import Database
from torture.asgi import Caller, Frames
from torture.soak import Sample

NAMES = 40
COMMANDS = 240
AT_ONCE = 12
STREAMS = 6
SHORT = 8_000
"""In a log of more events a projection is not rewound any more: a lap would take ever longer."""

PAGE = 2500
"""Events at the beginning; more than an engine reads at once."""

SMALL = 300
"""Events of which the log keeps the tags in memory, so that this is soon full."""

STATEMENTS = 20
"""Prepared statements that a connection to PostgreSQL keeps."""

KIBIBYTES = 1000
"""Pages of a file that a connection to SQLite keeps."""

FAULT = "DIPTYCH_TORTURE_FAULT"

Name = Annotated[str, Tag("name")]


class Noted(Event):
    name: Name
    number: int


class Note(Command):
    name: Name
    number: int


class Count(View):
    name: Key[str]
    count: int
    last: int


class Journal(View):
    name: Key[str]
    entries: int


class CountOf(Query[int]):
    name: str


def notes() -> App:
    """Return the application. Of events whose number ends in 77 the fold fails, when told to."""
    app = App("notes")

    @app.model(0)
    def seen(state: int, event: Noted) -> int:
        return state + 1

    @app.decides
    def note(command: Note, seen: int) -> Iterator[Noted]:
        if command.number < 0:
            raise Rejected("a number is not below 0", name=command.name, seen=seen)
        yield Noted(command.name, command.number)

    def name_of(event: Noted) -> str:
        return event.name

    @app.projects(Count, key=name_of)
    def count(row: Count | None, event: Noted, key: str) -> Count:
        if event.number % 100 == 77 and os.environ.get(FAULT):
            raise ValueError("poison")
        return Count(key, 1 if row is None else row.count + 1, event.number)

    @app.projects(Journal, key=name_of)
    def journal(row: Journal | None, event: Noted, key: str) -> Journal:
        return Journal(key, 1 if row is None else row.entries + 1)

    @app.answers
    async def count_of(query: CountOf, views: Views) -> int:
        row = await views.get(Count, query.name)
        return 0 if row is None else row.count

    return app


class Lap:
    """A lap: everything that an application is used for, each as often as in the lap before."""

    def __init__(self, running: Running, log: str, views: str, rng: random.Random) -> None:
        self._running = running
        self._addresses = log, views
        self._rng = rng
        self._caller = Caller(service(running))

    async def run(self) -> int:
        """Do one; return how many commands that were."""
        await self._commands()
        await self._cancelled()
        await self._requests()
        await self._streams()
        await self._poison()
        await self._worker_comes_and_goes()
        await self._looked_after()
        return COMMANDS

    async def begin(self) -> None:
        """Fill the log, so that a page of it is as large in the first lap as in the last."""
        await asyncio.gather(*(self._running.submit(self._note()) for _ in range(PAGE)))
        await self._running.catch_up()

    def _note(self, number: int | None = None) -> Note:
        return Note(f"n{self._rng.randrange(NAMES)}", 1 if number is None else number)

    async def _commands(self) -> None:
        """Commands with keys and without, rejected ones, and queries that wait for them."""

        async def client(number: int) -> None:
            for turn in range(COMMANDS // AT_ONCE):
                note = self._note(-1 if turn % 5 == 0 else None)
                with suppress(Rejected):
                    key = new_id() if turn % 3 else None
                    receipt = await self._running.do(note, key=key)
                    if turn % 4 == 0:
                        await self._running.ask(CountOf(note.name), after=receipt.token)

        await asyncio.gather(*map(client, range(AT_ONCE)))

    async def _cancelled(self) -> None:
        """Commands and queries whose callers have had enough, sooner or later."""
        head = await self._running.log.head()
        token = f"{self._running.log.identity}.{head + 1_000_000}"
        tasks: list[asyncio.Task[Any]] = []
        for number in range(20):
            wait = self._running.ask(CountOf(f"n{number}"), after=token, wait=600)
            tasks += [
                asyncio.create_task(_quietly(self._running.do(self._note()))),
                asyncio.create_task(_quietly(wait)),
            ]
            await asyncio.sleep(0)
        for task in tasks:
            for _ in range(self._rng.randrange(3)):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _requests(self) -> None:
        """The same over HTTP; some clients go away before they are answered."""
        for number in range(20):
            note = {"name": f"n{number}", "number": number - 2}
            await self._caller.post("/commands/Note", note, gone=number % 5 == 4)
            await self._caller.get(f"/queries/CountOf?name=n{number}")
        for address in ("/metrics", "/health/ready", "/nowhere"):
            await self._caller.get(address)

    async def _streams(self) -> None:
        """Live queries and streams of events, opened, followed and left."""
        frames: list[Frames] = []
        for number in range(STREAMS):
            frames.append(self._caller.stream(f"/queries/CountOf?name=n{number}"))
            frames.append(self._caller.stream(f"/events?after=0&types=Noted&tags=name:n{number}"))
        for number in range(STREAMS):
            await self._running.do(Note(f"n{number}", 1))
        for number, one in enumerate(frames):
            await one.next()
            await (one.leave() if number % 3 else one.cancel())
        for number in range(STREAMS):
            async with aclosing(self._running.live(CountOf(f"n{number}"))) as answers:
                await anext(answers)

    async def _poison(self) -> None:
        """An event is parked, with what comes after it, and both are applied in the end."""
        os.environ[FAULT] = "yes"
        try:
            note = self._note(77)
            await self._running.do(note)
            await self._running.do(Note(note.name, 1))
            await self._running.catch_up()
        finally:
            del os.environ[FAULT]
        while await self._running.parked.keys():
            with suppress(CheckpointMoved):
                await self._running.parked.retry()

    async def _worker_comes_and_goes(self) -> None:
        log, views = self._addresses
        async with notes().open(log=log, views=views) as other:
            await other.do(self._note())
            await other.catch_up()

    async def _looked_after(self) -> None:
        running = self._running
        if await running.log.head() < SHORT:
            await running.steering.rewind("journal")
        await running.catch_up()
        await running.status()
        await running.verify(since="last")
        await running.projections.plan()


async def _quietly(call: Any) -> None:
    with suppress(DiptychError):
        await call


# --- what the process holds -----------------------------------------------------------------------

LOOKS: Final = 10
"""Something is always under way for a moment: the least of so many looks counts."""


async def sample(commands: int, watcher: asyncpg.Connection | None) -> Sample:
    """Look what there is, when the work is done."""
    least: dict[str, int] = {}
    for _ in range(LOOKS):
        found = {
            "tasks": len(asyncio.all_tasks()),
            "threads": threading.active_count(),
            "descriptors": _descriptors(),
            "connections": await _connections(watcher),
        }
        least = {name: min(value, least.get(name, value)) for name, value in found.items()}
        await asyncio.sleep(0.01)
    for _ in range(3):
        gc.collect()
    return Sample(commands, _memory(), sys.getallocatedblocks(), **least)


def _descriptors() -> int:
    with suppress(OSError):
        return len(os.listdir("/proc/self/fd"))
    return len(os.listdir("/dev/fd"))


def _memory() -> int:
    """Return the bytes that are resident; 0 where the system does not say."""
    with suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


async def _connections(watcher: asyncpg.Connection | None) -> int:
    if watcher is None:
        return 0
    found: int = await watcher.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    )
    return found


def _types() -> Counter[str]:
    return Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())


def _small_caches() -> None:
    """Have what is kept for speed be full after a lap or two."""
    logs: tuple[Any, ...] = (SqliteLog, PostgresLog)
    for log in logs:
        log.open.__func__.__kwdefaults__["remembered"] = SMALL
    kind: Any = Database
    opening = kind._connect

    def opened(database: Database, *, writing: bool = False) -> Any:
        connection = opening(database, writing=writing)
        connection.execute(f"PRAGMA cache_size = -{KIBIBYTES}")
        return connection

    kind._connect = opened
    connect: Any = asyncpg.connect

    def connecting(*given: Any, **named: Any) -> Any:
        return connect(*given, **{**named, "statement_cache_size": STATEMENTS})

    asyncpg.__dict__["connect"] = connecting


async def main(log: str, views: str, seed: str, caches: str) -> None:
    """Do what standard input asks for."""
    warnings.simplefilter("ignore")
    if caches == "small":
        _small_caches()
    watcher = None
    if log.startswith("postgresql:"):
        watcher = await asyncpg.connect(log.partition("?")[0])
    async with notes().open(log=log, views=views) as running:
        lap, commands, before = Lap(running, log, views, random.Random(seed)), 0, Counter[str]()
        await lap.begin()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        while asked := (await asyncio.to_thread(sys.stdin.readline)).strip():
            if asked == "lap":
                commands += await lap.run()
                found = await sample(commands, watcher)
                print(msgspec.json.encode(found).decode(), flush=True)
            elif asked == "mark":
                before = _types()
            else:
                print(json.dumps((_types() - before).most_common(25)), flush=True)
    if watcher is not None:
        await watcher.close()


if __name__ == "__main__":
    if len(sys.argv) > 5:
        module, _, function = sys.argv[5].partition(":")
        getattr(import_module(module), function)()
    asyncio.run(main(*sys.argv[1:5]))
