"""Views in a SQLite database: a file, or a private one in memory."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from diptych.errors import CheckpointMoved, DefinitionError, NoViews, ViewLost
from diptych.read.opening import require_tables, unclaimed
from diptych.read.port import (
    Change,
    Checkpoint,
    Difference,
    Found,
    Kept,
    Proof,
    Tally,
    Turn,
    Version,
    View,
    Worker,
    definition_of,
)
from diptych.read.presence import Presence
from diptych.read.stores.sqlite import rows as sql
from diptych.read.stores.sqlite import versions
from diptych.read.stores.sqlite.desk import SqliteDesk, park
from diptych.read.stores.sqlite.rows import Rows, flat
from diptych.sql.sqlite import Database, Session, spilling, transaction

if TYPE_CHECKING:
    from diptych.read.stores.sqlite.plans import Plans, Runner

T = TypeVar("T")
V = TypeVar("V", bound=View)

LOOK_SECONDS: Final = 0.005
"""How often one who waits looks whether the file has changed; a look takes microseconds."""

_Prepared = list[tuple[Rows, list[Any], list[Any]]]


class SqliteViews:
    """The view store on one ``Database``.

    ``owned``: nobody else uses the database, and closing the store closes it. Where the log lives
    in the same database, pass ``owned=False``.
    """

    def __init__(self, database: Database, *, owned: bool = True) -> None:
        self.database = database
        self.owned = owned
        self.desk = SqliteDesk(self)
        self._presence = Presence()
        self._rows: dict[tuple[type[View], str], Rows] = {}
        self._written: dict[type[View], str] = {}
        self._read: Mapping[type[View], str] = {}
        self._plans: Plans | None = None
        self._reading: Runner | None = None
        self._writing: Runner | None = None

    async def open(self, log: str, projections: dict[str, Kept], *, create: bool = True) -> None:
        """Make what is missing: tables, indexes, a checkpoint at 0 for each new projection.

        Without ``create``: ``NoViews`` instead, but in memory, where there is nothing before.
        """
        from diptych.read.stores.sqlite.schema import make_table, require_columns

        def look(connection: sqlite3.Connection) -> None:
            sql.prepare(connection)
            require(connection, create=False)
            for kept in projections.values():
                for definition, table in kept.places:
                    require_columns(connection, definition, table)

        def make(connection: sqlite3.Connection) -> None:
            sql.prepare(connection)
            with spilling(connection), transaction(connection):  # an index may be new
                for statement in sql.TABLES.split(";\n"):
                    connection.execute(statement)
                new = require(connection, create=True)
                for kept in projections.values():
                    for definition, table in kept.places:
                        make_table(connection, definition, table, indexed=kept.indexed)
                for name in new:
                    sql.start(connection, name, log, projections[name].slices)

        def require(connection: sqlite3.Connection, *, create: bool) -> list[str]:
            tables = sql.read_tables(connection)
            stored = sql.read_checkpoints(connection) if "diptych_checkpoints" in tables else {}
            filled = sql.filled(connection, unclaimed(projections, tables, stored))
            new = require_tables(
                *(projections, tables, stored),
                create=create,
                filled=filled,
                path=self.database.path,
            )
            if not create and projections and "diptych_versions" not in tables:
                raise NoViews(
                    "There are no views at that address, and none were to be made",
                    path=self.database.path,
                    lacking="diptych_versions",
                )
            return new

        if create or self.database.path is None:
            await self.database.write(make)
            await self.database.read(sql.prepare)
        else:
            await self.database.read(look)
            await self.database.write(sql.prepare)
        self.database.prepare(sql.prepare)
        for one in projections.values():
            self._written |= {d.view: table for d, table in one.places if one.tables}

    # --- checkpoints and rows, for the engine -----------------------------------------------------

    async def checkpoints(self) -> dict[str, list[Checkpoint]]:
        """Return every projection's checkpoints, by name: its spans, in the order of slices."""
        self.database.require_in_place()
        return await self.database.read(sql.read_checkpoints)

    async def lost_rows(self, *, refill: bool = False) -> dict[str, ViewLost]:
        """Return nothing: rows and checkpoints are in one database, and lost together."""
        return {}

    async def recut(self, projection: str, cuts: Collection[int]) -> list[Checkpoint]:
        """Cut a projection's spans at these slices, join what stands level; return the spans."""

        def job(connection: sqlite3.Connection) -> list[Checkpoint]:
            with transaction(connection):
                return sql.recut(connection, projection, cuts)

        return await self.database.write(job)

    async def proof(self, projection: str) -> tuple[list[Checkpoint], dict[int, Tally]]:
        """Return a projection's spans and the tallies of all its blocks, of one snapshot."""
        return await self.database.read(lambda c: sql.read_proof(c, projection))

    async def block(self, projection: str, slice_: int, number: int) -> Tally:
        """Return the tally of one block, as far as spans that begin with a slice wrote it."""
        return await self.database.read(lambda c: sql.read_block(c, projection, slice_, number))

    async def prove(self, proof: Proof) -> None:
        """Keep what was found of a projection, in place of what was found before."""

        def job(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                sql.keep_proof(connection, proof)

        await self.database.write(job)

    async def proofs(self) -> dict[str, Proof]:
        """Return what was found last, by projection."""
        return await self.database.read(sql.read_proofs)

    def mark(self) -> int:
        """Return where one is in the news of steps."""
        return self.database.version()

    async def moved(self, mark: int, timeout: float) -> None:
        """Wait until steps were made since a mark, at most ``timeout`` seconds."""
        end = time.monotonic() + timeout
        while self.mark() == mark:
            left = end - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(LOOK_SECONDS, left))

    async def beat(self, worker: Worker, lease: float) -> list[Worker]:
        """Note that a worker is there; return those seen in the last ``lease`` seconds, by id."""
        rows = await self.database.write(lambda c: sql.beat(c, worker, time.time()))
        there, gone = self._presence.judged(rows, lease)
        for one in gone:
            await self.leave(one.id)
        return there

    async def workers(self, lease: float) -> list[Worker]:
        """Return the workers seen in the last ``lease`` seconds, by id."""
        rows = await self.database.read(lambda c: sql.read_workers(c, time.time()))
        return self._presence.judged(rows, lease)[0]

    async def leave(self, worker: str) -> None:
        """Note that a worker is there no more."""

        def job(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                sql.leave(connection, worker)

        await self.database.write(job)

    # --- versions ---------------------------------------------------------------------------------

    async def versions(self) -> list[Version]:
        """Return all versions there are; none where nothing is set up."""
        return await self.database.read(versions.read_versions)

    async def claim(self, new: Sequence[Version]) -> list[Version]:
        """Note versions, where neither they, nor their instance, nor another live one is there."""

        def job(connection: sqlite3.Connection) -> list[Version]:
            with transaction(connection):
                versions.claim(connection, new)
                return versions.read_versions(connection)

        return await self.database.write(job)

    async def turn(self, changes: Sequence[Turn], *, level: bool = False) -> bool:
        """Change versions, all or none of them, if each is still as it is believed to be."""
        return await self.database.write(lambda c: versions.turn(c, changes, level=level))

    async def forget(self, gone: Sequence[Version]) -> bool:
        """Delete versions, all or none of them, with all that is theirs alone."""
        return await self.database.write(lambda c: versions.forget(c, gone))

    async def index(self, kept: Kept) -> None:
        """Make the indexes of tables that were made without."""
        from diptych.read.stores.sqlite.schema import make_table

        def job(connection: sqlite3.Connection) -> None:
            # Sorted in memory, all rows' keys are held at once; in a file, as much as the cache.
            with spilling(connection), transaction(connection):
                for definition, table in kept.places:
                    make_table(connection, definition, table)

        await self.database.write(job)

    def read_from(self, tables: Mapping[type[View], str]) -> None:
        """From now on, let queries find these views in these tables."""
        if tables != self._read:
            self._read, self._plans = tables, None

    async def compare(
        self, view: type[View], tables: tuple[str, str], columns: Sequence[str], most: int
    ) -> Difference:
        """Compare two tables of a view in some columns, with at most so many examples."""
        definition = definition_of(view)

        def job(connection: sqlite3.Connection) -> Difference:
            connection.execute("BEGIN")
            try:
                return versions.compare(connection, definition, tables, columns, most)
            finally:
                connection.execute("ROLLBACK")

        return await self.database.read(job)

    # --- rows -------------------------------------------------------------------------------------

    async def load(self, view: type[View], keys: Sequence[Any]) -> dict[Any, Any]:
        """Return the rows that exist for these keys, by key."""
        rows = self.rows_of(view)
        if not (columns := rows.layout.findable(keys)):
            return {}
        # Beside a log the writing thread is kept free for appends.
        thread = self.database.write if self.owned else self.database.read
        found = rows.layout.from_rows(await thread(lambda c: rows.load(c, columns)))
        return dict(zip(map(rows.definition.key_of, found), found, strict=True))

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Make all steps in one transaction; tell for each whether its checkpoint stood right."""
        prepared = [self.prepared(change) for change in changes]

        def job(connection: sqlite3.Connection) -> list[bool]:
            with transaction(connection):
                return [
                    apply_prepared(connection, change, values)
                    for change, values in zip(changes, prepared, strict=True)
                ]

        return await self.database.write(job)

    def prepared(self, change: Change) -> _Prepared:
        """Return a step's rows as SQL values; ``Invalid`` when one cannot be stored."""
        found: _Prepared = []
        for writes in change.writes:
            rows = self.rows_of(writes.view)
            if writes.passed:
                rows.layout.require_storable(writes.passed)
            put = rows.in_order(writes.rows) if writes.rows else []
            gone = flat(rows.layout.keys_to_columns(writes.deleted)) if writes.deleted else []
            found.append((rows, put, gone))
        return found

    def inside(self, connection: sqlite3.Connection) -> SqliteInside:
        """Return the store within a transaction that is open on a connection to its database."""
        return SqliteInside(self, connection)

    def rows_of(self, view: type[View], *, read: bool = False) -> Rows:
        """Return the SQL of a view: of the table it is written to, or ``read`` from by queries."""
        table = (self._read if read else self._written).get(view, "")
        found = self._rows.get((view, table))
        if found is None:
            found = self._rows[view, table] = Rows(definition_of(view), table)
        return found

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[SqliteTransaction]:
        """Open a transaction; it commits at the end, or rolls back when something raises."""
        from diptych.read.stores.sqlite.plans import Runner

        if self._writing is None:
            self._writing = Runner()
        runner = self._writing
        async with self.database.session() as held:
            tables = self._read
            await held.run(lambda c: runner.begin(c, tables, "BEGIN IMMEDIATE"))
            yield SqliteTransaction(self, held, runner)
            await held.run(lambda c: c.execute("COMMIT"))

    # --- queries ----------------------------------------------------------------------------------

    @property
    def plans(self) -> Plans:
        """The compiled statements."""
        if self._plans is None:
            from diptych.read.stores.sqlite.plans import Plans

            self._plans = Plans(self._read)
        return self._plans

    @property
    def runner(self) -> Runner:
        """What runs statements on the reading thread."""
        if self._reading is None:
            from diptych.read.stores.sqlite.plans import Runner

            self._reading = Runner()
        return self._reading

    def plan(self, statement: Any) -> Any:
        """Return what may be passed on instead of a statement: it has been looked at already."""
        return self.plans.of(statement)

    def views_of(self, statement: Any) -> Iterable[type[View]]:
        """Return the views whose tables a statement names."""
        return self.plans.of(statement).views

    async def all(self, statement: Any) -> Found:
        """Run a select of one view; ``rows`` are rows of it."""
        planned, runner = self.plans.of(statement), self.runner
        definition, plan = planned.definition, planned.plan
        if planned.values is not None and plan.with_positions:
            row = await self.database.brief(plan.with_positions, planned.values, plan.habit)
            if row is not None:
                return Found.of(*plan.view_rows_in(row, definition))
        return Found.of(
            *await self.database.read(lambda c: runner.view_rows_and_positions(c, planned))
        )

    async def rows(self, statement: Any) -> Found:
        """Run any select; ``rows`` are tuples."""
        planned, runner = self.plans.of(statement), self.runner
        return Found.of(
            *await self.database.read(lambda c: runner.tuples_and_positions(c, planned))
        )

    async def get(self, view: type[View], key: Any) -> Found:
        """Read one row by its key."""
        rows = self.rows_of(view, read=True)
        text, values = rows.by_key_with_positions, rows.layout.key_values(key)
        found = await self.database.brief(text, values, rows.habit)
        if found is None:
            found = await self.database.read(lambda c: c.execute(text, values).fetchone())
        positions, *row = found
        missing = row[-1] is None
        return Found.of(
            [] if missing else rows.layout.from_rows([row[:-1]]), sql.positions_of(positions)
        )

    async def close(self) -> None:
        """Release everything. May be called twice."""
        if self.owned:
            await self.database.close()


def apply_prepared(connection: sqlite3.Connection, change: Change, values: _Prepared) -> bool:
    """Make a step within the caller's transaction, unless the checkpoint has moved."""
    if not move(connection, change):
        return False
    for rows, put, gone in values:
        if gone:
            rows.remove(connection, gone)
        if put:
            rows.put(connection, put)
    return True


def move(connection: sqlite3.Connection, change: Change) -> bool:
    """Move a checkpoint, and what is parked, unless somebody else has moved it."""
    if not sql.move(connection, change):
        return False
    park(connection, change.after.projection, change.parked, change.unparked)
    return True


class SqliteInside:
    """The store within an append's transaction, on the append's connection and thread."""

    def __init__(self, store: SqliteViews, connection: sqlite3.Connection) -> None:
        self._store = store
        self._connection = connection

    def checkpoint(self, projection: str) -> Checkpoint | None:
        """Return the checkpoint of a projection of one span."""
        spans = sql.read_spans(self._connection, projection)
        return spans[0] if spans else None

    def block(self, projection: str, slice_: int, number: int) -> Tally:
        """Return the tally of one block, as far as spans that begin with a slice wrote it."""
        return sql.read_block(self._connection, projection, slice_, number)

    def load(self, view: type[View], keys: Sequence[Any]) -> dict[Any, Any]:
        """Return the rows that exist for these keys, by key."""
        rows = self._store.rows_of(view)
        definition = rows.definition
        if not (columns := rows.layout.findable(keys)):
            return {}
        values = rows.load(self._connection, columns)
        found = rows.layout.from_rows(values)
        return dict(zip(map(definition.key_of, found), found, strict=True))

    def apply(self, change: Change) -> bool:
        """Make a step; False, and nothing done, when its checkpoint has been moved."""
        return apply_prepared(self._connection, change, self._store.prepared(change))


class SqliteTransaction:
    """A transaction on the writing thread, for a handler."""

    def __init__(self, store: SqliteViews, held: Session, runner: Runner) -> None:
        self._store = store
        self._held = held
        self._runner = runner
        self.owned: frozenset[type[View]] | None = None

    async def move(self, change: Change) -> None:
        """Move the checkpoint; ``CheckpointMoved`` when it was moved by somebody else."""
        if not await self._held.run(lambda c: move(c, change)):
            raise CheckpointMoved(
                "Another worker moved this checkpoint first",
                projection=change.before.projection,
                position=change.before.position,
            )

    def own(self, views: Iterable[type[View]]) -> None:
        """From now on, let ``put`` and ``delete`` write these views only."""
        self.owned = frozenset(views)

    async def execute(self, statement: Any) -> int:
        """Run an insert, update or delete of SQLAlchemy Core; return how many rows it touched."""
        planned = self._store.plans.of(statement)
        return await self._held.run(lambda c: self._runner.count(c, planned))

    async def all(self, statement: Any) -> list[Any]:
        """Return the rows of a select of one view."""
        planned = self._store.plans.of(statement)
        return await self._held.run(lambda c: self._runner.view_rows(c, planned))

    async def rows(self, statement: Any) -> list[tuple[Any, ...]]:
        """Return the rows of any select."""
        planned = self._store.plans.of(statement)
        return await self._held.run(lambda c: self._runner.tuples(c, planned))

    async def get(self, view: type[V], key: Any) -> V | None:
        """Return the row of a key (a tuple where the view has several key fields)."""
        rows = self._store.rows_of(view, read=self.owned is None or view not in self.owned)
        values = rows.layout.key_values(key)
        found = await self._held.run(lambda c: c.execute(rows.by_key, values).fetchall())
        return next(iter(rows.layout.from_rows(found)), None)

    async def put(self, row: View) -> None:
        """Insert a row, or replace the one of the same key."""
        rows = self._own(type(row))
        values = flat(rows.layout.to_columns([row]))
        await self._held.run(lambda c: rows.put(c, values))

    async def delete(self, view: type[View], key: Any) -> None:
        """Delete the row of a key, if there is one."""
        rows = self._own(view)
        values = rows.layout.key_values(key)
        await self._held.run(lambda c: rows.remove(c, values))

    def _own(self, view: type[View]) -> Rows:
        if self.owned is not None and view not in self.owned:
            raise DefinitionError(
                "A handler writes the views that it names; add this one to handles(...)",
                at=definition_of(view).at,
                view=view.__name__,
            )
        return self._store.rows_of(view)
