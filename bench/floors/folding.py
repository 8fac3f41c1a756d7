"""Bare catch-up: read a page of 1,000 events, decode, load the rows, fold, upsert, commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import asyncpg

from bench.floors.pages import pages
from bench.floors.rows import DECODE
from bench.orders import Added, Confirmed, Opened
from bench.places import file_of

Row: TypeAlias = "tuple[str, str, int, str]"
"""Order, customer, items and status."""

SCHEMA: Final = """
CREATE TABLE summaries ("order" text PRIMARY KEY, customer text NOT NULL, items int NOT NULL,
    status text NOT NULL);
CREATE INDEX summaries_by_customer ON summaries (customer);
CREATE TABLE checkpoint (one int PRIMARY KEY, position bigint NOT NULL);
INSERT INTO checkpoint VALUES (1, 0);
"""
_UPSERT: Final = """ ON CONFLICT ("order") DO UPDATE SET customer = excluded.customer,
    items = excluded.items, status = excluded.status"""


async def catch_up(log: str, views: str) -> int:
    """Fold the whole log into an empty database; return the number of rows."""
    if views.startswith("sqlite:"):
        return await _catch_up_sqlite(log, file_of(views))
    connection = await asyncpg.connect(views)
    await connection.execute(SCHEMA)
    await _catch_up_postgres(log, connection)
    count = int(await connection.fetchval("SELECT count(*) FROM summaries"))
    await connection.close()
    return count


def fold(events: Sequence[Any], rows: dict[str, Row]) -> list[Row]:
    """Fold decoded events into the rows they touch; return those."""
    touched: dict[str, Row] = {}
    for event in events:
        key = event.order
        row = touched.get(key) or rows.get(key)
        match event:
            case Opened():
                touched[key] = (key, event.customer, 0, "open")
            case Added():
                assert row is not None
                touched[key] = (key, row[1], row[2] + event.quantity, row[3])
            case Confirmed():
                assert row is not None
                touched[key] = (key, row[1], row[2], "confirmed")
            case _:
                raise AssertionError(event)
    return list(touched.values())


def decode(page: Iterable[Sequence[Any]]) -> list[Any]:
    """Decode the data of a page's events."""
    return [DECODE[row[2]](row[4]) for row in page]


async def _catch_up_sqlite(log: str, path: str) -> int:
    views = sqlite3.connect(path, isolation_level=None)
    views.execute("PRAGMA journal_mode = WAL")
    views.execute("PRAGMA synchronous = NORMAL")  # as ours: a read model can be built again
    views.executescript(SCHEMA)
    async for page in pages(log):
        events = decode(page)
        keys = list({event.order for event in events})
        views.execute("BEGIN IMMEDIATE")
        marks = ",".join("?" * len(keys))
        found = views.execute(f'SELECT * FROM summaries WHERE "order" IN ({marks})', keys)
        rows: dict[str, Row] = {row[0]: row for row in found}
        upsert = "INSERT INTO summaries VALUES (?, ?, ?, ?)" + _UPSERT
        views.executemany(upsert, fold(events, rows))
        views.execute("UPDATE checkpoint SET position = ?", (page[-1][0],))
        views.execute("COMMIT")
    (count,) = views.execute("SELECT count(*) FROM summaries").fetchone()
    views.close()
    return int(count)


async def _catch_up_postgres(log: str, views: asyncpg.Connection[Any]) -> None:
    load = await views.prepare('SELECT * FROM summaries WHERE "order" = ANY($1)')
    upsert = await views.prepare(
        "INSERT INTO summaries SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[])"
        + _UPSERT
    )
    async for page in pages(log):
        events = decode(page)
        keys = list({event.order for event in events})
        async with views.transaction():
            rows: dict[str, Row] = {
                row[0]: (row[0], row[1], row[2], row[3]) for row in await load.fetch(keys)
            }
            columns = list(zip(*fold(events, rows), strict=True))
            await upsert.fetch(*columns)
            await views.execute("UPDATE checkpoint SET position = $1", page[-1][0])
