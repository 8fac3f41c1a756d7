"""Point 9, and 10 with values: views and answers, held against a cold fold of the log."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from diptych.codec import Codec
from diptych.errors import DiptychError, ForeignCheckpoint, Unavailable
from diptych.log import Append, Log, NewEvent, StoredEvent
from diptych.logs.memory import MemoryLog
from diptych.messages import Query
from diptych.read.following.engine import Engine
from diptych.read.projections import Keyed, Projection, fold_events
from diptych.read.proving.proof import slice_of
from diptych.read.proving.verify import Verdict
from diptych.read.queries import Answering, Queries
from diptych.read.select import select
from diptych.read.status import Status
from diptych.read.stores.sqlite import SqliteViews
from diptych.read.views import View
from diptych.sql.sqlite import Database
from diptych.testing.checker.violations import Found, Violation, read_all
from diptych.testing.history import AskRequest, Call, Done, History, Told
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
    async def status(self) -> list[Status]: ...


async def check_views(
    running: _Running,
    history: History | Iterable[Call] = (),
    *,
    answers: Collection[type[Query[Any]]] = (),
) -> list[Violation]:
    """Check every view against a cold fold of the log up to its checkpoint, and every proof.

    Each slice's rows are held against the position of that slice. ``answers`` are types of queries
    that read one row: each answer to them in the history must be what a cold fold gives up to its
    ``as_of`` or, as other slices may lie behind, up to a later position that there was already
    (point 10).
    """
    found = Found()
    definitions: _Definitions = running.definitions
    for verdict in await running.verify():
        if not verdict.ok:
            found.add(9, "A proof does not hold", view=verdict.projection, why=verdict.reason)
    rows: list[tuple[Projection, type[View], list[int], list[Any]]] = []
    for one in definitions.projections:
        for view in one.views:
            try:
                reach, read = await _rows(running, one, view)
            except ForeignCheckpoint as error:
                found.add(9, "A view is refused", view=view.__name__, why=str(error))
                continue
            rows.append((one, view, reach, read))
    events = await read_all(running.log, found)
    for one, view, reach, read in rows:
        wanted = await _cold_rows(definitions, one, view, events, reach)
        _compare(view, min(reach), read, wanted, found)
    if answers:
        calls = history.calls if isinstance(history, History) else list(history)
        await _check_answers(definitions, calls, {a.__name__ for a in answers}, events, found)
    return found.violations


async def _rows(
    running: _Running, one: Projection, view: type[View]
) -> tuple[list[int], list[Any]]:
    """Return a view's rows, and the position of each slice while they were read."""
    while True:
        before = await _reach(running, one)
        views: _Views = running.views
        read = await views.all(select(view))
        if before == await _reach(running, one):
            return before, read


async def _reach(running: _Running, one: Projection) -> list[int]:
    (status,) = [s for s in await running.status() if s.projection == one.name]
    if status.state == "away":
        raise Unavailable(status.error or "The read database does not answer", projection=one.name)
    return [s.position for s in status.spans for _ in range(s.first, s.last + 1)]


async def _cold_rows(
    definitions: _Definitions,
    one: Projection,
    view: type[View],
    events: Sequence[StoredEvent],
    reach: Sequence[int],
) -> list[Any]:
    if isinstance(one, Keyed):
        names = {definitions.codec.of(event).name for event in one.events}
        recorded = [definitions.codec.recorded(e) for e in events if e.type in names]
        rows: list[Any] = []
        for position in set(reach):
            folded = fold_events(one, (r for r in recorded if r.position <= position), {})
            rows += [
                row for key, row in folded.items() if reach[slice_of(key, len(reach))] == position
            ]
        return stored_rows(view, rows)
    async with AsyncExitStack() as stack:  # a handler: its own tables, in memory
        cold = await Cold.make(stack, definitions.codec, [one], [])
        await cold.advance(events[: min(reach)])
        return (await cold.store.all(select(view))).rows


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
    calls: Sequence[Call],
    names: set[str],
    events: Sequence[StoredEvent],
    found: Found,
) -> None:
    asked = [
        _Asked(call, call.request, call.answer)
        for call in calls
        if isinstance(call.request, AskRequest)
        and isinstance(call.answer, Told)
        and call.request.query in names
        and call.answer.as_of <= len(events)
    ]
    later = _Later(calls, len(events))
    codec = definitions.codec
    waiting = sorted(asked, key=lambda one: one.answer.as_of)
    unlike: list[_Asked] = []
    async with AsyncExitStack() as stack:
        cold = await Cold.make(stack, codec, definitions.projections, definitions.answers)
        at = 0
        while waiting or unlike:
            at = at + 1 if unlike else waiting[0].answer.as_of
            await cold.advance(events[:at])
            while waiting and waiting[0].answer.as_of == at:
                unlike.append(waiting.pop(0))
            still: list[_Asked] = []
            for one in unlike:
                query = codec.parse(codec.queries, one.request.query, bytes(one.request.message))
                try:
                    wanted = plain_json((await cold.queries.ask(query)).value)
                except DiptychError as error:
                    wanted = error.code.encode()
                one.wanted = one.wanted or wanted
                if wanted == bytes(one.answer.value):
                    continue
                if at < later.head_at_most(one.call.end or 0):
                    still.append(one)
                else:
                    one.blame(found)
            unlike = still


class _Asked:
    """A query, its answer, and what that should have been at its ``as_of``."""

    def __init__(self, call: Call, request: AskRequest, answer: Told) -> None:
        self.call = call
        self.request = request
        self.answer = answer
        self.wanted = b""

    def blame(self, found: Found) -> None:
        """Report it."""
        found.add(
            10,
            "An answer is not that of its position",
            client=self.call.client,
            query=self.request.query,
            as_of=self.answer.as_of,
            token=self.request.after,
            got=bytes(self.answer.value)[:200],
            wanted=self.wanted[:200],
        )


class _Later:
    """How far the log was at a time, at most: below what was appended by calls begun later."""

    def __init__(self, calls: Iterable[Call], head: int) -> None:
        self._head = head
        self._starts: list[int] = []
        self._below: list[int] = []
        made = [
            (call.start, call.answer.first - 1)
            for call in calls
            if isinstance(call.answer, Done) and call.answer.first and not call.answer.replayed
        ]
        for start, below in sorted(made, reverse=True):
            head = min(head, below)
            self._starts.append(-start)
            self._below.append(head)

    def head_at_most(self, time: int) -> int:
        """Return the highest position that there may have been."""
        place = bisect_left(self._starts, -time)
        return self._below[place - 1] if place else self._head


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
