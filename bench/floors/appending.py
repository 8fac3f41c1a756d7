"""Bare group commit: conditional appends of one event each, and nothing around them.

The same rows as ours (an event, its entries in the index by tag, the head), the same durability,
the condition checked by SQL inside the transaction; nothing is loaded, decided or encoded.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections import deque
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import asyncpg

from bench.floors.rows import DATA, METADATA

Job: TypeAlias = "tuple[str, asyncio.Future[int]]"


class Floor(Protocol):
    """Appends what waits in one transaction; the next batch gathers meanwhile."""

    def append(self, tag: str) -> asyncio.Future[int]:
        """Append one event, unless another of its tag came since the last by this floor."""
        ...

    async def close(self) -> None: ...


# --- SQLite: one writing thread -------------------------------------------------------------------

SQLITE_SCHEMA: Final = """
CREATE TABLE log (one INTEGER PRIMARY KEY, head INTEGER NOT NULL);
INSERT INTO log VALUES (1, 0);
CREATE TABLE events (position INTEGER PRIMARY KEY, id TEXT NOT NULL, type TEXT NOT NULL,
    tags TEXT NOT NULL, data TEXT NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE event_tags (tag TEXT NOT NULL, type TEXT NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (tag, type, position)) WITHOUT ROWID;
"""


def sqlite_connection(path: str | Path) -> sqlite3.Connection:
    """Connect with an fsync at each commit, and the cache that ours has."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 16000")
    connection.execute("PRAGMA cache_size = -65536")
    return connection


class SqliteFloor:
    """Group commit on the sqlite3 module."""

    def __init__(self, path: str) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._last: dict[str, int] = {}
        self._connection = sqlite_connection(path)
        self._connection.executescript(SQLITE_SCHEMA)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def append(self, tag: str) -> asyncio.Future[int]:
        answer: asyncio.Future[int] = self._loop.create_future()
        self._jobs.put((tag, answer))
        return answer

    async def close(self) -> None:
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch = [first]
            while not self._jobs.empty():
                job = self._jobs.get()
                if job is not None:
                    batch.append(job)
            answers = self._write(batch)
            self._loop.call_soon_threadsafe(_settle, answers)
        self._connection.close()

    def _write(self, batch: list[Job]) -> list[tuple[asyncio.Future[int], int]]:
        connection, last = self._connection, self._last
        events: list[tuple[Any, ...]] = []
        answers: list[tuple[asyncio.Future[int], int]] = []
        connection.execute("BEGIN IMMEDIATE")
        (position,) = connection.execute("SELECT head FROM log").fetchone()
        for tag, answer in batch:
            query = "SELECT max(position) FROM event_tags WHERE tag = ? AND type = 'Added'"
            (found,) = connection.execute(query, (tag,)).fetchone()
            assert found is None or found <= last[tag]
            position += 1
            last[tag] = position
            marks = (("", "Added", position), (tag, "Added", position))
            connection.executemany("INSERT INTO event_tags VALUES (?, ?, ?)", marks)
            identity = f"{position:036}"
            data, metadata = DATA.decode(), METADATA.decode()
            events.append((position, identity, "Added", f'["{tag}"]', data, metadata))
            answers.append((answer, position))
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", events)
        connection.execute("UPDATE log SET head = ?", (position,))
        connection.execute("COMMIT")
        return answers


def _settle(answers: list[tuple[asyncio.Future[int], int]]) -> None:
    for answer, position in answers:
        answer.set_result(position)


# --- PostgreSQL: one connection, one round trip a batch -------------------------------------------

POSTGRES_SCHEMA: Final = """
CREATE TABLE log (one int PRIMARY KEY, head bigint NOT NULL);
INSERT INTO log VALUES (1, 0);
CREATE TABLE events (position bigint PRIMARY KEY, id text NOT NULL, type text NOT NULL,
    tags text NOT NULL, data bytea NOT NULL, metadata bytea NOT NULL);
CREATE INDEX events_by_type ON events (type, position);
CREATE TABLE event_tags (tag text NOT NULL, type text NOT NULL, position bigint NOT NULL,
    PRIMARY KEY (tag, type, position));

CREATE FUNCTION append(ids text[], types text[], marks text[], datas bytea[], metas bytea[],
                       after bigint[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    start bigint;
BEGIN
    SELECT head INTO start FROM log FOR UPDATE;  -- the lock, in a statement of its own
    PERFORM FROM unnest(marks, types, after) AS c (tag, type, after)
    CROSS JOIN LATERAL (SELECT FROM event_tags AS t WHERE t.tag = c.tag AND t.type = c.type
                        AND t.position > c.after LIMIT 1) AS found;  -- LIMIT: a seek for each
    IF FOUND THEN
        RAISE EXCEPTION 'conflict';
    END IF;
    INSERT INTO events
    SELECT start + n, id, type, '["' || tag || '"]', data, meta
    FROM unnest(ids, types, marks, datas, metas) WITH ORDINALITY
        AS e (id, type, tag, data, meta, n);
    INSERT INTO event_tags
    SELECT tag, type, start + n FROM unnest(marks, types) WITH ORDINALITY AS e (tag, type, n);
    UPDATE log SET head = start + cardinality(ids);
    RETURN start;
END $$;
"""


class PostgresFloor:
    """Group commit by asyncpg: arrays, a function of four statements, a locked head row."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection
        self._waiting: deque[Job] = deque()
        self._last: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str) -> PostgresFloor:
        connection = await asyncpg.connect(url)
        await connection.execute(POSTGRES_SCHEMA)
        return cls(connection)

    def append(self, tag: str) -> asyncio.Future[int]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int] = loop.create_future()
        self._waiting.append((tag, answer))
        if self._task is None:
            self._task = loop.create_task(self._run())
        return answer

    async def close(self) -> None:
        if self._task is not None:
            await self._task
        await self._connection.close()

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, deque()
            start = await self._write([tag for tag, _ in batch])
            for position, (tag, answer) in enumerate(batch, start + 1):
                self._last[tag] = position
                answer.set_result(position)
            await asyncio.sleep(0)  # let those who were answered come again
        self._task = None

    async def _write(self, tags: list[str]) -> int:
        count, last = len(tags), self._last
        after = [last.get(tag, 0) for tag in tags]
        ids = [f"{n:036}" for n in range(count)]
        sql = "SELECT append($1, $2, $3, $4, $5, $6)"
        types, datas, metas = ["Added"] * count, [DATA] * count, [METADATA] * count
        start: int = await self._connection.fetchval(sql, ids, types, tags, datas, metas, after)
        return start


async def floor_on(url: str) -> Floor:
    """Open the floor of a URL's backend, on an empty database."""
    if url.startswith("sqlite:"):
        return SqliteFloor(url.removeprefix("sqlite:///"))
    return await PostgresFloor.open(url)
