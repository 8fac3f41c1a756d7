"""Point 9, and 10 with values: views and answers, held against a cold fold of the log."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from diptych.codec import Codec
from diptych.errors import DiptychError
from diptych.log import Append, Log, NewEvent, StoredEvent
from diptych.logs.memory import MemoryLog
from diptych.messages import Query
from diptych.read.engine import Engine
from diptych.read.projections import Keyed, Projection, fold_events
from diptych.read.queries import Answering, Queries
from diptych.read.select import select
from diptych.read.stores.sqlite import SqliteViews
from diptych.read.verify import Verdict
from diptych.read.views import View
from diptych.sql.sqlite import Database
from diptych.testing.checker.violations import Found, Violation, read_all
from diptych.testing.history import AskRequest, Call, History, Told
from diptych.testing.recording import plain_json
from diptych.testing.worlds import stored_rows


class _Definitions(Protocol):
    @property
    def codec(self) -> Codec: ...
    @property
    def projections(self) -> Sequence[Projection]: ...
    @property
    def answers(self) -> Sequence[Answering]: ...


class _Views(Protocol):
    @property
    def as_of(self) -> int | None: ...
    async def all(self, statement: Any) -> list[Any]: ...


class _Running(Protocol):
    """The part of ``diptych.Running`` that is looked at."""

    @property
    def definitions(self) -> Any: ...
    @property
    def log(self) -> Log: ...
    @property
    def views(self) -> Any: ...
    async def verify(self) -> list[Verdict]: ...


async def check_views(
    running: _Running,
    history: History | Iterable[Call] = (),
    *,
    answers: Collection[type[Query[Any]]] = (),
) -> list[Violation]:
    """Check every view against a cold fold of the log up to its checkpoint, and every proof.

    ``answers`` are types of queries that read one view by one statement: each answer to them in
    the history must be what a cold fold up to its ``as_of`` gives (point 10).
    """
    found = Found()
    definitions: _Definitions = running.definitions
    for verdict in await running.verify():
        if not verdict.ok:
            found.add(9, "A proof does not hold", view=verdict.projection, why=verdict.reason)
    rows: list[tuple[Projection, type[View], int, list[Any]]] = []
    for one in definitions.projections:
        for view in one.views:
            views: _Views = running.views
            read = await views.all(select(view))
            rows.append((one, view, views.as_of or 0, read))
    events = await read_all(running.log, found)
    for one, view, position, read in rows:
        wanted = await _cold_rows(definitions, one, view, events[:position])
        _compare(view, position, read, wanted, found)
    if answers:
        calls = history.calls if isinstance(history, History) else list(history)
        await _check_answers(definitions, calls, {a.__name__ for a in answers}, events, found)
    return found.violations


async def _cold_rows(
    definitions: _Definitions, one: Projection, view: type[View], events: Sequence[StoredEvent]
) -> list[Any]:
    if isinstance(one, Keyed):
        names = {definitions.codec.of(event).name for event in one.events}
        recorded = (definitions.codec.recorded(e) for e in events if e.type in names)
        return stored_rows(view, list(fold_events(one, recorded, {}).values()))
    async with AsyncExitStack() as stack:  # a handler: its own tables, in memory
        cold = await Cold.make(stack, definitions.codec, [one], [])
        await cold.advance(events)
        rows: list[Any] = (await cold.store.all(select(view))).rows
        return rows


def _compare(
    view: type[View], position: int, read: list[Any], wanted: list[Any], found: Found
) -> None:
    ours, theirs = ({plain_json(row) for row in rows} for rows in (read, wanted))
    if ours == theirs and len(read) == len(wanted):
        return
    found.add(
        9,
        "Rows are not the fold of the log",
        view=view.__name__,
        position=position,
        too_many=sorted(ours - theirs)[:3],
        missing=sorted(theirs - ours)[:3],
    )


async def _check_answers(
    definitions: _Definitions,
    calls: Iterable[Call],
    names: set[str],
    events: Sequence[StoredEvent],
    found: Found,
) -> None:
    asked = [
        (call.answer.as_of, call, call.request, call.answer)
        for call in calls
        if isinstance(call.request, AskRequest)
        and isinstance(call.answer, Told)
        and call.request.query in names
        and call.answer.as_of <= len(events)
    ]
    codec = definitions.codec
    async with AsyncExitStack() as stack:
        cold = await Cold.make(stack, codec, definitions.projections, definitions.answers)
        for as_of, call, request, answer in sorted(asked, key=lambda one: one[0]):
            await cold.advance(events[:as_of])
            query = codec.parse(codec.queries, request.query, bytes(request.message))
            try:
                wanted = plain_json((await cold.queries.ask(query)).value)
            except DiptychError as error:
                wanted = error.code.encode()
            if wanted != bytes(answer.value):
                found.add(
                    10,
                    "An answer is not that of its position",
                    client=call.client,
                    query=request.query,
                    as_of=as_of,
                    token=request.after,
                    got=bytes(answer.value)[:200],
                    wanted=wanted[:200],
                )


class Cold:
    """Projections built from nothing, in memory, event by event."""

    def __init__(
        self, log: MemoryLog, store: SqliteViews, engine: Engine, queries: Queries
    ) -> None:
        self.log = log
        self.store = store
        self.engine = engine
        self.queries = queries

    @classmethod
    async def make(
        cls,
        stack: AsyncExitStack,
        codec: Codec,
        projections: Sequence[Projection],
        answers: Sequence[Answering],
    ) -> Cold:
        """Make the views; the stack closes them."""
        log, store = MemoryLog(), SqliteViews(Database(None))
        stack.push_async_callback(log.close)
        stack.push_async_callback(store.close)
        engine = Engine(log, codec, store, projections)
        await engine.open()
        return cls(log, store, engine, Queries(log, codec, [engine], answers))

    async def advance(self, events: Sequence[StoredEvent]) -> None:
        """Apply those of the log's first events that have not been applied yet."""
        news = events[await self.log.head() :]
        if news:
            await self.log.append([Append(tuple([_again(event) for event in news]))])
            await self.engine.catch_up()


def _again(event: StoredEvent) -> NewEvent:
    return NewEvent(event.id, event.type, event.tags, bytes(event.data), bytes(event.metadata))
