"""Views in a PostgreSQL database, in its schema."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from diptych.errors import ForeignCheckpoint, Invalid
from diptych.read.port import Change, Checkpoint, Found, Tally, View, definition_of
from diptych.read.stores.postgres.rows import (
    Steps,
    checkpoint_of,
    positions_of,
    refused_rows,
    tallies_of,
)
from diptych.read.stores.postgres.transactions import PostgresInside, PostgresTransaction
from diptych.sql.postgres import LOST, Connection, Database, failure_of, unavailable

if TYPE_CHECKING:
    from diptych.read.stores.postgres.plans import Plans


class PostgresViews:
    """The view store on one ``Database``.

    ``owned``: nobody else uses the database, and closing the store closes it. Where the log lives
    in the same database, pass ``owned=False``.
    """

    def __init__(self, database: Database, *, owned: bool = True) -> None:
        self.database = database
        self.owned = owned
        self.steps = Steps(database.schema)
        self._plans: Plans | None = None

    async def open(
        self, log: str, projections: dict[str, Sequence[type[View]]], *, create: bool = True
    ) -> None:
        """Make what is missing: tables, indexes, a checkpoint at 0 for each new projection.

        In the database's schema, which is made too. Without ``create``: ``NoViews`` instead.
        """
        from diptych.read.stores.postgres.schema import RACES, look_for_tables, make_tables

        kept = {name: [definition_of(v) for v in views] for name, views in projections.items()}

        async def job(connection: Connection) -> None:
            if not create:
                await look_for_tables(connection, self.database.schema, kept, self.database.path)
                return
            try:
                await make_tables(connection, self.database.schema, log, kept)
            except RACES:
                await make_tables(connection, self.database.schema, log, kept)

        await self.database.run(job)

    # --- checkpoints and rows, for the engine -----------------------------------------------------

    async def checkpoints(self) -> dict[str, Checkpoint]:
        """Return every projection's checkpoint, by name."""
        rows = await self.database.run(lambda c: c.fetch(self.sql("read")))
        return {row[0]: checkpoint_of(row) for row in rows}

    async def proof(self, projection: str) -> tuple[Checkpoint, dict[int, Tally]]:
        """Return a checkpoint and the tallies of all its blocks, of one snapshot."""
        row = await self.database.run(lambda c: c.fetchrow(self.sql("proof"), projection))
        if row is None:
            raise ForeignCheckpoint("The projection has no checkpoint", projection=projection)
        *checkpoint, blocks = row
        return checkpoint_of(checkpoint), tallies_of(blocks)

    async def block(self, projection: str, number: int) -> Tally:
        """Return the tally of one block."""
        return await self.database.run(lambda c: self.inside(c).block(projection, number))

    async def load(self, view: type[View], keys: Sequence[Any]) -> dict[Any, Any]:
        """Return the rows that exist for these keys, by key."""
        rows = self.steps.rows_of(view)
        return await self.database.run(lambda c: rows.load(c, keys))

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Make all steps in one transaction; tell for each whether its checkpoint stood right.

        A connection that is lost on the way leaves open whether it was committed. The step is
        then made again: it finds its checkpoint moved, and moved to where it would have moved it.
        """
        if not changes:
            return []
        # In one order everywhere, so that no two wait for each other.
        ordered = sorted(changes, key=lambda change: change.before.projection)
        statement, values = self.steps.statement(ordered, durable=False)
        attempts = 0

        async def job(connection: Connection) -> dict[str, bool]:
            nonlocal attempts
            attempts += 1
            with refused_rows():
                row = await connection.fetchrow(statement, *values)
            assert row is not None
            moved = {c.before.projection: went for c, went in zip(ordered, row, strict=False)}
            if attempts > 1 and not all(moved.values()):
                stored = {r[0]: checkpoint_of(r) for r in await connection.fetch(self.sql("read"))}
                for change in ordered:
                    moved[change.after.projection] |= (
                        stored.get(change.after.projection) == change.after
                    )
            return moved

        found = await self.database.run(job)
        return [found[change.before.projection] for change in changes]

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
                # Like all that is written here, it does not wait for the disk; and a handler
                # takes the time that it takes.
                await connection.execute(
                    "BEGIN; SET LOCAL synchronous_commit = off; "
                    "SET LOCAL idle_in_transaction_session_timeout = 0"
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

            self._plans = Plans(self.database.schema)
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
        return Found(layout.from_rows(rows), positions_of(positions))

    async def rows(self, statement: Any) -> Found:
        """Run any select; ``rows`` are tuples."""
        from diptych.read.stores.postgres.plans import rows_and_positions

        planned = self.plans.of(statement)
        rows, positions = await self.database.run(lambda c: rows_and_positions(c, planned))
        return Found(planned.plan.tuples(rows), positions_of(positions))

    async def get(self, view: type[View], key: Any) -> Found:
        """Read one row by its key."""
        rows = self.steps.rows_of(view)
        values = rows.layout.key_values(key)
        found = await self.database.run(lambda c: c.fetch(rows.by_key_with_positions, *values))
        there = found[0][1] is not None
        return Found(
            rows.layout.from_rows([found[0][2:]] if there else []), positions_of(found[0][0])
        )

    async def close(self) -> None:
        """Release everything. May be called twice."""
        if self.owned:
            await self.database.close()

    def sql(self, name: str) -> str:
        """Return a statement on the checkpoints."""
        return self.steps.sql[name]
