"""The benchmark notices when a boundary is not found by an index."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from bench import loader, plans
from bench.places import file_of
from diptych.testing.servers import PostgresServer
from diptych.testing.servers.postgresql import execute

TYPES = ("Opened", "Added", "Confirmed")
TAG = "order:o-7-0"
EVENTS = 20_480


async def test_a_sqlite_log_without_its_index_is_refused(tmp_path: Path) -> None:
    """With the index the plan is accepted, without it the plan is in the error."""
    url = f"sqlite:///{tmp_path}/log.db"
    await loader.fill(url, 1024)
    await plans.require_index(url, TYPES, TAG)
    connection = sqlite3.connect(file_of(url))
    connection.executescript(
        """ALTER TABLE event_tags RENAME TO indexed;
        CREATE TABLE event_tags AS SELECT * FROM indexed;"""
    )
    connection.close()
    with pytest.raises(plans.Scanned, match=r"SCAN t|AUTOMATIC"):
        await plans.require_index(url, TYPES, TAG)


async def test_a_postgresql_log_without_its_index_is_refused(
    postgres_server: PostgresServer,
) -> None:
    """With the index the plans are accepted, without it they are in the error."""
    url = postgres_server.new_database()
    try:
        await loader.fill(url, EVENTS)
        await plans.require_index(url, TYPES, TAG)
        execute(url, "ALTER TABLE diptych.event_tags DROP CONSTRAINT event_tags_pkey", None)
        with pytest.raises(plans.Scanned, match="Seq Scan"):
            await plans.require_index(url, TYPES, TAG)
    finally:
        postgres_server.drop_database(url)
