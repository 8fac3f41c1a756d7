"""Events that somebody has deleted by hand, more than a page of them: all who read go on behind."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from diptych.errors import ForeignCheckpoint
from diptych.log import Log
from diptych.logs.sqlite import SqliteLog
from diptych.read.parking.steering import Steering
from diptych.read.proving import rowcheck
from diptych.read.proving.rowcheck import verify_rows
from diptych.read.proving.verify import verify
from diptych.read.queries import Events
from tests.logs import on_postgres
from tests.read.world import World, orders, placed

pytestmark = pytest.mark.filterwarnings("ignore::diptych.errors.SqliteVersionWarning")

EVENTS = 100
LOST = range(30, 60)
PAGE = 10

Delete: TypeAlias = Callable[[Sequence[int]], Awaitable[None]]


@asynccontextmanager
async def in_file(folder: Path) -> AsyncGenerator[tuple[Log, Delete]]:
    async def delete(positions: Sequence[int]) -> None:
        database = sqlite3.connect(folder / "log.db")
        with database:
            database.execute("DROP TRIGGER IF EXISTS events_are_never_deleted")
            database.executemany("DELETE FROM events WHERE position = ?", [(p,) for p in positions])
        database.close()

    log = await SqliteLog.open(folder / "log.db")
    yield log, delete
    await log.close()


@asynccontextmanager
async def on_server(url: str) -> AsyncGenerator[tuple[Log, Delete]]:
    async def delete(positions: Sequence[int]) -> None:
        async with on_postgres.connected(url) as owner:
            await owner.execute("ALTER TABLE diptych.events DISABLE TRIGGER USER")
            await owner.execute(
                "DELETE FROM diptych.events WHERE position = ANY ($1)", list(positions)
            )

    async with on_postgres.opened(url) as log:
        yield log, delete


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_all_who_read_go_on_behind_them(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(rowcheck, "PAGE", PAGE)
    one = orders()
    left = EVENTS - len(LOST)
    opened = (
        in_file(tmp_path)
        if kind == "sqlite"
        else on_server(request.getfixturevalue("postgres_url"))
    )
    async with opened as (log, delete), World([one], log=log, page=PAGE) as world:
        await world.append(*placed(*range(1, EVENTS + 1)))
        await world.engine.catch_up()
        await delete(LOST)
        # A page whose events are all gone says how far it reaches, and no further.
        page = await log.read(after=LOST[0] - 1, limit=PAGE)
        assert (page.events, page.upto) == ([], LOST[0] - 1 + PAGE)
        # The engine folds what lies behind.
        await Steering(log, world.codec, [world.engine]).rewind("order")
        await world.engine.open()
        await world.engine.catch_up()
        (verdict,) = await verify(log, world.codec, world.store, world.projections)
        assert (verdict.count, verdict.gaps) == (left, [(LOST[0], LOST[-1])])
        rows = await verify_rows(log, world.codec, world.store, one)
        assert (rows.ok, rows.rows) == (True, left)
        # The head, too, may have lost its event: who reads up to it comes to an end.
        await delete([EVENTS])
        events = Events(log, world.codec)
        assert len([each async for each in events.all()]) == left - 1
        assert len(await events.read(limit=EVENTS)) == left - 1
        assert (await log.read(after=EVENTS - 1)).upto == EVENTS


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("applied", [True, False])
async def test_what_is_lost_at_the_end_is_named_and_waited_for_by_nobody(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, applied: bool
) -> None:
    """Where the rows have it, they are its last copy: no rewind is recommended."""
    one = orders()
    opened = (
        in_file(tmp_path)
        if kind == "sqlite"
        else on_server(request.getfixturevalue("postgres_url"))
    )
    async with opened as (log, delete), World([one], log=log) as world:
        await world.append(*placed(*range(1, 11)))
        if applied:
            await world.engine.catch_up()
        await delete([9, 10])
        await world.engine.catch_up()
        (verdict,) = await verify(log, world.codec, world.store, world.projections)
        assert (verdict.ok, verdict.gaps) == (False, [(9, 10)])
        assert verdict.remedy.startswith("restore the log from a backup")
        rows = await verify_rows(log, world.codec, world.store, one)
        assert rows.ok is not applied
        assert rows.remedy.startswith("restore the log") is applied
        if applied:  # who starts anew refuses to go on
            (follower,) = world.engine.spans
            with pytest.raises(ForeignCheckpoint, match="Restore the log from a backup"):
                await follower.reload(log, world.store)
            return
        await world.engine.start()
        await world.engine.catch_up()
        (status,) = await world.engine.status()
        assert (status.position, status.lag) == (8, 2)
        if kind == "postgres":  # whoever has stored what is lost stores no more
            return
        await world.append(*placed(11))
        await world.engine.catch_up()
        (status,) = await world.engine.status()
        assert (status.position, status.lag) == (11, 0)
        (verdict,) = await verify(log, world.codec, world.store, world.projections)
        assert (verdict.ok, verdict.gaps) == (False, [(9, 10)])


async def test_where_all_is_lost_nobody_waits(tmp_path: Path) -> None:
    async with in_file(tmp_path) as (log, delete), World([orders()], log=log) as world:
        await world.append(*placed(1, 2))
        await delete([1, 2])
        await world.engine.catch_up()
        (verdict,) = await verify(log, world.codec, world.store, world.projections)
        assert (verdict.position, verdict.gaps) == (0, [(1, 2)])
