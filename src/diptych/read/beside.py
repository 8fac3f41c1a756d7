"""A view store of two: rows in a row store, and everything else in an ordinary one, the books.

There is no transaction over both. A step first writes its rows, each with the position of the last
event folded into it, then moves the checkpoint in the books. A row of position p is the fold of its
key's events up to p, whoever wrote it, since folds are pure and go key by key: so a step that is
not committed, as its process died or another worker was faster, leaves rows that are right, and
only ahead of the checkpoint. Whoever makes the step again loads their positions too, and passes
over the events that they have (`Loaded`, `fold`): each effect is made once for each key.

Each version of a projection has a table of its own in the row store; which is live is in the books.
There a table is noted with the kind of row store before it (``redis:orders``): so neither is one of
the books' own tables ever taken for it, nor what a view that has moved has left behind.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Any, Final

from msgspec import structs

from diptych.errors import ForeignCheckpoint, Invalid, ViewLost
from diptych.read.comparing import compared
from diptych.read.opening import require_tables, tables_of_none
from diptych.read.parking.beside import DeskBeside
from diptych.read.parking.desk import Desk
from diptych.read.port import (
    Change,
    Checkpoint,
    Difference,
    Found,
    Kept,
    Proof,
    Session,
    Tally,
    Turn,
    Version,
    View,
    ViewStore,
    Worker,
    Writes,
    definition_of,
)
from diptych.read.rowstore import AsksRows, Loaded, Made, Placed, RowStore, RowTable

LOST: Final = (
    "The rows of a view are not there any more, although its projection has applied events: their "
    "database was emptied, or came back empty. Within seconds a process that works on them "
    "(`diptych work`) has them folded anew from the log"
)


class RowsBeside:
    """The view store of ``rows``, with checkpoints and all else in ``books``.

    ``kind`` names the kind of row store in the books (``before`` is what stands before the names of
    its tables there), ``name`` says to people which database the
    rows are in. Closing it closes the rows only.
    """

    def __init__(self, books: ViewStore, rows: RowStore, *, name: str, kind: str = "rows") -> None:
        self.books = books
        self.row_store = rows
        self.name = name
        self.before = f"{kind}:"
        self._log = ""
        self._written: dict[type[View], str] = {}
        self._read: Mapping[type[View], str] = {}
        self._opened: dict[str, Kept] = {}
        self._makes = False
        self._desk = DeskBeside(books.desk, self._rewind)
        self._plans: Any = None

    @property
    def desk(self) -> Desk:
        """What operators look at and change: parked keys, pauses."""
        return self._desk

    async def open(self, log: str, projections: dict[str, Kept], *, create: bool = True) -> None:
        """Make what is missing: tables, and a checkpoint at 0 for each new projection.

        Without ``create`` nothing is made, and rows that are gone are told by `lost_rows`.
        """
        self._log = log
        self._opened |= projections
        tables = {name: _tables(one) for name, one in projections.items()}
        every = [table for each in tables.values() for table in each]
        there = await self.row_store.tables(table.name for table in every)
        for table in every:
            if table.name in there and there[table.name].log != log:
                raise ForeignCheckpoint(
                    "The rows at that address are those of another log; give another address or "
                    "prefix, or delete them",
                    database=self.name,
                    table=table.name,
                    rows_of=there[table.name].log,
                    this_log=log,
                )
        books = {
            name: structs.replace(one, views=(), tables=()) for name, one in projections.items()
        }
        if create:
            await self.books.open(log, {}, create=True)
            begun = await self.books.checkpoints()
            # They were there before their checkpoint: books that are no more had them filled.
            left = [t.name for name, each in tables.items() if name not in begun for t in each]
            await self._drop({name: there.pop(name) for name in left if name in there})
        elif await self.books.versions():
            begun = await self.books.checkpoints()
            for name, each in tables.items():
                if name not in begun and any(table.name in there for table in each):
                    del books[name]  # refused when it is followed, as anywhere
        await self.books.open(log, books, create=create)
        stored = await self.books.checkpoints()
        if create:
            noted = {row.instance: row for row in await self.books.versions()}
            for name, one in projections.items():
                row = noted.get(name)
                moved = row is not None and not self._has(row)
                lost = any(table.name not in there for table in tables[name])
                if (moved or lost) and any(span.count for span in stored[name]):
                    await self._refill(name, one, tables[name])
                if row is not None and moved:
                    await self.books.turn([Turn(row, self._noted(row))])
            for table in every:
                await self.row_store.make(log, table)
        else:
            # Rows of events that were applied may be gone: that concerns their projection only.
            begin = {
                name: one
                for name, one in projections.items()
                if not any(span.count for span in stored.get(name, ()))
            }
            require_tables(*(begin, there, stored), create=False, filled=there, database=self.name)
        self._written |= {table.view: table.name for table in every}
        self._makes |= create

    async def lost_rows(self, *, refill: bool = False) -> dict[str, ViewLost]:
        """Return, by projection, the errors of those whose rows are gone, checkpoints not.

        With ``refill``, and where this store was opened with ``create``, they are folded anew.
        """
        there = await self.row_store.tables(
            table.name for one in self._opened.values() for table in _tables(one)
        )
        stored = await self.books.checkpoints()
        kept = {row.instance for row in await self.books.versions() if row.state != "dropped"}
        lost: dict[str, ViewLost] = {}
        for name, one in self._opened.items():
            try:
                if name in kept:
                    require_tables({name: one}, there, stored, create=True, lost=LOST)
            except ViewLost as error:
                lost[name] = error
                if refill and self._makes:
                    await self._refill(name, one, _tables(one))
        return lost

    async def _drop(self, tables: Mapping[str, Made]) -> None:
        """Drop tables, but not what others have made in their place meanwhile."""
        for name, made in tables.items():
            await self.row_store.drop(name, made.mark)

    async def _refill(self, projection: str, one: Kept, tables: Sequence[RowTable]) -> None:
        """Have a projection begin anew: the row store has none of its rows, or old ones."""
        start = Checkpoint(projection, self._log, slices=one.slices, tallies=bytes(24 * one.slices))
        await self._put_back(start, Tally(), tables)

    async def _put_back(self, to: Checkpoint, block: Tally, tables: Sequence[RowTable]) -> None:
        """Have the books put back while there are no tables.

        Where it is cut short, `lost_rows` finds the tables missing, and does it again. A query that
        has seen the positions before, and would see rows from after, is told by the turn.
        """
        for table in tables:
            await self.row_store.drop(table.name)
        await self.books.desk.rewind(to, block, ())
        rows = await self.books.versions()
        name = next((row.projection for row in rows if row.instance == to.projection), "")
        live = [row for row in rows if row.projection == name and row.state == "live"]
        await self.books.turn([Turn(row, row) for row in live])
        for table in tables:
            await self.row_store.make(self._log, table)

    async def _rewind(self, to: Checkpoint, block: Tally, views: Sequence[type[View]]) -> None:
        await self._put_back(to, block, list(map(self.written, views)))

    def written(self, view: type[View]) -> RowTable:
        """Return the table that a view is written to."""
        return RowTable(self._written.get(view) or definition_of(view).table_name, view)

    def _shown(self, view: type[View]) -> RowTable:
        """Return the table that queries find a view in."""
        return RowTable(self._read.get(view) or definition_of(view).table_name, view)

    # --- versions ---------------------------------------------------------------------------------

    async def versions(self) -> list[Version]:
        """Return all versions there are; none where nothing is set up."""
        return list(map(self._plain, await self.books.versions()))

    async def claim(self, new: Sequence[Version]) -> list[Version]:
        """Note versions, where neither they, nor their instance, nor another live one is there."""
        return list(map(self._plain, await self.books.claim(list(map(self._noted, new)))))

    async def turn(self, changes: Sequence[Turn], *, level: bool = False) -> bool:
        """Change versions, all or none of them, if each is still as it is believed to be.

        One that is dropped loses its tables after it: where that is cut short, they are dropped
        by whoever has the version built again.
        """
        dropped = [
            name
            for change in changes
            if change.after.state == "dropped"
            for name in change.after.tables.values()
        ]
        there = await self.row_store.tables(dropped)
        noted = [Turn(self._noted(one.before), self._noted(one.after)) for one in changes]
        if not await self.books.turn(noted, level=level):
            return False
        await self._drop(there)
        return True

    async def forget(self, gone: Sequence[Version]) -> bool:
        """Delete versions, all or none of them, with all that is theirs alone."""
        there, noted = await self._ours(gone), list(map(self._noted, gone))
        if not await self.books.forget(noted):
            return False
        unused = tables_of_none(noted, await self.books.versions())
        await self._drop({n: made for n, made in there.items() if self.before + n in unused})
        return True

    async def has_rows(self, instance: str) -> bool:
        """Whether a version is kept here: its tables are noted as such, and one is there."""
        rows = [row for row in await self.books.versions() if row.instance == instance]
        return any([self._has(row) and await self._ours([self._plain(row)]) for row in rows])

    async def _ours(self, rows: Iterable[Version]) -> dict[str, Made]:
        there = await self.row_store.tables(t for row in rows for t in row.tables.values())
        return {name: made for name, made in there.items() if made.log == self._log}

    async def index(self, kept: Kept) -> None:
        """Do nothing: rows are found by their key, or by DuckDB without indexes."""

    def read_from(self, tables: Mapping[type[View], str]) -> None:
        """From now on, let queries find these views in these tables."""
        if tables != self._read:
            self._read, self._plans = tables, None

    async def compare(
        self, view: type[View], tables: tuple[str, str], columns: Sequence[str], most: int
    ) -> Difference:
        """Compare two tables of a view in some columns, with at most so many examples.

        There is no snapshot of both: what differs is looked at again before it is told.
        """
        first, second = (RowTable(name, view) for name in tables)
        positions = (await self._beside(_nothing)).positions
        return await compared(self.row_store, first, second, columns, most, positions)

    def _has(self, row: Version) -> bool:
        return all(name.startswith(self.before) for name in row.tables.values())

    def _noted(self, row: Version) -> Version:
        tables = {plain: self.before + name for plain, name in row.tables.items()}
        return structs.replace(row, tables=tables)

    def _plain(self, row: Version) -> Version:
        tables = {plain: name.removeprefix(self.before) for plain, name in row.tables.items()}
        return structs.replace(row, tables=tables)

    # --- rows -------------------------------------------------------------------------------------

    async def load(self, view: type[View], keys: Sequence[Any]) -> Loaded:
        """Return the rows that exist for these keys, and how far they go."""
        found = await self.row_store.load(self.written(view), keys)
        return Loaded(
            {key: one.row for key, one in found.items() if one.row is not None},
            {key: one.position for key, one in found.items()},
        )

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Write the rows of all steps, then move the checkpoints; tell for each whether it stood.

        The rows of a step that is not made stay: see above. So it is looked first whether it can be
        made: what is paused, or was moved by others, is not to be written any more.
        """
        stored = await self.books.checkpoints()
        if not all(one.before in stored.get(one.before.projection, ()) for one in changes):
            return await self._each(changes, stored)
        for change in changes:
            for writes in change.writes:
                self.row_store.check(self.written(writes.view), [*writes.passed, *writes.rows])
        for change in changes:
            for writes in change.writes:
                if not await self.row_store.write(self.written(writes.view), _placed(writes)):
                    return [False] * len(changes)
        return await self.books.apply([structs.replace(one, writes=()) for one in changes])

    async def _each(
        self, changes: Sequence[Change], stored: Mapping[str, Collection[Checkpoint]]
    ) -> list[bool]:
        able = [one for one in changes if one.before in stored.get(one.before.projection, ())]
        made = iter(await self.apply(able) if able else ())
        return [one in able and next(made) for one in changes]

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[Session]:
        """Open what can tell whether rows can be written; there are no transactions."""
        trial: Any = _Trial(self)
        yield trial

    def require(self, row: View) -> None:
        """Raise ``Invalid`` for a row that cannot be kept."""
        self.row_store.check(self.written(type(row)), [row])

    # --- queries ----------------------------------------------------------------------------------

    async def get(self, view: type[View], key: Any) -> Found:
        """Read one row by its key."""
        table = self._shown(view)
        table.definition.on("sqlite").key_values(key)  # Invalid, where it is no key

        async def read() -> list[Any]:
            found = await self.row_store.load(table, [key])
            return [one.row for one in found.values() if one.row is not None]

        return await self._beside(read)

    async def all(self, statement: Any) -> Found:
        """Run a select of one view; ``rows`` are rows of it."""
        planned = self.plan(statement)
        _ = planned.definition
        store = self._asking(planned)
        return await self._beside(lambda: store.select(planned))

    async def rows(self, statement: Any) -> Found:
        """Run any select; ``rows`` are tuples."""
        planned = self.plan(statement)
        store = self._asking(planned)
        return await self._beside(lambda: store.select_any(planned))

    async def _beside(self, read: Callable[[], Awaitable[list[Any]]]) -> Found:
        """Read rows between positions and turn.

        Positions first: what an answer is as of is never said too high. The turn last: where it is
        still the one that the tables go by, neither was the version dropped nor were its rows
        folded anew in between.
        """
        from sqlalchemy import literal, select

        nothing = select(literal(1))
        positions = (await self.books.rows(nothing)).positions
        rows = await read()
        return Found(rows, positions, (await self.books.rows(nothing)).turn)

    async def scan(self, view: type[View]) -> AsyncIterator[Any]:
        """Iterate over all rows of a view, as queries find them."""
        async for row in self.row_store.scan(self._shown(view)):
            yield row

    def plan(self, statement: Any) -> Any:
        """Look at a statement once; what is returned may be passed on in its place."""
        if self._plans is None:
            from diptych.read.statements import Plans, ShapeOnly

            tables = self._read
            self._plans = Plans(tables, lambda asked, _: ShapeOnly(asked, tables))
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


def _tables(one: Kept) -> list[RowTable]:
    return [RowTable(table, definition.view) for definition, table in one.places]


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


async def _nothing() -> list[Any]:
    return []


class _Trial:
    """Stands for a transaction, where somebody asks which row cannot be written."""

    def __init__(self, store: RowsBeside) -> None:
        self._store = store

    async def put(self, row: View) -> None:
        """Raise ``Invalid`` for a row that cannot be kept."""
        self._store.require(row)


__all__ = ["RowsBeside"]
