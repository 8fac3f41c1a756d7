"""One PostgreSQL database in this process: its connections, bounded, first come, first served.

A connection that is not idle when it is given back (cancelled, broken, within a transaction) is
thrown away, never handed to somebody else. Nothing here depends on a session's state, so the
database may stand behind PgBouncer in transaction mode (``?pooled=1``).
"""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
from msgspec import Struct

from diptych.errors import Closed, Invalid, LogUnusable, Unavailable
from diptych.sql.addresses import without_password
from diptych.sql.connecting import made, settings, watch
from diptych.sql.silence import COMMAND_SECONDS, Silence, limit

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[Any]"
Job: TypeAlias = Callable[[Connection], Awaitable[T]]

CONNECTIONS: Final = 8
PATIENCE: Final = 5.0
"""Seconds for which a lost connection is sought anew before callers get ``Unavailable``."""

SILENCE: Final = 30.0
"""Seconds without any answer after which the other end counts as gone: to the log's statements,
which are short, and to the network's own questions on all connections."""

END_SECONDS: Final = 2.0
"""How long the server may take to give up a statement whose caller was cancelled."""

SETUP_LOCK: Final = 0x64697074796368
"""The advisory lock of those who make tables."""

OLDEST: Final = 15
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,50}\Z")
_WORDS = """
    all analyse analyze and any array as asc asymmetric authorization binary both case cast
    check collate collation column concurrently constraint create cross current_catalog
    current_date current_role current_schema current_time current_timestamp current_user default
    deferrable desc distinct do else end except false fetch for foreign freeze from full grant
    group having ilike in initially inner intersect into is isnull join lateral leading left
    like limit localtime localtimestamp natural not notnull null offset on only or order outer
    overlaps placing primary references returning right select session_user similar some
    symmetric system_user table tablesample then to trailing true union unique user using
    variadic verbose when where window with
"""
RESERVED: Final = frozenset(_WORDS.split())
"""Words that cannot stand for a schema as they are: https://www.postgresql.org/docs/18/."""


LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.DatabaseDroppedError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
"""The connection is gone, and with it the answer to what was asked last."""

_FULL = (
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.OperatorInterventionError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.PostgresSystemError,
)
_SETTINGS = (
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
)
_AGAIN = (asyncpg.TransactionRollbackError,)
_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.UndefinedTableError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedFunctionError,
)


class Address(Struct, frozen=True):
    """A database's URL, taken apart. ``dsn`` is what the driver gets."""

    dsn: str
    schema: str
    connections: int
    pooled: bool
    shown: str
    further: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"

    @staticmethod
    def parse(url: str, field: str = "url") -> Address:
        """Read ``postgresql://user@host/database?schema=…&connections=…&pooled=1``.

        ``schema`` (default diptych) holds the tables; ``connections`` bounds their number;
        ``pooled`` is for PgBouncer in transaction mode. Everything else is libpq's.
        """
        parts = _split(url, field)
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        schema = given.pop("schema", "diptych")
        connections = given.pop("connections", str(CONNECTIONS))
        pooled = given.pop("pooled", "0")
        rule = ""
        if not _SCHEMA.match(schema) or schema.startswith("pg_") or schema in RESERVED:
            rule = "schema: a-z, 0-9 and '_', not pg_…, no word of SQL"
        elif not (connections.isascii() and connections.isdigit() and int(connections) >= 2):
            rule = "connections: a number, 2 or more"
        elif pooled not in ("0", "1"):
            rule = "pooled: 0 or 1"
        if rule:
            raise _no_address(url, field, rule)
        dsn = urlunsplit(parts._replace(query=urlencode(given)))
        shown = without_password(urlunsplit(parts._replace(query="")))
        return Address(dsn, schema, int(connections), pooled == "1", shown, tuple(given))


def _split(url: str, field: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may hold the password
        parts = None
    # A / or # that is not written as %2F or %23 ends the password, and what follows looks like
    # something else.
    if parts is None or "@" in parts.path or "@" in parts.query or parts.fragment:
        rule = "special characters of user, password and database as %XX (urllib.parse.quote)"
        raise _no_address(url, field, rule)
    return parts


def _no_address(url: str, field: str, rule: str) -> Invalid:
    return Invalid(
        "That is no address of a database", field=field, rule=rule, got=without_password(url)
    )


class Database:
    """A database and this process's connections to it, made when they are needed.

    ``patience`` (seconds): how long a connection is sought before ``Unavailable``. ``silence``
    (seconds): how long a short statement may go without an answer, before its connection counts
    as lost. ``made`` counts the connections that were made.
    """

    def __init__(
        self,
        url: str,
        *,
        patience: float = PATIENCE,
        silence: float = SILENCE,
        field: str = "url",
    ) -> None:
        self.address = Address.parse(url, field)
        self.schema = self.address.schema
        self.patience = patience
        self.silence = silence
        self.hearing = Silence(silence)
        self.made = 0
        self._free = asyncio.Semaphore(self.address.connections)
        self._idle: deque[Connection] = deque()
        self._leased: set[Connection] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        # Since when, and when last, no connection was to be had, and why.
        self._away_since = self._away_at = -math.inf
        self._away: BaseException | None = None

    @property
    def most(self) -> int:
        """How many connections there are at most, one to listen with aside."""
        return self.address.connections

    @property
    def path(self) -> str:
        """The address, for people: without a password."""
        return self.address.shown

    # --- work -------------------------------------------------------------------------------------

    async def run(self, job: Job[T], *, again: bool = True, brief: bool = False) -> T:
        """Run a job on a connection. With ``again`` it is run anew when the connection is lost.

        So it must be one that changes nothing, or changes the same thing twice. ``brief``: see
        `lease`. Raises ``Unavailable`` when the database cannot be reached, or refuses work.
        """
        attempt, deadline = 0, math.inf
        while True:
            try:
                async with self.lease(brief=brief) as connection:
                    return await job(connection)
            except (*LOST, asyncpg.PostgresError) as error:
                if not (is_lost(error) or isinstance(error, _AGAIN)):
                    raise failure_of(error, self.path) from error
                attempt += 1
                # From now: the job may have taken its time before.
                deadline = min(deadline, _now() + self.patience)
                if not again or _now() > deadline:
                    raise unavailable(error, self.path) from error
                await asyncio.sleep(backoff(attempt))

    def lease(self, *, brief: bool = False) -> Lease:
        """Hold a connection. It comes back only if it is idle; what breaks is raised as it is.

        ``brief``: it is cut off after ``silence`` seconds.
        """
        return Lease(self, brief=brief)

    async def _lend(self) -> Connection:
        self.require_usable()
        asked = _now()
        await self._free.acquire()
        try:
            self.require_usable()
            connection = await self._take(asked)
        except BaseException:
            self._free.release()
            raise
        self._leased.add(connection)
        return connection

    def _take_back(self, connection: Connection, error: BaseException | None) -> None:
        # A cancellation may leave a statement under way.
        under_way = error is not None and not isinstance(error, Exception)
        sound = error is None or not (under_way or is_lost(error))
        if not (sound or under_way):
            self._drop_idle()
        self._leased.discard(connection)
        if under_way and not connection.is_closed():
            self._end(connection)  # until then it counts as one in use
            return
        self._free.release()
        idle = not connection.is_closed() and not connection.is_in_transaction()
        if sound and idle and not self._closed:
            self._idle.append(connection)
        else:
            connection.terminate()

    def _end(self, connection: Connection) -> None:
        """Have the server give up what a connection is at."""

        async def end() -> None:
            try:
                async with asyncio.timeout(END_SECONDS):
                    await connection.close()
            except (*LOST, asyncpg.PostgresError):
                pass
            finally:
                connection.terminate()
                self._free.release()
                self._ending.discard(task)

        task = asyncio.create_task(end(), name="diptych-end")
        self._ending.add(task)

    def _drop_idle(self) -> None:
        """Throw away the idle ones: where one is lost, all are, and each would cost an attempt."""
        while self._idle:
            self._idle.pop().terminate()

    async def _take(self, asked: float) -> Connection:
        while self._idle:
            connection = self._idle.pop()  # the one used last knows most statements
            if not connection.is_closed():
                return connection
        attempt = 0
        while True:
            # Those who have waited for their turn share the attempt that was made meanwhile.
            if self._away is None or self._away_at < asked or self._awaited(self._away_at):
                begun = _now()
                try:
                    connection = await self.connect()
                except (*LOST, asyncpg.InsufficientResourcesError) as error:
                    self._note_away(error, begun)
                else:
                    self._away = None
                    return connection
            attempt += 1
            # One that was there and went away is not waited for by each in turn.
            if self._closed or not self._awaited(_now() + backoff(attempt)):
                raise unavailable(self._away, self.path) from self._away
            await asyncio.sleep(backoff(attempt))

    def _note_away(self, error: BaseException, begun: float) -> None:
        if self._away is None or begun - self._away_at > 4 * self.patience:
            self._away_since = begun  # before that nobody has asked for long
        self._away, self._away_at = error, _now()

    def _awaited(self, time: float) -> bool:
        """Whether the database, since it went away, may still be waited for at a time."""
        return time <= self._away_since + self.patience

    async def connect(self) -> Connection:
        """Return a new connection, which is the caller's to close."""
        return await made(self._connect())

    async def _connect(self) -> Connection:
        address = self.address
        try:
            connection = await asyncpg.connect(
                address.dsn,
                timeout=max(self.patience, 1.0),
                statement_cache_size=0 if address.pooled else 512,
                max_cached_statement_lifetime=0,
                # (Behind PgBouncer there is no session that could be told so.)
                server_settings={} if address.pooled else settings(self.silence),
            )
        except asyncpg.PostgresError as error:
            if "startup parameter" in str(error):
                raise _pooler(error, self.path) from error
            if isinstance(error, _SETTINGS):
                raise Invalid(
                    "PostgreSQL does not take a parameter of the URL",
                    field="url",
                    rule="schema, connections, pooled, or what PostgreSQL knows",
                    parameter=", ".join(address.further),
                    got=self.path,
                    why=error,
                ) from error
            if is_lost(error) or isinstance(error, asyncpg.InsufficientResourcesError):
                raise
            raise failure_of(error, self.path) from error
        except ValueError as error:
            raise Invalid(
                "That is no address of a database",
                field="url",
                rule="postgresql://user:password@host:port/database",
                got=self.path,
                why=error,
            ) from error
        self.made += 1
        watch(connection, self.silence)
        return connection

    async def close(self) -> None:
        """Close the connections; one that is at work is ended. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self.hearing.close()
        while self._idle:
            connection = self._idle.pop()
            with suppress(*LOST, asyncpg.PostgresError):
                await connection.close(timeout=2.0)
        for connection in list(self._leased):
            connection.terminate()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def require_usable(self) -> None:
        """Raise ``Closed`` when the database has been closed."""
        if self._closed:
            raise Closed("The database has been closed", database=self.path)

    # --- names ------------------------------------------------------------------------------------

    def sql(self, text: str) -> str:
        """Put the schema's name where ``{schema}`` stands."""
        return text.replace("{schema}", self.schema)


class Lease:
    """A connection for a while: see `Database.lease`. (As a generator it would cost twice that.)"""

    def __init__(self, database: Database, *, brief: bool) -> None:
        self._database = database
        self._brief = brief

    async def __aenter__(self) -> Connection:
        self._connection = connection = await self._database._lend()  # pyright: ignore[reportPrivateUsage]
        # Where nothing is heard any more, not even a cancelled statement would end.
        if self._brief:
            self._database.hearing.begin(connection)
        else:
            limit(connection, COMMAND_SECONDS)
        return connection

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._brief:
            self._database.hearing.end(self._connection)
        else:
            limit(self._connection, None)
        self._database._take_back(self._connection, error)  # pyright: ignore[reportPrivateUsage]


def is_lost(error: BaseException) -> bool:
    """Whether an error means that the connection is gone, not that a value cannot be bound."""
    return isinstance(error, LOST) and not isinstance(error, ValueError)


def backoff(attempt: int) -> float:
    """Return how many seconds to wait before the next attempt: doubled up to 1 s, with jitter."""
    return min(0.02 * 2.0 ** min(attempt, 10), 1.0) * random.uniform(0.5, 1.0)


def unavailable(error: BaseException | None, path: str) -> Unavailable:
    """Return the error for a database that is not there."""
    return Unavailable(
        "PostgreSQL cannot be reached; nothing was stored. Try again later",
        database=path,
        why=f"{type(error).__name__}: {error}",
    )


def failure_of(error: Exception, path: str) -> Exception:
    """Return the library's error for one of PostgreSQL's: what callers can do something about."""
    why = f"{type(error).__name__}: {error}"
    if isinstance(error, _FULL):
        return Unavailable(
            "PostgreSQL refused the work (full, read-only, or by an operator or a timeout of the "
            "server's); nothing of it was stored",
            database=path,
            why=why,
        )
    if isinstance(error, _AGAIN):
        return unavailable(error, path)
    if isinstance(
        error, (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
    ):
        return _pooler(error, path)
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return LogUnusable(
            "PostgreSQL has no database of that name; create it first, as with createdb",
            database=path,
            why=why,
        )
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return LogUnusable(
            "PostgreSQL does not let this role do that. `diptych db apply --role NAME` gives a "
            "role what an application needs; to make or drop tables, as `diptych projections drop` "
            "does, takes the role that owns them. `diptych db plan` prints what is missing",
            database=path,
            why=why,
        )
    if isinstance(error, _REFUSED):
        return LogUnusable(
            "PostgreSQL does not let this role in, or the schema is not set up; see "
            "`diptych db plan`",
            database=path,
            why=why,
        )
    return error  # a fault in a statement of ours, or a value that cannot be bound


def _pooler(error: Exception, path: str) -> LogUnusable:
    return LogUnusable(
        "This is no PostgreSQL but a pooler before it, such as PgBouncer in transaction mode; add "
        "pooled=1 to the URL's parameters",
        database=path,
        why=f"{type(error).__name__}: {str(error).splitlines()[0]}",
    )


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def _now() -> float:
    return _loop().time()
