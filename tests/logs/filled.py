"""A log of many events, made by the server itself: ``python -m tests.logs.filled <url> <events>``.

Run as a script it measures how long it takes to read one boundary, in the middle of the log.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from typing import Any

import asyncpg

from diptych.log import EventQuery
from diptych.logs.postgres import PostgresLog

A_BOUNDARY = 10  # events of one order
TYPES = ("Opened", "Moved", "Paid", "Sent", "Closed")

FILL = """
ALTER TABLE diptych.events DROP CONSTRAINT events_pkey;
DROP INDEX diptych.events_by_type;
ALTER TABLE diptych.event_tags DROP CONSTRAINT event_tags_pkey;
INSERT INTO diptych.events (position, id, type, tags, data, metadata)
SELECT n, 'id-' || n, ('{Opened,Moved,Paid,Sent,Closed}'::text[])[1 + n % 5],
       format('["order:%s","customer:%s"]', n / 10, n % 1000),
       '{"amount":"12.50","note":"some text of some length"}', '{"time":"2013-01-01T00:00:00Z"}'
FROM generate_series(1, {events}) AS n;
INSERT INTO diptych.event_tags (tag, type, position)
SELECT 'order:' || n / 10, ('{Opened,Moved,Paid,Sent,Closed}'::text[])[1 + n % 5], n
FROM generate_series(1, {events}) AS n
UNION ALL
SELECT 'customer:' || n % 1000, ('{Opened,Moved,Paid,Sent,Closed}'::text[])[1 + n % 5], n
FROM generate_series(1, {events}) AS n;
INSERT INTO diptych.idempotency_keys (key, content, first, last)
SELECT 'key-' || n, 'c', n, n FROM generate_series(1, {events} / 10) AS n;
UPDATE diptych.log SET head = {events};
ALTER TABLE diptych.events ADD PRIMARY KEY (position);
CREATE INDEX events_by_type ON diptych.events (type, position);
ALTER TABLE diptych.event_tags ADD PRIMARY KEY (tag, type, position);
"""


async def fill(connection: asyncpg.Connection[Any], events: int) -> None:
    """Fill an empty log."""
    await connection.execute("SET maintenance_work_mem = '256MB'; SET synchronous_commit = off")
    await connection.execute(FILL.replace("{events}", str(events)), timeout=3600)


async def main(url: str, events: int) -> None:
    """Fill the log at a URL, and measure."""
    log = await PostgresLog.open(url)
    if not await log.head():
        connection = await asyncpg.connect(url)
        begun = time.perf_counter()
        await fill(connection, events)
        await connection.execute("VACUUM ANALYZE", timeout=3600)
        print(f"{events} events in {time.perf_counter() - begun:.0f} s")
        await connection.close()
    dice = random.Random(1)
    took: list[float] = []
    for _ in range(3000):
        number = dice.randrange(events // 10)
        query = EventQuery.of(TYPES, [f"order:{number}"])
        begun = time.perf_counter()
        page = await log.read(query)
        took.append((time.perf_counter() - begun) * 1000)
        assert len(page.events) >= A_BOUNDARY - 1
    took.sort()
    shown = [statistics.median(took), took[int(len(took) * 0.99)], took[-1]]
    print("one boundary, ms: median {:.2f}, p99 {:.2f}, most {:.2f}".format(*shown))
    await log.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
