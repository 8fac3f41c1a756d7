"""What the tests of the log in PostgreSQL share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from diptych.log import Append, Condition, EventQuery, NewEvent
from diptych.logs.postgres import PostgresLog
from diptych.messages import new_id
from diptych.sql.postgres import Database

LONG = 60.0
SCHEMA = "diptych"


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncGenerator[PostgresLog]:
    """Open a log on a database of its own; ``patience`` and ``silence`` are the database's."""
    patience, silence = options.pop("patience", 5.0), options.pop("silence", 30.0)
    database = Database(url, patience=patience, silence=silence)
    try:
        log = await PostgresLog.open(database, **options)
        try:
            yield log
        finally:
            await log.close()
    finally:
        await database.close()


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[asyncpg.Connection[Any]]:
    """Connect past everything of ours."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Ask again and again until the answer is true; return it."""
    async with asyncio.timeout(LONG):
        while not (answer := await condition()):
            await asyncio.sleep(0.005)
        return answer


async def quiet(*logs: PostgresLog) -> None:
    """Wait until logs have told others of what they appended: a connection lies idle then."""

    async def told() -> bool:
        return all(log._waker._telling is None and log._database._idle for log in logs)

    await until(told)


async def has_told(log: Any) -> bool:
    """Whether a log has told others of its head.

    Doing so may take a second connection, and after a new one a log looks at all again.
    """
    return log._waker._telling is None


async def sessions(connection: asyncpg.Connection[Any]) -> list[asyncpg.Record]:
    """Return the other sessions of clients in this database."""
    return await connection.fetch(
        "SELECT pid, state, wait_event_type, wait_event, query FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    )


async def listener(connection: asyncpg.Connection[Any]) -> int:
    """Return the session that listens, once there is one."""

    async def look() -> int:
        for session in await sessions(connection):
            if session["query"].startswith("LISTEN") and session["state"] == "idle":
                return int(session["pid"])
        return 0

    found: int = await until(look)
    return found


async def waiting_for_the_lock(connection: asyncpg.Connection[Any], count: int = 1) -> list[int]:
    """Return the sessions that wait for a lock, once there are so many."""

    async def look() -> list[int]:
        pids = [s["pid"] for s in await sessions(connection) if s["wait_event_type"] == "Lock"]
        return pids if len(pids) >= count else []

    found: list[int] = await until(look)
    return found


@asynccontextmanager
async def locked(url: str) -> AsyncGenerator[None]:
    """Hold the log's lock, as any transaction that appends does."""
    async with connected(url) as connection, connection.transaction():
        await connection.execute(f"SELECT head FROM {SCHEMA}.log FOR UPDATE")
        yield


async def throw_out(connection: asyncpg.Connection[Any], pids: Sequence[int]) -> None:
    """End sessions, and wait until they are gone."""
    await connection.execute("SELECT pg_terminate_backend(p) FROM unnest($1::int[]) AS p", pids)

    async def gone() -> bool:
        left = {session["pid"] for session in await sessions(connection)}
        return not left.intersection(pids)

    await until(gone)


def marked(mark: str, *tags: str, type_name: str = "Moved") -> NewEvent:
    """Return a new event whose data contains a mark, as the messages that store it do."""
    return NewEvent(new_id(), type_name, tags, b'{"mark":"%s"}' % mark.encode(), b"{}")


def unless(tag: str, *types: str, after: int = 0) -> Condition:
    """Return the condition that boundaries are made of: types of one tag."""
    return Condition(EventQuery.of(types or ["Moved"], [tag]), after)


def one(*events: NewEvent, **options: Any) -> list[Append]:
    """Return a batch of one append."""
    return [Append(events, **options)]
