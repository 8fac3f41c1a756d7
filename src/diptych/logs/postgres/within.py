"""The log within a transaction of the caller's: what is appended commits with his own changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from diptych.errors import Closed, Invalid
from diptych.log import (
    EVERY_EVENT,
    Append,
    Appended,
    EventQuery,
    Outcome,
    Page,
    Refused,
    require_sound,
)
from diptych.logs.postgres.checking import Legs, first_stored, recall, stored_answers
from diptych.logs.postgres.reading import Request, read_page
from diptych.logs.postgres.rows import arrays_of, stored_events
from diptych.logs.postgres.statements import Statements
from diptych.logs.postgres.writing import InsideAppend
from diptych.sql.judge import Judge
from diptych.sql.postgres import Connection
from diptych.sql.recent import Recent


class LogWithin:
    """One open transaction. Nothing of it is remembered outside: it may yet be rolled back.

    ``given`` is what it was made of: see `asyncpg_connection`.
    """

    def __init__(
        self,
        given: Any,
        connection: Connection,
        identity: str,
        channel: str,
        sql: Statements,
        inside: InsideAppend | None,
        began: datetime,
    ) -> None:
        self._given = given
        self._connection = connection
        self._began = began
        self.identity = identity
        self._channel = channel
        self._sql = sql
        self._inside = inside

    async def lock(self) -> int:
        """Take the log's lock, in a statement of its own; return the head.

        Raises ``Closed`` when the transaction has ended: outside of it nothing is held, and what
        is appended would commit by itself.
        """
        if self._connection.is_in_transaction():
            if _is_session(self._given) and self._given.in_transaction():
                # A session begins a savepoint (`begin_nested`) when it is next asked for its
                # connection; what is done before is not rolled back with it.
                await self._given.connection()
            row = await self._connection.fetchrow(self._sql.lock_within)
            if row is not None and row[1] == self._began:
                return int(row[0])
        raise Closed(
            "The transaction has ended that this was made for; call within() again in the next one",
            log=self.identity,
        )

    async def append(self, append: Append) -> Outcome:
        """Append, if the conditions hold; where inline projections raise, roll back to before."""
        require_sound([append])
        connection, sql = self._connection, self._sql
        head = await self.lock()
        batches = [[append]]
        answers = await stored_answers(connection, sql, batches)
        recent = Recent(1)
        recent.forget(head)
        old = await first_stored(connection, sql, batches, head)
        judge = Judge(recent, answers, lambda condition: old.get(id(condition), 0))
        outcome = judge.answer(append, ())
        if not isinstance(outcome, Appended) or not (judge.new or judge.keys):
            return outcome
        try:
            async with connection.transaction():  # a savepoint
                none = Legs(head).arrays()
                await connection.fetchrow(sql.append_locked, head, True, *arrays_of(judge), *none)
                if judge.new and self._inside is not None:
                    await self._inside(connection, stored_events(judge))
        except asyncpg.PostgresError:
            raise
        except Exception as error:
            return Refused("failed", error=error)
        # Delivered when the caller commits, which nobody else can know.
        await connection.execute(sql.notify, self._channel, str(outcome.last))
        return outcome

    async def read(
        self,
        query: EventQuery = EVERY_EVENT,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int = 1000,
    ) -> Page:
        """Return a page as this transaction sees it, its own events included."""
        request = Request.of(query, after, until, limit)
        return await read_page(self._connection, self._sql, request)

    async def recall(self, keys: Sequence[str]) -> dict[str, Appended]:
        """Return the first answers kept under these idempotency keys."""
        found = await recall(self._connection, self._sql, keys)
        return {key: answer for key, (_, answer) in found.items()}


async def asyncpg_connection(given: Any) -> Connection:
    """Return the driver's connection within an asyncpg or SQLAlchemy connection (or session).

    Raises ``Invalid`` where there is none.
    """
    connection = given
    if _is_session(given):
        connection = await given.connection()
    if hasattr(connection, "get_raw_connection"):  # an AsyncConnection: it begins when first used
        await connection.exec_driver_sql("SELECT 1")
        connection = (await connection.get_raw_connection()).driver_connection
    # What asyncpg's own pool hands out is a proxy around its connection.
    inner: object = getattr(connection, "_con", None) or connection
    if not isinstance(inner, asyncpg.Connection):
        raise Invalid(
            "That is no connection to PostgreSQL by asyncpg",
            field="connection",
            rule="an asyncpg connection, or SQLAlchemy's AsyncConnection or AsyncSession",
            got=type(given).__qualname__,
        )
    found: Connection = inner  # pyright: ignore[reportUnknownVariableType]
    return found


async def require_fitting(connection: Connection, sql: Statements, identity: str) -> datetime:
    """Return when the transaction began that is open on a connection.

    Raises ``Invalid`` unless it is READ COMMITTED, and on the database of the log.
    """
    level, reached, began = "no transaction", None, datetime.min
    if connection.is_in_transaction():
        try:
            row = await connection.fetchrow(sql.within)
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            row = None
        if row is None:
            level = "read committed"
        else:
            level, reached, began = row
    if level != "read committed":
        raise Invalid(
            "Appending within a transaction needs one that is open, READ COMMITTED: under other "
            "levels the log's checks would not see what was committed last",
            field="connection",
            rule="an open transaction, READ COMMITTED",
            got=level,
        )
    if reached != identity:
        raise Invalid(
            "That connection does not reach the log, so table and events could not commit "
            "together; connect to the log's own database",
            field="connection",
            rule=f"a connection to the database whose schema {sql.schema} holds the log {identity}",
            got="no log there" if reached is None else f"the log {reached}",
        )
    return began


def _is_session(given: Any) -> bool:
    """Whether it is an AsyncSession of SQLAlchemy."""
    return hasattr(given, "get_bind") and hasattr(given, "connection")
