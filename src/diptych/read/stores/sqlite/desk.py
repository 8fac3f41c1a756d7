"""The operators' part of a SQLite database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from diptych.read.port import BLOCK_SHIFT, Checkpoint, Parked, ParkedKey, Pause, Place, Tally, View
from diptych.read.stored import NO_TIME, moment_of
from diptych.read.stores.sqlite.rows import SQL as CHECKPOINTS
from diptych.read.stores.sqlite.rows import insert_span
from diptych.sql.named import named_statements
from diptych.sql.sqlite import transaction

if TYPE_CHECKING:
    from diptych.read.stores.sqlite import SqliteViews

T = TypeVar("T")

SQL = named_statements(__name__.rpartition(".")[0], "desk.sql")


class SqliteDesk:
    """What operators look at and change, in the database of a store."""

    def __init__(self, store: SqliteViews) -> None:
        self._store = store

    async def keys(self) -> dict[str, list[ParkedKey]]:
        """Return the keys of which effects are queued or skipped, by projection, in their order."""

        def job(connection: sqlite3.Connection) -> dict[str, list[ParkedKey]]:
            found: dict[str, list[ParkedKey]] = {}
            for row in connection.execute(SQL["keys"]).fetchall():
                values = [*row]
                for column in (6, 10):
                    values[column] = moment_of(values[column])
                key = ParkedKey(*values)
                found.setdefault(key.projection, []).append(key)
            return found

        return await self._store.database.read(job)

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
        values = {
            "projection": projection,
            "key": key,
            "queued": queued,
            "limit": -1 if limit is None else limit,
        }
        return await self._store.database.read(
            lambda c: [_parked(row) for row in c.execute(SQL["parked"], values).fetchall()]
        )

    async def pause(self, pause: Pause) -> Pause:
        """Stop a projection: no step that rests on an older revision is made from now on.

        Return the pause that stands: the first one.
        """
        values = (pause.projection, _text(pause.since), pause.actor, pause.why)

        def job(connection: sqlite3.Connection) -> Pause:
            connection.execute(SQL["pause"], values)
            connection.execute(SQL["raise"], (pause.projection,))
            return _pauses(connection)[pause.projection]

        return await self._write(job)

    async def resume(self, projection: str) -> bool:
        """Let a projection go on; False where it was not paused."""

        def job(connection: sqlite3.Connection) -> bool:
            if connection.execute(SQL["resume"], (projection,)).rowcount == 0:
                return False
            connection.execute(SQL["raise"], (projection,))
            return True

        return await self._write(job)

    async def pauses(self) -> dict[str, Pause]:
        """Return the projections that are paused."""
        return await self._store.database.read(_pauses)

    async def rewind(self, to: Checkpoint, block: Tally, views: Sequence[type[View]]) -> None:
        """Put a projection back, as one span, in one transaction."""
        name, number = to.projection, to.position >> BLOCK_SHIFT

        def job(connection: sqlite3.Connection) -> None:
            (revision,) = connection.execute(SQL["revision"], (name,)).fetchone()
            connection.execute(SQL["forget_checkpoints"], (name,))
            insert_span(connection, to, revision + 1)
            connection.execute(SQL["forget_blocks"], (name, number))
            if block.count:
                values = (name, to.slice, number, block.count, f"{block.digest:032x}")
                connection.execute(CHECKPOINTS["put_block"], values)
            connection.execute(SQL["forget_parked"], (name, to.position))
            connection.execute(SQL["forget_proof"], (name,))
            for view in views:
                connection.execute(f"DELETE FROM {self._store.rows_of(view).table}")

        await self._write(job)

    async def _write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        def all_of_it(connection: sqlite3.Connection) -> T:
            with transaction(connection):
                return job(connection)

        return await self._store.database.write(all_of_it)


def park(
    connection: sqlite3.Connection,
    projection: str,
    parked: Iterable[Parked],
    unparked: Iterable[Place],
) -> None:
    """Put parked effects, and take others away, within a transaction."""
    for place in unparked:
        connection.execute(SQL["unpark"], (projection, *place))
    for one in parked:
        connection.execute(
            SQL["put_parked"],
            (
                *(one.projection, one.key, one.position, one.slice, one.slices, one.event_id),
                *(one.event, _text(one.time), _text(one.since), one.kind, one.error, one.attempts),
                *(one.state, one.actor, one.why),
                None if one.decided is None else _text(one.decided),
            ),
        )


def _pauses(connection: sqlite3.Connection) -> dict[str, Pause]:
    rows = connection.execute(SQL["pauses"]).fetchall()
    return {row[0]: Pause(row[0], moment_of(row[1]) or NO_TIME, *row[2:]) for row in rows}


def _parked(row: Sequence[Any]) -> Parked:
    values = [*row]
    for column in (7, 8):
        values[column] = moment_of(values[column]) or NO_TIME
    values[15] = moment_of(values[15])
    return Parked(*values)


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds")
