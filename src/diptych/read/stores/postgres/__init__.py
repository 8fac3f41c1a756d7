"""Views in a PostgreSQL database, in its schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgspec
from msgspec import structs

from diptych.errors import Invalid, ViewLost
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
from diptych.read.presence import Presence, Sight
from diptych.read.stored import checkpoints_of, proofs_of
from diptych.read.stores.postgres import versions
from diptych.read.stores.postgres.desk import PostgresDesk
from diptych.read.stores.postgres.rows import (
    Steps,
    positions_of,
    proof_of,
    recut,
    refused_rows,
)
from diptych.read.stores.postgres.transactions import PostgresInside, PostgresTransaction
from diptych.sql.postgres import LOST, Connection, Database, failure_of, unavailable
from diptych.sql.waking import Waker

if TYPE_CHECKING:
    from diptych.read.stores.postgres.plans import Plans


HEARING_SECONDS: Final = 0.25
"""How often one who waits looks by himself, as notifications may be lost."""

LOCK_SECONDS: Final = 1
"""How long one waits for a checkpoint that another worker holds."""

HELD_SECONDS: Final = 10
"""How long one who copies rows in may do nothing, while he holds a checkpoint."""

DEAF_SECONDS: Final = 0.05
"""The same while none can be heard: the connection is being made, or there is a pooler."""


class PostgresViews:
    """The view store on one ``Database``.

    ``owned``: nobody else uses the database, and closing the store closes it. Where the log lives
    in the same database, pass ``owned=False``.
    """

    def __init__(self, database: Database, *, owned: bool = True) -> None:
        self.database = database
        self.owned = owned
        self.steps = Steps(database.schema)
        self.desk = PostgresDesk(self)
        self._presence = Presence()
        self._plans: Plans | None = None
        self._waker = Waker(database, f"diptych_views_{database.schema}", self._hear)
        self._steps = 0
        self._news = 0
        self._waiters: set[asyncio.Future[None]] = set()

    async def open(self, log: str, projections: dict[str, Kept], *, create: bool = True) -> None:
        """Make what is missing: tables, indexes, a checkpoint at 0 for each new projection.

        In the database's schema, which is made too. Without ``create``: ``NoViews`` instead.
        """
        from diptych.read.stores.postgres.schema import RACES, look_for_tables, make_tables

        async def job(connection: Connection) -> None:
            if not create:
                await look_for_tables(
                    connection, self.database.schema, projections, self.database.path
                )
                return
            try:
                await make_tables(connection, self.database.schema, log, projections)
            except RACES:
                await make_tables(connection, self.database.schema, log, projections)

        await self.database.run(job)
        for one in projections.values():
            self.steps.write_to({d.view: table for d, table in one.places if one.tables})

    # --- versions ---------------------------------------------------------------------------------

    async def versions(self) -> list[Version]:
        """Return all versions there are; none where nothing is set up."""
        return await self.database.run(lambda c: versions.read_versions(c, self.database.schema))

    async def claim(self, new: Sequence[Version]) -> list[Version]:
        """Note versions, where neither they, nor their instance, nor another live one is there."""
        await self.database.run(lambda c: versions.claim(c, self.database.schema, new))
        return await self.versions()

    async def turn(self, changes: Sequence[Turn], *, level: bool = False) -> bool:
        """Change versions, all or none of them, if each is still as it is believed to be."""
        schema = self.database.schema
        return await self.database.run(lambda c: versions.turn(c, schema, changes, level=level))

    async def forget(self, gone: Sequence[Version]) -> bool:
        """Delete versions, all or none of them, with all that is theirs alone."""
        schema = self.database.schema
        return await self.database.run(lambda c: versions.forget(c, schema, gone))

    async def index(self, kept: Kept) -> None:
        """Make the indexes of tables that were made without."""
        from diptych.read.stores.postgres.schema import make_all_indexes

        await self.database.run(lambda c: make_all_indexes(c, self.database.schema, kept))

    def read_from(self, tables: Mapping[type[View], str]) -> None:
        """From now on, let queries find these views in these tables."""
        if tables != self.steps.read:
            self.steps.read, self._plans = tables, None

    async def compare(
        self, view: type[View], tables: tuple[str, str], columns: Sequence[str], most: int
    ) -> Difference:
        """Compare two tables of a view in some columns, with at most so many examples."""
        schema, definition = self.database.schema, definition_of(view)
        return await self.database.run(
            lambda c: versions.compare(c, schema, definition, tables, columns, most)
        )

    # --- checkpoints and rows, for the engine -----------------------------------------------------

    async def checkpoints(self) -> dict[str, list[Checkpoint]]:
        """Return every projection's checkpoints, by name: its spans, in the order of slices."""
        return checkpoints_of(await self.database.run(lambda c: c.fetch(self.sql("read"))))

    async def lost_rows(self, *, refill: bool = False) -> dict[str, ViewLost]:
        """Return nothing: rows and checkpoints are in one database, and lost together."""
        return {}

    async def recut(self, projection: str, cuts: Collection[int]) -> list[Checkpoint]:
        """Cut a projection's spans at these slices, join what stands level; return the spans."""

        async def job(connection: Connection) -> list[Checkpoint]:
            async with connection.transaction():
                # Nobody is to wait for one who has been paused in between.
                await connection.execute(
                    f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; "
                    f"SET LOCAL idle_in_transaction_session_timeout = '{LOCK_SECONDS}s'"
                )
                return await recut(
                    connection, self.steps.sql, self.database.schema, projection, cuts
                )

        return await self.database.run(job)

    async def proof(self, projection: str) -> tuple[list[Checkpoint], dict[int, Tally]]:
        """Return a projection's spans and the tallies of all its blocks, of one snapshot."""
        row = await self.database.run(lambda c: c.fetchrow(self.sql("proof"), projection))
        assert row is not None
        return proof_of(row)

    async def block(self, projection: str, slice_: int, number: int) -> Tally:
        """Return the tally of one block, as far as spans that begin with a slice wrote it."""
        return await self.database.run(lambda c: self.inside(c).block(projection, slice_, number))

    async def prove(self, proof: Proof) -> None:
        """Keep what was found of a projection, in place of what was found before."""
        *values, unknown = structs.astuple(proof)
        text = msgspec.json.encode(unknown).decode()
        await self.database.run(lambda c: c.execute(self.sql("prove"), *values, text))

    async def proofs(self) -> dict[str, Proof]:
        """Return what was found last, by projection."""
        rows = await self.database.run(lambda c: c.fetch(self.sql("proofs")))
        return proofs_of(map(tuple, rows))

    def mark(self) -> int:
        """Return where one is in the news of steps."""
        self._waker.listen()
        return self._news

    async def moved(self, mark: int, timeout: float) -> None:
        """Wait until steps were made since a mark, at most ``timeout`` seconds."""
        if self._news != mark:
            return
        most = HEARING_SECONDS if self._waker.listening else DEAF_SECONDS
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=min(timeout, most))
        finally:
            self._waiters.discard(waiter)

    def _hear(self, _number: int) -> None:
        self._news += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _tell(self) -> None:
        """Let those know who wait, here and elsewhere."""
        self._hear(0)
        self._steps += 1
        self._waker.tell(self._steps)

    async def beat(self, worker: Worker, lease: float) -> list[Worker]:
        """Note that a worker is there; return those seen in the last ``lease`` seconds, by id."""

        async def job(connection: Connection) -> None:
            lists = (list(worker.projections), list(worker.bulk))
            await connection.execute(self.sql("beat"), worker.id, worker.host, worker.pid, *lists)

        await self.database.run(job)
        there, gone = await self._judged(lease)
        for one in gone:
            await self.leave(one.id)
        return there

    async def workers(self, lease: float) -> list[Worker]:
        """Return the workers seen in the last ``lease`` seconds, by id."""
        return (await self._judged(lease))[0]

    async def _judged(self, lease: float) -> tuple[list[Worker], list[Worker]]:
        rows = await self.database.run(lambda c: c.fetch(self.sql("workers")))
        return self._presence.judged(
            [
                Sight(Worker(id_, host, pid, tuple(names), tuple(bulk)), seen, age)
                for id_, host, pid, names, bulk, seen, age in rows
            ],
            lease,
        )

    async def leave(self, worker: str) -> None:
        """Note that a worker is there no more."""
        await self.database.run(lambda c: c.execute(self.sql("leave"), worker))

    async def load(self, view: type[View], keys: Sequence[Any]) -> dict[Any, Any]:
        """Return the rows that exist for these keys, by key."""
        rows = self.steps.rows_of(view)
        return await self.database.run(lambda c: rows.load(c, keys))

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Make all steps in one transaction; tell for each whether its checkpoint stood right.

        Many new rows are copied in, after the statement that has moved the checkpoints.

        A connection that is lost on the way leaves open whether it was committed. The step is
        then made again: it finds its checkpoint moved, and moved to where it would have moved it.
        """
        if not changes:
            return []
        # In one order everywhere, so that no two wait for each other.
        order = sorted(range(len(changes)), key=lambda index: _span(changes[index]))
        ordered = [changes[index] for index in order]
        without, copied = self.steps.without_new(ordered)
        statement, values = self.steps.statement(without, durable=False)
        attempts = 0

        async def make(connection: Connection) -> list[bool]:
            with refused_rows():
                row = await connection.fetchrow(statement, *values)
                assert row is not None
                moved = [bool(row[place]) for place in range(len(ordered))]
                for one in copied:
                    if moved[one.place]:
                        await one.into.copy(connection, one.rows)
            return moved

        async def job(connection: Connection) -> list[bool]:
            nonlocal attempts
            attempts += 1
            if copied:
                async with connection.transaction():
                    # One who is paused on the way is not waited for without end.
                    await connection.execute(
                        f"SET LOCAL statement_timeout = '{HELD_SECONDS}s'; "
                        f"SET LOCAL idle_in_transaction_session_timeout = '{HELD_SECONDS}s'"
                    )
                    moved = await make(connection)
            else:
                moved = await make(connection)
            if attempts > 1 and not all(moved):
                stored = checkpoints_of(await connection.fetch(self.sql("read")))
                for place, change in enumerate(ordered):
                    moved[place] |= change.after in stored.get(change.after.projection, ())
            return moved

        found = dict(zip(order, await self.database.run(job), strict=True))
        self._tell()
        return [found[index] for index in range(len(changes))]

    def inside(self, connection: Connection) -> PostgresInside:
        """Return the store within a transaction that is open on a connection to its database."""
        return PostgresInside(self, connection)

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[PostgresTransaction]:
        """Open a transaction; it commits at the end, or rolls back when something raises."""
        raised: Exception | None = None
        ended = ""
        try:
            async with self.database.lease() as connection:
                # Like all that is written here, it does not wait for the disk; and not for long for
                # a checkpoint that another worker holds: that one may have been paused.
                await connection.execute(
                    "BEGIN; SET LOCAL synchronous_commit = off; "
                    f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"
                )
                try:
                    yield PostgresTransaction(self, connection)
                except Exception as error:
                    if connection.is_closed():
                        raise unavailable(error, self.database.path) from error
                    raised = error
                    await connection.execute("ROLLBACK")
                else:
                    ended = await connection.execute("COMMIT")
                    self._tell()
        except LOST as error:
            raise unavailable(error, self.database.path) from error
        except asyncpg.PostgresError as error:
            raise failure_of(error, self.database.path) from error
        if isinstance(raised, asyncpg.PostgresError):
            raise failure_of(raised, self.database.path) from raised
        if raised is not None:
            raise raised
        if ended != "COMMIT":
            raise Invalid(
                "A statement of the transaction had failed, so nothing of it was kept; let its "
                "error pass",
                field="transaction",
                rule="no statement fails",
            )

    # --- queries ----------------------------------------------------------------------------------

    @property
    def plans(self) -> Plans:
        """The compiled statements."""
        if self._plans is None:
            from diptych.read.stores.postgres.plans import Plans

            self._plans = Plans(self.database.schema, self.steps.read)
        return self._plans

    def plan(self, statement: Any) -> Any:
        """Return what may be passed on instead of a statement: it has been looked at already."""
        return self.plans.of(statement)

    def views_of(self, statement: Any) -> Iterable[type[View]]:
        """Return the views whose tables a statement names."""
        return self.plans.of(statement).views

    async def all(self, statement: Any) -> Found:
        """Run a select of one view; ``rows`` are rows of it."""
        from diptych.read.stores.postgres.plans import rows_and_positions

        planned = self.plans.of(statement)
        layout = planned.definition.on("postgresql")
        rows, positions = await self.database.run(lambda c: rows_and_positions(c, planned))
        return Found.of(layout.from_rows(rows), positions_of(positions))

    async def rows(self, statement: Any) -> Found:
        """Run any select; ``rows`` are tuples."""
        from diptych.read.stores.postgres.plans import rows_and_positions

        planned = self.plans.of(statement)
        rows, positions = await self.database.run(lambda c: rows_and_positions(c, planned))
        return Found.of(planned.plan.tuples(rows), positions_of(positions))

    async def get(self, view: type[View], key: Any) -> Found:
        """Read one row by its key."""
        rows = self.steps.rows_of(view, read=True)
        values = rows.layout.key_values(key)
        found = await self.database.run(lambda c: c.fetch(rows.by_key_with_positions, *values))
        there = found[0][1] is not None
        return Found.of(
            rows.layout.from_rows([found[0][2:]] if there else []), positions_of(found[0][0])
        )

    async def close(self) -> None:
        """Release everything. May be called twice."""
        await self._waker.close()
        if self.owned:
            await self.database.close()

    def sql(self, name: str) -> str:
        """Return a statement on the checkpoints."""
        return self.steps.sql[name]


def _span(change: Change) -> tuple[str, int]:
    return change.before.projection, change.before.slice
