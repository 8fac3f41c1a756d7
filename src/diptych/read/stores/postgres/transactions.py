"""The store within a transaction: a handler's, or an append's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
import msgspec

from diptych.errors import CheckpointMoved, DefinitionError
from diptych.read.port import Change, Checkpoint, Tally, View, definition_of
from diptych.read.stored import checkpoint_of, tally_of
from diptych.read.stores.postgres.rows import Rows, refused_rows
from diptych.sql.postgres import Connection

if TYPE_CHECKING:
    from diptych.read.stores.postgres import PostgresViews

V = TypeVar("V", bound=View)


class PostgresInside:
    """The store on a connection whose transaction is somebody else's: it ends when they end it."""

    def __init__(self, store: PostgresViews, connection: Connection) -> None:
        self._store = store
        self._connection = connection

    async def checkpoint(self, projection: str) -> Checkpoint | None:
        """Return the checkpoint of a projection of one span; nobody moves it until the end."""
        row = await self._connection.fetchrow(self._store.sql("hold"), projection)
        return None if row is None else checkpoint_of(row)

    async def block(self, projection: str, slice_: int, number: int) -> Tally:
        """Return the tally of one block, as far as spans that begin with a slice wrote it."""
        statement = self._store.sql("block")
        row = await self._connection.fetchrow(statement, projection, slice_, number)
        return Tally() if row is None else tally_of(*row)

    async def load(self, view: type[View], keys: Sequence[Any]) -> dict[Any, Any]:
        """Return the rows that exist for these keys, by key."""
        return await self._store.steps.rows_of(view).load(self._connection, keys)

    async def apply(self, change: Change) -> bool:
        """Make a step; False, and nothing done, when its checkpoint has been moved."""
        statement, values = self._store.steps.statement([change], durable=True)
        with refused_rows():
            return bool(await self._connection.fetchval(statement, *values))


class PostgresTransaction:
    """A transaction, for a handler."""

    def __init__(self, store: PostgresViews, connection: Connection) -> None:
        self._store = store
        self._connection = connection
        self.owned: frozenset[type[View]] | None = None

    async def move(self, change: Change) -> None:
        """Move the checkpoint; ``CheckpointMoved`` when it was moved by somebody else."""
        step = msgspec.structs.replace(change, writes=())  # rows are the handler's to write
        try:
            moved = await PostgresInside(self._store, self._connection).apply(step)
        except asyncpg.LockNotAvailableError:
            moved = False  # somebody is about to
        if not moved:
            raise CheckpointMoved(
                "Another worker moved this checkpoint first",
                projection=change.before.projection,
                position=change.before.position,
            )
        # What the handler itself waits for is its own affair.
        await self._connection.execute("SET LOCAL lock_timeout = 0")

    def own(self, views: Iterable[type[View]]) -> None:
        """From now on, let ``put`` and ``delete`` write these views only."""
        self.owned = frozenset(views)

    async def execute(self, statement: Any) -> int:
        """Run an insert, update or delete of SQLAlchemy Core; return how many rows it touched."""
        from diptych.read.stores.postgres.plans import count_of

        return await count_of(self._connection, self._store.plans.of(statement))

    async def all(self, statement: Any) -> list[Any]:
        """Return the rows of a select of one view."""
        from diptych.read.stores.postgres.plans import rows_of

        planned = self._store.plans.of(statement)
        layout = planned.definition.on("postgresql")
        return layout.from_rows(await rows_of(self._connection, planned))

    async def rows(self, statement: Any) -> list[tuple[Any, ...]]:
        """Return the rows of any select."""
        from diptych.read.stores.postgres.plans import rows_of

        planned = self._store.plans.of(statement)
        return planned.plan.tuples(await rows_of(self._connection, planned))

    async def get(self, view: type[V], key: Any) -> V | None:
        """Return the row of a key (a tuple where the view has several key fields)."""
        read = self.owned is None or view not in self.owned
        rows = self._store.steps.rows_of(view, read=read)
        values = rows.layout.key_values(key)
        found = rows.layout.from_rows(await self._connection.fetch(rows.by_key, *values))
        return found[0] if found else None

    async def put(self, row: View) -> None:
        """Insert a row, or replace the one of the same key."""
        rows = self._own(type(row))
        values = rows.layout.to_columns([row])
        with refused_rows():
            await self._connection.execute(rows.put_one, *values)

    async def delete(self, view: type[View], key: Any) -> None:
        """Delete the row of a key, if there is one."""
        rows = self._own(view)
        await self._connection.execute(rows.delete_one, *rows.layout.key_values(key))

    def _own(self, view: type[View]) -> Rows:
        if self.owned is not None and view not in self.owned:
            raise DefinitionError(
                "A handler writes the views that it names; add this one to handles(...)",
                at=definition_of(view).at,
                view=view.__name__,
            )
        return self._store.steps.rows_of(view)
