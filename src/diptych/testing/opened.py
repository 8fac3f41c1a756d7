"""Scenarios with an event loop and databases: an opened application, and queries in memory.

Everything runs on an event loop in a thread of its own, so that a scenario can be told inside a
running loop as well as outside of one.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import weakref
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from diptych.errors import Invalid, ProjectionFailed
from diptych.log import Append, Log
from diptych.logs.memory import MemoryLog
from diptych.messages import Actor, Event, Query
from diptych.read.following.engine import Engine
from diptych.read.parking.keys import ParkedKeys
from diptych.read.port import ViewStore
from diptych.read.queries import Queries
from diptych.read.select import select
from diptych.read.stores.sqlite import SqliteViews
from diptych.read.views import View
from diptych.sql.addresses import without_password
from diptych.sql.sqlite import Database
from diptych.testing.worlds import Compiled, Composed, Fact, Given, Outcome, Step, When, World

R = TypeVar("R")
T = TypeVar("T")
V = TypeVar("V", bound=View)

Run: TypeAlias = Callable[[World, Sequence[Step], Outcome], Outcome]

FRESH = "sqlite:"
"""The URL that stands for a new SQLite file."""


@contextmanager
def own_loop() -> Generator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Give the function that runs a coroutine, on a loop in a thread of its own."""
    with ThreadPoolExecutor(1, "diptych-scenario") as thread:
        runner = asyncio.Runner()
        try:
            yield lambda coroutine: thread.submit(runner.run, coroutine).result()
        finally:
            thread.submit(runner.close).result()


# --- an opened application ------------------------------------------------------------------------


class Opened:
    """The world of an opened application."""

    def __init__(
        self, definitions: Compiled, running: Any, wait: Callable[[Coroutine[Any, Any, Any]], Any]
    ) -> None:
        self._definitions = definitions
        self._running = running
        self._wait = wait

    def append(self, facts: Sequence[Fact]) -> None:
        """Append events to the log, as another process would."""
        self._wait(_append(self._running.log, facts))

    def do(self, step: When) -> Sequence[Event]:
        """Send a command to the bus; read its events from the log."""

        async def work() -> list[Event]:
            receipt = await self._running.do(step.command, actor=step.actor)
            if not receipt.first:
                return []
            log: Log = self._running.log
            page = await log.read(
                after=receipt.first - 1,
                until=receipt.last,
                limit=receipt.last - receipt.first + 1,
            )
            return [self._definitions.codec.event(stored) for stored in page.events]

        events: list[Event] = self._wait(work())
        return events

    def rows(self, view: type[V]) -> list[V]:
        """Read all rows of a view, when it has caught up."""

        async def work() -> list[V]:
            await self._running.catch_up()
            await _require_applied(self._running.parked)
            rows: list[V] = await self._running.views.all(select(view))
            return rows

        found: list[V] = self._wait(work())
        return found

    def ask(self, query: Query[R], actor: Actor | None) -> R:
        """Ask a query, when all views have caught up."""

        async def work() -> R:
            await self._running.catch_up()
            await _require_applied(self._running.parked)
            answer = await self._running.ask(query, actor=actor)
            value: R = answer.value
            return value

        answered: R = self._wait(work())
        return answered


class Opener:
    """Opens an application for each scenario."""

    def __init__(self, app: Composed, log: str, views: str) -> None:
        self.app = app
        self.log = log
        self.views = views

    def place(self) -> Place:
        """Return the place of one scenario."""
        return Place(self)


class Place:
    """Where one scenario takes place, and how much of it has.

    A log that outlives its application is gone on with at the next check; one that does not is
    made anew, and all steps are taken again. So it is when two scenarios begin alike.
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._folder: Path | None = None
        self._done: tuple[Step, ...] = ()
        self._outcome = Outcome()

    @contextmanager
    def world(
        self, definitions: Compiled, steps: tuple[Step, ...], run: Run
    ) -> Generator[tuple[World, Outcome]]:
        """Open the application and take the steps that have not been taken yet."""
        __tracebackhide__ = True
        if self._opener.log == "memory:" or not _begins(steps, self._done):
            self._start_anew()
        log, views = self._urls()
        opened = self._opener.app.open(log=log, views=views)
        with own_loop() as wait:
            running = wait(_enter(opened))
            try:
                world = Opened(definitions, running, wait)
                pending = steps[len(self._done) :]
                # Should a step fail, nothing begins with what is done: the next check starts anew.
                self._done = (*steps, Given(()))
                self._outcome = run(world, pending, self._outcome)
                self._done = steps
                yield world, self._outcome
            finally:
                wait(_leave(opened))

    def _start_anew(self) -> None:
        if self._done and self._opener.log not in ("memory:", FRESH):
            raise Invalid(
                "Two scenarios that begin alike cannot share one log; write given(...) out for "
                "each, or use log='sqlite:'",
                field="log",
                rule="memory:, or sqlite: for a new file",
                got=without_password(self._opener.log),
            )
        self._folder, self._done, self._outcome = None, (), Outcome()

    def _urls(self) -> tuple[str, str]:
        log, views = self._opener.log, self._opener.views
        if FRESH in (log, views):
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="diptych-"))
                weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            if views == FRESH:
                views = _url(self._folder / ("log.db" if log == FRESH else "views.db"))
            if log == FRESH:
                log = _url(self._folder / "log.db")
        return log, views


def _begins(steps: tuple[Step, ...], done: tuple[Step, ...]) -> bool:
    return len(done) <= len(steps) and all(
        one is other for one, other in zip(done, steps, strict=False)
    )


def _url(path: Path) -> str:
    return f"sqlite:///{quote(str(path))}"


async def _enter(opened: Any) -> Any:
    return await opened.__aenter__()


async def _leave(opened: Any) -> None:
    await opened.__aexit__(None, None, None)


async def _append(log: Log, facts: Sequence[Fact]) -> None:
    await log.append([Append(tuple([fact.new for fact in facts]))])


async def _all_rows(store: ViewStore, view: type[V]) -> list[V]:
    found = await store.all(store.plan(select(view)))
    rows: list[V] = found.rows
    return rows


# --- views in memory ------------------------------------------------------------------------------


def answer_of(
    definitions: Compiled, facts: Sequence[Fact], query: Query[R], actor: Actor | None
) -> R:
    """Answer a query from an in-memory database that holds what the facts come to."""

    async def work(queries: Queries, _store: ViewStore) -> R:
        return (await queries.ask(query, actor=actor)).value

    return _read(definitions, facts, work)


def rows_of(definitions: Compiled, facts: Sequence[Fact], view: type[V]) -> list[V]:
    """Return the rows of a view that a handler keeps, from an in-memory database."""

    async def work(_queries: Queries, store: ViewStore) -> list[V]:
        return await _all_rows(store, view)

    return _read(definitions, facts, work)


async def _require_applied(parked: ParkedKeys) -> None:
    """Raise ``ProjectionFailed`` for what could not be applied: a test wants to know."""
    for key in await parked.keys():
        raise ProjectionFailed(
            "The projection cannot apply this event; its key would be parked",
            projection=key.projection,
            position=key.position,
            event=key.event,
            why=f"{key.kind}: {key.error}",
        )


def _read(
    definitions: Compiled,
    facts: Sequence[Fact],
    work: Callable[[Queries, ViewStore], Coroutine[Any, Any, T]],
) -> T:
    async def whole() -> T:
        async with AsyncExitStack() as stack:
            log = MemoryLog()
            stack.push_async_callback(log.close)
            store = SqliteViews(Database(None))
            stack.push_async_callback(store.close)
            if facts:
                await _append(log, facts)
            codec = definitions.codec
            engine = Engine(log, codec, store, definitions.projections)
            await engine.open()
            await engine.catch_up()
            await _require_applied(ParkedKeys(log, codec, [engine]))
            guard = definitions.access.require
            return await work(Queries(log, codec, [engine], definitions.answers, guard), store)

    with own_loop() as wait:
        result: T = wait(whole())
        return result
