"""One PostgreSQL database in this process: its connections, bounded, first come, first served.

A connection that is not idle when it is given back (cancelled, broken, within a transaction) is
thrown away, never handed to somebody else. Nothing here depends on a session's state, so the
database may stand behind PgBouncer in transaction mode (``?pooled=1``).
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
from msgspec import Struct

from diptych.errors import Closed, Invalid, LogUnusable, Unavailable
from diptych.sql.addresses import without_password

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[Any]"
Job: TypeAlias = Callable[[Connection], Awaitable[T]]

CONNECTIONS: Final = 8
PATIENCE: Final = 5.0
"""Seconds for which a lost connection is sought anew before callers get ``Unavailable``."""

CONNECT_SECONDS: Final = 10.0
COMMAND_SECONDS: Final = 300.0
"""How long a statement may take before its connection is given up: a network that says nothing."""

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

_FULL = (asyncpg.InsufficientResourcesError, asyncpg.ReadOnlySQLTransactionError)
_AGAIN = (asyncpg.TransactionRollbackError,)
_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedTableError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.UndefinedFunctionError,
)


class Address(Struct, frozen=True):
    """A database's URL, taken apart. ``dsn`` is what the driver gets."""

    dsn: str
    schema: str
    connections: int
    pooled: bool
    shown: str

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
        return Address(dsn, schema, int(connections), pooled == "1", shown)


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

    ``patience`` (seconds): how long a connection is sought before ``Unavailable``.
    """

    def __init__(self, url: str, *, patience: float = PATIENCE, field: str = "url") -> None:
        self.address = Address.parse(url, field)
        self.schema = self.address.schema
        self.patience = patience
        self._free = asyncio.Semaphore(self.address.connections)
        self._idle: deque[Connection] = deque()
        self._leased: set[Connection] = set()
        self._closed = False

    @property
    def most(self) -> int:
        """How many connections there are at most, one to listen with aside."""
        return self.address.connections

    @property
    def path(self) -> str:
        """The address, for people: without a password."""
        return self.address.shown

    # --- work -------------------------------------------------------------------------------------

    async def run(self, job: Job[T], *, again: bool = True) -> T:
        """Run a job on a connection. With ``again`` it is run anew when the connection is lost.

        So it must be one that changes nothing, or changes the same thing twice. Raises
        ``Unavailable`` when the database cannot be reached, or refuses work.
        """
        deadline = _now() + self.patience
        attempt = 0
        while True:
            try:
                async with self.lease() as connection:
                    return await job(connection)
            except (*LOST, *_AGAIN) as error:
                attempt += 1
                if not again or _now() > deadline:
                    raise unavailable(error, self.path) from error
                await asyncio.sleep(backoff(attempt))
            except asyncpg.PostgresError as error:
                raise failure_of(error, self.path) from error

    @asynccontextmanager
    async def lease(self) -> AsyncGenerator[Connection]:
        """Hold a connection. It comes back only if it is idle; what breaks is raised as it is."""
        self.require_usable()
        async with self._free:
            self.require_usable()
            connection = await self._take()
            self._leased.add(connection)
            sound = False
            try:
                yield connection
                sound = True
            except Exception as error:  # not a cancellation: that may leave a statement under way
                sound = not isinstance(error, LOST)
                raise
            finally:
                self._leased.discard(connection)
                idle = not connection.is_closed() and not connection.is_in_transaction()
                if sound and idle and not self._closed:
                    self._idle.append(connection)
                else:
                    connection.terminate()

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()  # the one used last knows most statements
            if not connection.is_closed():
                return connection
        deadline = _now() + self.patience
        attempt = 0
        while True:
            try:
                return await self.connect()
            except LOST as error:
                attempt += 1
                # One that was there and went away shall not be waited for by each in turn.
                if self._closed or _now() + backoff(attempt) > deadline:
                    raise unavailable(error, self.path) from error
            await asyncio.sleep(backoff(attempt))

    async def connect(self) -> Connection:
        """Return a new connection, which is the caller's to close."""
        address = self.address
        try:
            return await asyncpg.connect(
                address.dsn,
                timeout=CONNECT_SECONDS,
                command_timeout=COMMAND_SECONDS,
                statement_cache_size=0 if address.pooled else 512,
                max_cached_statement_lifetime=0,
                # Compiling a plan takes longer than any of our statements. (Behind PgBouncer
                # there is no session that could be told so.)
                server_settings={} if address.pooled else {"jit": "off"},
            )
        except asyncpg.CannotConnectNowError:
            raise
        except asyncpg.PostgresError as error:
            raise failure_of(error, self.path) from error
        except (ValueError, asyncpg.ClientConfigurationError) as error:
            raise Invalid(
                "That is no address of a database",
                field="url",
                rule="postgresql://user:password@host:port/database",
                got=self.path,
                why=error,
            ) from error

    async def close(self) -> None:
        """Close the connections; one that is at work is ended. May be called twice."""
        if self._closed:
            return
        self._closed = True
        while self._idle:
            connection = self._idle.pop()
            with suppress(*LOST, asyncpg.PostgresError):
                await connection.close(timeout=2.0)
        for connection in list(self._leased):
            connection.terminate()

    def require_usable(self) -> None:
        """Raise ``Closed`` when the database has been closed."""
        if self._closed:
            raise Closed("The database has been closed", database=self.path)

    # --- names ------------------------------------------------------------------------------------

    def sql(self, text: str) -> str:
        """Put the schema's name where ``{schema}`` stands."""
        return text.replace("{schema}", self.schema)


def backoff(attempt: int) -> float:
    """Return how many seconds to wait before the next attempt: doubled up to 1 s, with jitter."""
    return min(0.02 * 2.0 ** min(attempt, 10), 1.0) * random.uniform(0.5, 1.0)


def unavailable(error: BaseException, path: str) -> Unavailable:
    """Return the error for a database that is not there."""
    return Unavailable(
        "PostgreSQL cannot be reached; nothing was stored. Try again later",
        database=path,
        why=f"{type(error).__name__}: {error}",
    )


def failure_of(error: asyncpg.PostgresError, path: str) -> Exception:
    """Return the library's error for one of PostgreSQL's: what callers can do something about."""
    why = f"{type(error).__name__}: {error}"
    if isinstance(error, _FULL):
        return Unavailable(
            "PostgreSQL refused the work (full, or read-only); nothing of it was stored",
            database=path,
            why=why,
        )
    if isinstance(error, _AGAIN):
        return unavailable(error, path)
    if isinstance(error, _REFUSED):
        return LogUnusable(
            "PostgreSQL does not let this role in, or the schema is not set up; see "
            "`diptych db plan`",
            database=path,
            why=why,
        )
    return error  # a fault in a statement of ours, or a value that cannot be bound


def _now() -> float:
    return asyncio.get_running_loop().time()
