"""The log in PostgreSQL, as asyncio sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from diptych.errors import Closed, DiptychError, LogUnusable, NoLog
from diptych.log import (
    EVERY_EVENT,
    Append,
    Appended,
    EventQuery,
    Outcome,
    Page,
    Told,
    head_set_back,
    require_limit,
    require_sound,
)
from diptych.logs.postgres.checking import recall
from diptych.logs.postgres.reading import Request, read_page, read_points
from diptych.logs.postgres.statements import Statements
from diptych.logs.postgres.within import LogWithin, asyncpg_connection, require_fitting
from diptych.logs.postgres.writing import InsideAppend, Writer
from diptych.sql.gathering import Gathering, as_task, failed
from diptych.sql.migrations import Schema
from diptych.sql.postgres import OLDEST, Connection, Database
from diptych.sql.ranges import is_point
from diptych.sql.waking import Waker

POLL_SECONDS: Final = 0.25

LOCK_SHARE: Final = 0.4
"""The share of ``silence`` for which one attempt to append waits for the log's lock."""

_APPENDS_AT_ONCE = 2048
_READS_AT_ONCE = 512


class PostgresLog:
    """A log in one schema of a `Database`, made by `open`.

    Calls of ``append`` that wait at the same time share one transaction; small calls of ``read``
    share one statement.
    """

    works_by: Final = "process"

    def __init__(
        self,
        database: Database,
        identity: str,
        *,
        inside: InsideAppend | None = None,
        poll: float = POLL_SECONDS,
        remembered: int = 25_000,
        owned: bool = False,
    ) -> None:
        self._database = database
        self._identity = identity
        self._poll = poll
        self._owned = owned
        self._sql = Statements(database.schema, lock=LOCK_SHARE * database.silence)
        self._writer = Writer(database, self._sql, inside, remembered)
        self._appends = Gathering(as_task(self._append), _APPENDS_AT_ONCE)
        self._points = Gathering(as_task(self._read_points), _READS_AT_ONCE)
        self._inside = inside
        self._channel = f"diptych_{identity.replace('-', '')}"
        self._waker = Waker(database, self._channel, self._announce)
        self._waiters: dict[asyncio.Future[int], int] = {}
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        database: Database | str,
        *,
        create: bool = True,
        inside: InsideAppend | None = None,
        poll: float = POLL_SECONDS,
        remembered: int = 25_000,
    ) -> PostgresLog:
        """Open the log in a database's schema; make it when there is none and the role may.

        Without ``create`` none is made: ``NoLog``.
        ``inside`` is done within each append's transaction. ``poll`` (seconds) is how often `wait`
        looks for appends of others, for when a notification is lost. At least ``remembered`` of the
        newest events' tags are kept in memory. A `Database` that was handed in stays open when the
        log closes. Raises ``LogUnusable`` for a schema of another version, ``Unavailable``.
        """
        owned = not isinstance(database, Database)
        if not isinstance(database, Database):
            database = Database(database)
        try:
            identity = await database.run(prepare(database, create))
        except BaseException:
            if owned:
                await database.close()
            raise
        return cls(database, identity, inside=inside, poll=poll, remembered=remembered, owned=owned)

    @property
    def identity(self) -> str:
        """The log's own id, made when it was created and never changed."""
        return self._identity

    @property
    def renewals(self) -> int:
        """How many connections were made: each may be to another server, which has lost events."""
        return self._database.made

    def append(self, batch: Sequence[Append]) -> Awaitable[list[Outcome]]:
        """Append a batch in one durable transaction; answer each append by itself, in order.

        When the caller is cancelled, the batch is stored or not as a whole.
        """
        try:
            self._require_open()
            require_sound(batch)
        except DiptychError as error:
            return failed(error)
        return self._appends.ask(batch)

    def begin_append(self, batch: Sequence[Append], told: Told) -> None:
        """Begin to append; see `diptych.log.beginner_of`."""
        self._require_open()
        self._appends.begin(batch, told)

    async def _append(self, batches: list[Sequence[Append]]) -> list[list[Outcome]]:
        answers = await self._writer.append(batches)
        ends = (o.last for outcomes in answers for o in outcomes if isinstance(o, Appended))
        head = max(ends, default=0)
        self._announce(head)
        self._waker.tell(head)
        return answers

    def read(
        self,
        query: EventQuery = EVERY_EVENT,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int = 1000,
    ) -> Awaitable[Page]:
        """Return the next matching events after a position, at most ``limit``, up to ``until``."""
        self._require_open()
        require_limit(limit)
        request = Request.of(query, after, until, limit)
        if is_point(request.query):
            return self._points.ask(request)
        return self._database.run(lambda c: read_page(c, self._sql, request), brief=True)

    async def _read_points(self, requests: list[Request]) -> list[Page]:
        return await self._database.run(lambda c: read_points(c, self._sql, requests), brief=True)

    async def head(self) -> int:
        """Return the position of the last event; 0 when there is none."""
        self._require_open()
        return int(await self._database.run(lambda c: c.fetchval(self._sql.head), brief=True))

    async def wait(self, after: int, timeout: float | None = None) -> int:
        """Wait until the head lies after a position, at most ``timeout`` s; return the head.

        Woken at once by appends through this object and by notifications of others.
        """
        self._require_open()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[int] = loop.create_future()
        self._waiters[waiter] = after
        try:
            # Asked after the waiter is there: what comes in between is not missed.
            head = await self.head()
            if head > after or (timeout is not None and timeout <= 0):
                return head
            self._waker.listen()
            if self._poller is None:
                self._poller = loop.create_task(self._look_out(), name="diptych-poll")
            await asyncio.wait({waiter}, timeout=timeout)
            return waiter.result() if waiter.done() else await self.head()
        finally:
            del self._waiters[waiter]
            if not waiter.cancel():
                waiter.exception()  # it may have come too late to be of use
            if self._poller is not None and not self._waiters:
                self._poller.cancel()
                self._poller = None

    async def _look_out(self) -> None:
        while True:
            await asyncio.sleep(self._poll)
            try:
                self._announce(await self.head())
            except Exception as error:  # whatever it is, nobody must wait for ever
                self._disappoint(error)

    def _announce(self, head: int) -> None:
        for waiter, after in self._waiters.items():
            if head > after and not waiter.done():
                waiter.set_result(head)

    def _disappoint(self, error: Exception) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)

    async def recall(self, keys: Sequence[str]) -> dict[str, Appended]:
        """Return the first answers kept under these idempotency keys."""
        self._require_open()
        found = await self._database.run(lambda c: recall(c, self._sql, keys), brief=True)
        return {key: answer for key, (_, answer) in found.items()}

    async def within(self, connection: Any) -> LogWithin:
        """Return the log within the transaction that is open on a connection of the caller's.

        An asyncpg connection, or SQLAlchemy's AsyncConnection or AsyncSession, to this database.
        Raises ``Invalid`` for anything else.
        """
        self._require_open()
        found = await asyncpg_connection(connection)
        began = await require_fitting(found, self._sql, self._identity)
        made = (connection, found, self._identity, self._channel, self._sql, self._inside, began)
        return LogWithin(*made)

    async def close(self) -> None:
        """Finish what was accepted, then release everything. May be called twice."""
        self._closed = True
        self._disappoint(Closed("The log has been closed", log=self._identity))
        await self._appends.close()
        await self._points.close()
        await self._waker.close()
        if self._owned:
            await self._database.close()

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("The log has been closed", log=self._identity)
        self._database.require_usable()


def log_schema() -> Schema:
    """Return what the log's schema should be."""
    return Schema("log", "diptych.logs.postgres")


def prepare(database: Database, create: bool) -> Callable[[Connection], Awaitable[str]]:
    """Return the job that makes the log unless it is there, and returns its identity."""
    schema = database.schema

    async def job(connection: Connection) -> str:
        wanted = log_schema()
        version = connection.get_server_version()
        if version.major < OLDEST:
            raise LogUnusable(
                f"PostgreSQL {OLDEST} or later is needed",
                version=f"{version.major}.{version.minor}",
            )
        encoding = await connection.fetchval("SHOW server_encoding")
        if encoding != "UTF8":
            raise LogUnusable(
                "The database must be able to hold any text: create one with ENCODING 'UTF8'",
                encoding=encoding,
            )
        pending, exists = await wanted.state(connection, schema)
        if pending and exists:
            raise LogUnusable(
                "The log's schema is that of another version of diptych; run `diptych db plan`, "
                "then `diptych db apply`",
                schema=schema,
                pending=", ".join(step.name for step in pending),
            )
        if pending and not create:
            raise NoLog(
                "There is no log at that address, and none was to be made",
                database=database.path,
                schema=schema,
            )
        if pending:
            await wanted.apply(connection, schema)
        row = await connection.fetchrow(
            f"SELECT identity, head, (SELECT max(position) FROM {schema}.events) FROM {schema}.log"
        )
        if row is None:
            raise LogUnusable(
                "The log has lost its identity and its head, the row of the table log; restore "
                "the database from a backup",
                schema=schema,
            )
        identity, head, last = row
        if (last or 0) > head:
            raise head_set_back(schema=schema, head=head, last_event=last)
        return str(identity)

    return job
