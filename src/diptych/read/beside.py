"""A view store of two: rows in a row store, and everything else in an ordinary one, the books.

There is no transaction over both. A step first writes its rows, each with the position of the last
event folded into it, then moves the checkpoint in the books. A row of position p is the fold of its
key's events up to p, whoever wrote it, since folds are pure and go key by key: so a step that is
not committed, as its process died or another worker was faster, leaves rows that are right, and
only ahead of the checkpoint. Whoever makes the step again loads their positions too, and passes
over the events that they have (`Loaded`, `fold`): each effect is made once for each key.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Any

from msgspec import structs

from diptych.errors import ForeignCheckpoint, Invalid
from diptych.read.desk import Desk, Parked, ParkedKey, Pause
from diptych.read.port import (
    Change,
    Checkpoint,
    Found,
    Kept,
    Loaded,
    Proof,
    Session,
    Tally,
    View,
    ViewStore,
    Worker,
    Writes,
    definition_of,
    require_tables,
)
from diptych.read.rowstore import AsksRows, Placed, RowStore, RowTable


class RowsBeside:
    """The view store of ``rows``, with checkpoints and all else in ``books``.

    ``name`` says to people which database the rows are in. Closing it closes the rows only.
    """

    def __init__(self, books: ViewStore, rows: RowStore, *, name: str) -> None:
        self.books = books
        self.row_store = rows
        self.name = name
        self._log = ""
        self._tables: dict[type[View], RowTable] = {}
        self._desk = _DeskBeside(self)
        self._plans: Any = None

    @property
    def desk(self) -> Desk:
        """What operators look at and change: parked keys, pauses."""
        return self._desk

    async def open(self, log: str, projections: dict[str, Kept], *, create: bool = True) -> None:
        """Make what is missing: tables, and a checkpoint at 0 for each new projection."""
        self._log = log
        self._tables = {
            view: RowTable(definition_of(view).table_name, view)
            for one in projections.values()
            for view in one.views
        }
        books = {name: structs.replace(one, views=()) for name, one in projections.items()}
        there = await self.row_store.tables(table.name for table in self._tables.values())
        for table in self._tables.values():
            if there.get(table.name, log) != log:
                raise ForeignCheckpoint(
                    "The rows at that address are those of another log; give another address or "
                    "prefix, or delete them",
                    database=self.name,
                    table=table.name,
                    rows_of=there[table.name],
                    this_log=log,
                )
        await self.books.open(log, books, create=create)
        stored = await self.books.checkpoints()
        if not create:
            kept = {n: [definition_of(v) for v in one.views] for n, one in projections.items()}
            require_tables(kept, there, stored, create=False, database=self.name)
            return
        for name, one in projections.items():
            lost = any(self._tables[view].name not in there for view in one.views)
            if lost and any(span.count for span in stored[name]):
                await self._refill(name, one)
        for table in self._tables.values():
            await self.row_store.make(log, table)

    async def _refill(self, projection: str, one: Kept) -> None:
        """Have a projection begin anew: the row store has lost all its rows."""
        start = Checkpoint(projection, self._log, slices=one.slices, tallies=bytes(24 * one.slices))
        await self._desk.rewind(start, Tally(), one.views)

    async def rewound(
        self, views: Iterable[type[View]], rewind: Callable[[], Awaitable[None]]
    ) -> None:
        """Have the books put back while there are no tables for these views.

        Where it is cut short, `open` finds the tables missing, and does it again.
        """
        tables = [self._tables[view] for view in views]
        for table in tables:
            await self.row_store.drop(table.name)
        await rewind()
        for table in tables:
            await self.row_store.make(self._log, table)

    # --- rows -------------------------------------------------------------------------------------

    async def load(self, view: type[View], keys: Sequence[Any]) -> Loaded:
        """Return the rows that exist for these keys, and how far they go."""
        found = await self.row_store.load(self._tables[view], keys)
        return Loaded(
            {key: one.row for key, one in found.items() if one.row is not None},
            {key: one.position for key, one in found.items()},
        )

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Write the rows of all steps, then move the checkpoints; tell for each whether it stood.

        The rows of a step that is not made stay: see above.
        """
        for change in changes:
            for writes in change.writes:
                self.row_store.check(self._tables[writes.view], writes.rows)
        for change in changes:
            for writes in change.writes:
                if not await self.row_store.write(self._tables[writes.view], _placed(writes)):
                    return [False] * len(changes)
        return await self.books.apply([structs.replace(one, writes=()) for one in changes])

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[Session]:
        """Open what can tell whether rows can be written; there are no transactions."""
        trial: Any = _Trial(self)
        yield trial

    def require(self, row: View) -> None:
        """Raise ``Invalid`` for a row that cannot be kept."""
        self.row_store.check(self._tables[type(row)], [row])

    # --- queries ----------------------------------------------------------------------------------
    # Positions are read before rows: what an answer is as of is never said too high.

    async def get(self, view: type[View], key: Any) -> Found:
        """Read one row by its key."""
        table = self._tables[view]
        table.definition.on("sqlite").key_values(key)  # Invalid, where it is no key
        positions = await self._positions()
        found = await self.row_store.load(table, [key])
        return Found([one.row for one in found.values() if one.row is not None], positions)

    async def all(self, statement: Any) -> Found:
        """Run a select of one view; ``rows`` are rows of it."""
        planned = self.plan(statement)
        _ = planned.definition
        store = self._asking(planned)
        positions = await self._positions()
        return Found(await store.select(planned), positions)

    async def rows(self, statement: Any) -> Found:
        """Run any select; ``rows`` are tuples."""
        planned = self.plan(statement)
        store = self._asking(planned)
        positions = await self._positions()
        return Found(await store.select_any(planned), positions)

    async def scan(self, view: type[View]) -> AsyncIterator[Any]:
        """Iterate over all rows of a view."""
        async for row in self.row_store.scan(self._tables[view]):
            yield row

    def plan(self, statement: Any) -> Any:
        """Look at a statement once; what is returned may be passed on in its place."""
        if self._plans is None:
            from diptych.read.statements import Plans, ShapeOnly

            self._plans = Plans(ShapeOnly)
        return self._plans.of(statement)

    def views_of(self, statement: Any) -> Iterable[type[View]]:
        """Return the views whose tables a statement names."""
        views: Iterable[type[View]] = self.plan(statement).views
        return views

    def _asking(self, planned: Any) -> AsksRows:
        if isinstance(self.row_store, AsksRows):
            return self.row_store
        raise Invalid(
            "The rows of this view are read by their key only: views.get(View, key)",
            field="statement",
            rule="no statement over views in a database without SQL",
            views=", ".join(view.__name__ for view in planned.views),
            database=self.name,
        )

    async def _positions(self) -> dict[str, int]:
        stored = await self.books.checkpoints()
        return {
            name: min(span.position for span in spans) for name, spans in stored.items() if spans
        }

    # --- the books --------------------------------------------------------------------------------

    async def checkpoints(self) -> dict[str, list[Checkpoint]]:
        """Return every projection's checkpoints, by name: its spans, in the order of slices."""
        return await self.books.checkpoints()

    async def recut(self, projection: str, cuts: Collection[int]) -> list[Checkpoint]:
        """Cut a projection's spans at these slices, join what stands level; return the spans."""
        return await self.books.recut(projection, cuts)

    async def proof(self, projection: str) -> tuple[list[Checkpoint], dict[int, Tally]]:
        """Return a projection's spans and the tallies of all its blocks, of one snapshot."""
        return await self.books.proof(projection)

    async def block(self, projection: str, slice_: int, number: int) -> Tally:
        """Return the tally of one block, as far as spans that begin with a slice wrote it."""
        return await self.books.block(projection, slice_, number)

    async def prove(self, proof: Proof) -> None:
        """Keep what was found of a projection, in place of what was found before."""
        await self.books.prove(proof)

    async def proofs(self) -> dict[str, Proof]:
        """Return what was found last, by projection."""
        return await self.books.proofs()

    def mark(self) -> int:
        """Return where one is in the news of steps."""
        return self.books.mark()

    async def moved(self, mark: int, timeout: float) -> None:
        """Wait until steps were made since a mark, at most ``timeout`` seconds."""
        await self.books.moved(mark, timeout)

    async def beat(self, worker: Worker, lease: float) -> list[Worker]:
        """Note that a worker is there; return those seen in the last ``lease`` seconds, by id."""
        return await self.books.beat(worker, lease)

    async def workers(self, lease: float) -> list[Worker]:
        """Return the workers seen in the last ``lease`` seconds, by id."""
        return await self.books.workers(lease)

    async def leave(self, worker: str) -> None:
        """Note that a worker is there no more."""
        await self.books.leave(worker)

    async def close(self) -> None:
        """Release the rows; the books are their owner's to close. May be called twice."""
        await self.row_store.close()


def _placed(writes: Writes) -> dict[Any, Placed]:
    key_of, at = definition_of(writes.view).key_of, writes.positions
    rows = {key_of(row): row for row in writes.rows} | dict.fromkeys(writes.deleted)
    if missing := [key for key in rows if key not in at]:
        raise Invalid(
            "What is retried without a key changes rows in their past, which is not possible where "
            "rows are kept apart from the checkpoints; rewind the projection instead",
            field="key",
            rule="rows that go forwards",
            got=missing[0],
        )
    return {key: Placed(row, at[key]) for key, row in rows.items()}


class _Trial:
    """Stands for a transaction, where somebody asks which row cannot be written."""

    def __init__(self, store: RowsBeside) -> None:
        self._store = store

    async def put(self, row: View) -> None:
        """Raise ``Invalid`` for a row that cannot be kept."""
        self._store.require(row)


class _DeskBeside:
    """The books' desk; only a rewind concerns the rows too."""

    def __init__(self, store: RowsBeside) -> None:
        self._store = store

    async def keys(self) -> dict[str, list[ParkedKey]]:
        """Return the keys of which effects are queued or skipped, by projection."""
        return await self._store.books.desk.keys()

    async def parked(
        self,
        projection: str,
        key: str | None = None,
        *,
        queued: bool = False,
        limit: int | None = None,
    ) -> list[Parked]:
        """Return a projection's parked effects, of one key or of all, by position."""
        return await self._store.books.desk.parked(projection, key, queued=queued, limit=limit)

    async def pause(self, pause: Pause) -> None:
        """Stop a projection."""
        await self._store.books.desk.pause(pause)

    async def resume(self, projection: str) -> bool:
        """Let a projection go on; False where it was not paused."""
        return await self._store.books.desk.resume(projection)

    async def pauses(self) -> dict[str, Pause]:
        """Return the projections that are paused."""
        return await self._store.books.desk.pauses()

    async def rewind(self, to: Checkpoint, block: Tally, views: Sequence[type[View]]) -> None:
        """Put a projection back, and drop the rows of these views."""

        async def rewind() -> None:
            await self._store.books.desk.rewind(to, block, ())

        await self._store.rewound(views, rewind)


__all__ = ["RowsBeside"]
