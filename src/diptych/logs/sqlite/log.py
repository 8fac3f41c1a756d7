"""The log in a SQLite file, as asyncio sees it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from diptych.errors import Closed, DiptychError, LogUnusable, NoLog
from diptych.log import (
    EVERY_EVENT,
    Append,
    Appended,
    EventQuery,
    InsideAppend,
    Outcome,
    Page,
    Told,
    head_set_back,
    require_limit,
    require_sound,
)
from diptych.logs.sqlite.reading import Request, read_page, read_pages
from diptych.logs.sqlite.statements import SQL, recall, schema
from diptych.logs.sqlite.writing import Writer
from diptych.sql.gathering import Deliver, Gathering, failed
from diptych.sql.ranges import FOREVER, findable, is_everything
from diptych.sql.sqlite import Database, is_missing, patiently
from diptych.sql.turns import LEAST, Turn

APPLICATION_ID = 1148809332
SCHEMA_VERSION = 1

_APPENDS_AT_ONCE = 2048
_READS_AT_ONCE = 1024


class SqliteLog:
    """A log in the file of a `Database`, made by `open`.

    Calls of ``append`` that wait at the same time share one transaction; calls of ``read`` share
    one statement where they can.
    """

    works_by: Final = "thread"

    def __init__(
        self,
        database: Database,
        identity: str,
        *,
        inside: InsideAppend | None = None,
        poll: float = 0.05,
        remembered: int = 25_000,
        owned: bool = False,
    ) -> None:
        self._database = database
        self._identity = identity
        self._poll = poll
        self._owned = owned
        self._writer = Writer(inside, remembered)
        self._appends = Gathering(self._append, _APPENDS_AT_ONCE)
        self._reads = Gathering(self._read, _READS_AT_ONCE)
        self._waiters: dict[asyncio.Future[int], int] = {}
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        database: Database | Path | str,
        *,
        create: bool = True,
        inside: InsideAppend | None = None,
        poll: float = 0.05,
        remembered: int = 25_000,
    ) -> SqliteLog:
        """Open the log in a file, and make it when the file is empty (or, else, ``NoLog``).

        ``inside`` is done within each append's transaction. ``poll`` (seconds) is how often `wait`
        looks for appends of other processes. At least ``remembered`` of the newest events' tags are
        kept in memory. A `Database` that was handed in stays open when the log closes. Raises
        ``LogUnusable`` for a file that is something else, or of a newer version.
        """
        owned = not isinstance(database, Database)
        if not isinstance(database, Database):
            if not create and is_missing(Path(database)):
                raise _no_log(Path(database))
            database = Database(Path(database))
        try:
            identity = await database.write(
                lambda connection: patiently(lambda: _prepare(connection, database.path, create))
            )
        except BaseException:
            if owned:
                await database.close()
            raise
        return cls(database, identity, inside=inside, poll=poll, remembered=remembered, owned=owned)

    @property
    def identity(self) -> str:
        """The log's own id, made when it was created and never changed."""
        return self._identity

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

    def _append(self, batches: list[Sequence[Append]], deliver: Deliver[list[Outcome]]) -> None:
        def done(answers: list[list[Outcome]] | None, failure: BaseException | None) -> None:
            if answers and self._waiters:
                ends = (o.last for outcomes in answers for o in outcomes if isinstance(o, Appended))
                self._announce(max(ends, default=0))
            deliver(answers, failure)

        if self._database.is_writing or sum(map(len, batches)) < LEAST:
            self._database.begin_write(
                lambda connection: self._writer.append(connection, batches), done, LogUnusable
            )
            return
        turn = Turn()

        def job(connection: sqlite3.Connection) -> list[list[Outcome]]:
            try:
                return self._writer.append(connection, batches, turn)
            finally:
                turn.over()

        self._database.begin_write(job, done, LogUnusable)
        turn.wait()

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
        until = FOREVER if until is None else min(until, FOREVER)
        request = Request(findable(query), min(after, FOREVER), until, min(limit, FOREVER))
        if is_everything(query):
            # Nothing is gained by gathering long reads; two that wait in line need no word from
            # the event loop, which may be busy with what was read before.
            return self._database.read(lambda connection: read_page(connection, request))
        return self._reads.ask(request)

    def _read(self, requests: list[Request], deliver: Deliver[Page]) -> None:
        self._database.begin_read(lambda connection: read_pages(connection, requests), deliver)

    async def head(self) -> int:
        """Return the position of the last event; 0 when there is none.

        Raises ``LogUnusable`` where the file was deleted, moved or replaced since it was opened.
        """
        return self._head()

    def _head(self) -> int:
        self._require_open()
        # Who asks for it goes by it: to follow a log that has gone would be to wait for ever.
        self._database.require_in_place(LogUnusable)
        (head,) = self._database.peek(SQL["head"])
        return int(head)

    async def wait(self, after: int, timeout: float | None = None) -> int:
        """Wait until the head lies after a position, at most ``timeout`` s; return the head.

        Woken at once by appends through this object; those of others are found by polling.
        """
        head = self._head()
        if head > after or (timeout is not None and timeout <= 0):
            return head
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[int] = loop.create_future()
        self._waiters[waiter] = after
        if self._poller is None:
            self._poller = loop.create_task(self._look_out())
        try:
            await asyncio.wait({waiter}, timeout=timeout)
            return waiter.result() if waiter.done() else self._head()
        finally:
            del self._waiters[waiter]
            self._rest()

    def _rest(self) -> None:
        if self._poller is not None and not self._waiters:
            self._poller.cancel()
            self._poller = None

    async def _look_out(self) -> None:
        while True:
            await asyncio.sleep(self._poll)
            try:
                self._announce(self._head())
            except DiptychError as error:
                self._disappoint(error)

    def _announce(self, head: int) -> None:
        for waiter, after in self._waiters.items():
            if head > after and not waiter.done():
                waiter.set_result(head)

    def _disappoint(self, error: DiptychError) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)

    async def recall(self, keys: Sequence[str]) -> dict[str, Appended]:
        """Return the first answers kept under these idempotency keys."""
        self._require_open()
        found = await self._database.read(lambda connection: recall(connection, keys))
        return {key: answer for key, (_, answer) in found.items()}

    async def close(self) -> None:
        """Finish what was accepted, then release everything. May be called twice."""
        self._closed = True
        self._disappoint(Closed("The log has been closed", log=self._identity))
        await self._appends.close()
        await self._reads.close()
        if self._owned:
            await self._database.close()

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("The log has been closed", log=self._identity)
        self._database.require_usable()


def _no_log(path: Path) -> NoLog:
    return NoLog("There is no log at that address, and none was to be made", path=path)


def _prepare(connection: sqlite3.Connection, path: Path | None, create: bool) -> str:
    """Make the file a log unless it is one, if that may be; return the log's identity."""
    if path is None:
        raise LogUnusable("A log in SQLite needs a file; for one in memory use MemoryLog")
    application, version, tables = connection.execute(SQL["marks"]).fetchone()
    if application != APPLICATION_ID and (application or tables):
        raise LogUnusable(
            "The file is a SQLite database, but not a log; choose another file for the log",
            path=path,
            application_id=application,
            tables=tables,
        )
    if version > SCHEMA_VERSION:
        raise LogUnusable(
            "The log was written by a newer version; upgrade diptych to open it",
            path=path,
            schema_of_file=version,
            schema_known=SCHEMA_VERSION,
        )
    if not application and not create:
        raise _no_log(path)
    if not application:
        try:
            connection.executescript(schema())
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
    identity, head, last = connection.execute(SQL["identity"]).fetchone()
    if last > head:
        raise head_set_back(path=path, head=head, last_event=last)
    return str(identity)
