"""A floor's log, filled with the same events as ours, and its pages, decoded by msgspec."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import asyncpg

from bench.floors.appending import POSTGRES_SCHEMA, SQLITE_SCHEMA, sqlite_connection
from bench.floors.rows import DECODE, DECODE_METADATA, DECODE_TAGS, Decoded
from bench.loader import made
from bench.places import file_of

PAGE: Final = 1000

_SELECT: Final = "SELECT position, id, type, tags, data, metadata FROM events WHERE position > {} "
_ORDER: Final = "ORDER BY position LIMIT {}"


async def fill(url: str, events: int) -> None:
    """Put so many events into the empty database of a URL."""
    if url.startswith("sqlite:"):
        _fill_sqlite(file_of(url), events)
        return
    connection = await asyncpg.connect(url)
    await connection.execute(POSTGRES_SCHEMA)
    columns = ("position", "id", "type", "tags", "data", "metadata")
    await connection.copy_records_to_table("events", records=_rows(events), columns=columns)
    tags = ((tag, name, position) for position, (_, name, tag, _, _) in _made(events))
    await connection.copy_records_to_table(
        "event_tags", records=tags, columns=("tag", "type", "position")
    )
    await connection.execute("UPDATE log SET head = $1", events)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


def _made(events: int) -> Iterator[tuple[int, tuple[str, str, str, bytes, bytes]]]:
    return enumerate(made(events), 1)


def _rows(events: int) -> Iterator[tuple[int, str, str, str, bytes, bytes]]:
    for position, (identity, name, tag, data, metadata) in _made(events):
        yield position, identity, name, f'["{tag}"]', data, metadata


def _fill_sqlite(path: str, events: int) -> None:
    connection = sqlite_connection(path)
    connection.executescript(SQLITE_SCHEMA)
    rows = _rows(events)
    while batch := list(islice(rows, 10_000)):
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)",
            [(p, i, n, t, d.decode(), m.decode()) for p, i, n, t, d, m in batch],
        )
        connection.execute("UPDATE log SET head = ?", (batch[-1][0],))
        connection.execute("COMMIT")
    connection.close()


async def pages(url: str, size: int = PAGE) -> AsyncGenerator[Sequence[Any]]:
    """Yield the log's rows, page by page."""
    after = 0
    if url.startswith("sqlite:"):
        reading = sqlite3.connect(file_of(url))
        statement = _SELECT.format("?") + _ORDER.format("?")
        while found := reading.execute(statement, (after, size)).fetchall():
            yield found
            after = found[-1][0]
        reading.close()
        return
    connection: asyncpg.Connection[Any] = await asyncpg.connect(url)
    prepared = await connection.prepare(_SELECT.format("$1") + _ORDER.format("$2"))
    while rows := await prepared.fetch(after, size):
        yield rows
        after = rows[-1][0]
    await connection.close()


async def read_all(url: str) -> int:
    """Read and decode the whole log; return the number of events."""
    count = 0
    async for page in pages(url):
        decoded = [
            Decoded(p, i, DECODE[name](data), DECODE_TAGS(tags), DECODE_METADATA(metadata))
            for p, i, name, tags, data, metadata in page
        ]
        count += len(decoded)
    return count
