"""The operators' part of a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from diptych.read.port import BLOCK_SHIFT, Checkpoint, Parked, ParkedKey, Pause, Tally, View
from diptych.read.stored import checkpoint_of
from diptych.read.stores.postgres.rows import SQL as CHECKPOINTS
from diptych.read.stores.postgres.rows import insert_span
from diptych.sql.named import named_statements
from diptych.sql.postgres import Connection

if TYPE_CHECKING:
    from diptych.read.stores.postgres import PostgresViews

T = TypeVar("T")

SQL = named_statements(__name__.rpartition(".")[0], "desk.sql")


class PostgresDesk:
    """What operators look at and change, in the database of a store."""

    def __init__(self, store: PostgresViews) -> None:
        self._store = store
        schema = store.database.schema
        self._sql = {name: text.replace("{schema}", schema) for name, text in SQL.items()}
        self._hold = CHECKPOINTS["hold"].replace("{schema}", schema)

    async def keys(self) -> dict[str, list[ParkedKey]]:
        """Return the keys of which effects are queued or skipped, by projection, in their order."""
        found: dict[str, list[ParkedKey]] = {}
        for row in await self._store.database.run(lambda c: c.fetch(self._sql["keys"])):
            key = ParkedKey(*row)
            found.setdefault(key.projection, []).append(key)
        return found

    async def parked(
        self,
        projection: str,
        key: str | None = None,
        *,
        queued: bool = False,
        limit: int | None = None,
    ) -> list[Parked]:
        """Return a projection's parked effects, of one key or of all, by position.

        ``queued``: without those that were skipped.
        """
        statement = self._sql["parked"]
        values = (projection, key, queued, limit)
        rows = await self._store.database.run(lambda c: c.fetch(statement, *values))
        return [Parked(*row) for row in rows]

    async def pause(self, pause: Pause) -> Pause:
        """Stop a projection: no step that rests on an older revision is made from now on.

        Return the pause that stands: the first one.
        """

        async def job(connection: Connection) -> Pause:
            kept = await connection.fetchrow(self._sql["pause"], *structs.astuple(pause))
            await connection.execute(self._sql["raise"], pause.projection)
            return Pause(*kept) if kept else pause

        return await self._write(job)

    async def resume(self, projection: str) -> bool:
        """Let a projection go on; False where it was not paused."""

        async def job(connection: Connection) -> bool:
            if await connection.execute(self._sql["resume"], projection) == "DELETE 0":
                return False
            await connection.execute(self._sql["raise"], projection)
            return True

        return await self._write(job)

    async def pauses(self) -> dict[str, Pause]:
        """Return the projections that are paused."""
        rows = await self._store.database.run(lambda c: c.fetch(self._sql["pauses"]))
        return {row[0]: Pause(*row) for row in rows}

    async def rewind(self, to: Checkpoint, block: Tally, views: Sequence[type[View]]) -> None:
        """Put a projection back, as one span, in one transaction."""
        name, number = to.projection, to.position >> BLOCK_SHIFT

        async def job(connection: Connection) -> None:
            held = [checkpoint_of(row) for row in await connection.fetch(self._hold, name)]
            revision = max((span.revision for span in held), default=0) + 1
            await connection.execute(self._sql["forget_checkpoints"], name)
            await insert_span(connection, self._store.steps.sql, to, revision)
            await connection.execute(self._sql["forget_blocks"], name, number)
            if block.count:
                values = (name, to.slice, number, block.count, f"{block.digest:032x}")
                await connection.execute(self._sql["put_block"], *values)
            await connection.execute(self._sql["forget_parked"], name, to.position)
            await connection.execute(self._sql["forget_proof"], name)
            for view in views:
                await connection.execute(f"DELETE FROM {self._store.steps.rows_of(view).table}")

        await self._write(job)

    async def _write(self, job: Callable[[Connection], Awaitable[T]]) -> T:
        async def all_of_it(connection: Connection) -> T:
            async with connection.transaction():
                return await job(connection)

        return await self._store.database.run(all_of_it)
