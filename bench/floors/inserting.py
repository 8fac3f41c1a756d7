"""One durable insert of an event at a time, by one connection."""

from __future__ import annotations

import time

import asyncpg

from bench.figures import Figures
from bench.floors.appending import POSTGRES_SCHEMA, SQLITE_SCHEMA, sqlite_connection
from bench.floors.rows import DATA, METADATA
from bench.places import Place, file_of
from bench.timing import percentiles


async def bare_inserts(count: int, place: Place) -> Figures:
    """Insert one event row after the other, each in a transaction of its own."""
    url = place.database()
    if url.startswith("sqlite:"):
        return percentiles(_sqlite(file_of(url), count))
    taken: list[float] = []
    connection = await asyncpg.connect(url)
    await connection.execute(POSTGRES_SCHEMA)
    sql = "INSERT INTO events VALUES ($1, $2, $3, $4, $5, $6)"
    for position in range(1, count + 1):
        began = time.perf_counter()
        row = (position, f"{position:036}", "Added", f'["order:o-{position}"]', DATA, METADATA)
        await connection.execute(sql, *row)
        taken.append(time.perf_counter() - began)
    await connection.close()
    return percentiles(taken)


def _sqlite(path: str, count: int) -> list[float]:
    """The same on SQLite, on this thread: nothing else runs."""
    taken: list[float] = []
    connection = sqlite_connection(path)
    connection.executescript(SQLITE_SCHEMA)
    data, metadata = DATA.decode(), METADATA.decode()
    for position in range(1, count + 1):
        began = time.perf_counter()
        row = (position, f"{position:036}", "Added", f'["order:o-{position}"]', data, metadata)
        connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", row)
        taken.append(time.perf_counter() - began)
    connection.close()
    return taken
