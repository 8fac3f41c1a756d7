"""One durable insert at a time, by one connection: what an append costs the disk and the driver.

The whole of it is what ours stores for an event: its row, its entries in the index by tag, the
head, in one transaction (on PostgreSQL one statement). The row alone is there to compare.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import asyncpg

from bench.figures import Figures
from bench.floors.appending import POSTGRES_SCHEMA, SQLITE_SCHEMA, sqlite_connection
from bench.floors.rows import DATA, METADATA
from bench.places import Place, file_of
from bench.timing import percentiles

_ROW: Final = "INSERT INTO events VALUES ($1, $2, $3, $4, $5, $6)"
_WHOLE: Final = f"""WITH event AS ({_ROW}), tags AS (INSERT INTO event_tags VALUES ($7, $3, $1))
    UPDATE log SET head = $1"""


async def bare_inserts(count: int, whole: bool, place: Place) -> Figures:
    """Insert one event after the other, each in a transaction of its own."""
    url = place.database()
    if url.startswith("sqlite:"):
        return percentiles(_sqlite(file_of(url), count, whole))
    taken: list[float] = []
    connection = await asyncpg.connect(url)
    await connection.execute(POSTGRES_SCHEMA)
    for position in range(1, count + 1):
        tag = f"order:o-{position // 4}"
        row = (position, f"{position:036}", "Added", f'["{tag}"]', DATA, METADATA)
        began = time.perf_counter()
        if whole:
            await connection.execute(_WHOLE, *row, tag)
        else:
            await connection.execute(_ROW, *row)
        taken.append(time.perf_counter() - began)
    await connection.close()
    return percentiles(taken)


def _sqlite(path: str, count: int, whole: bool) -> list[float]:
    """The same on SQLite, on this thread: nothing else runs."""
    connection = sqlite_connection(path)
    connection.executescript(SQLITE_SCHEMA)
    execute: Callable[..., object] = connection.execute
    data, metadata = DATA.decode(), METADATA.decode()
    taken: list[float] = []
    for position in range(1, count + 1):
        tag = f"order:o-{position // 4}"
        row = (position, f"{position:036}", "Added", f'["{tag}"]', data, metadata)
        began = time.perf_counter()
        if whole:
            execute("BEGIN IMMEDIATE")
        execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", row)
        if whole:
            marks = ("", "Added", position, tag, "Added", position)
            execute("INSERT INTO event_tags VALUES (?, ?, ?), (?, ?, ?)", marks)
            execute("UPDATE log SET head = ?", (position,))
            execute("COMMIT")
        taken.append(time.perf_counter() - began)
    connection.close()
    return taken
