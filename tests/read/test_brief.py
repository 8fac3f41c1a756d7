"""Brief selects of a SQLite file are read on the event loop's thread, and long ones never are."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func
from sqlalchemy import select as plain_select

from diptych.errors import Closed, Invalid
from diptych.read.queries import Queries, Views, answering
from diptych.read.select import column, select
from diptych.read.stores.sqlite import SqliteViews
from diptych.sql import brief
from diptych.sql.brief import ASIDE, LOOKS, MOST_ASIDE, MOST_BYTES, Brief, Habit
from diptych.sql.sqlite import Database
from tests.read.world import Order, OrdersOf, World, orders, placed

pytestmark = pytest.mark.filterwarnings("ignore::diptych.errors.SqliteVersionWarning")

LONG = 20_000


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a slow machine give up nothing that is brief by its steps."""
    monkeypatch.setattr(brief, "SECONDS", float("inf"))


@asynccontextmanager
async def shop(path: Path) -> AsyncGenerator[World]:
    """Return a shop with two orders of ada and very many of bob."""
    async with World([orders()], path=path / "views.db") as world:
        await world.append(*placed(1), *placed(2))
        await world.engine.catch_up()
        many = [(f"b{n}", "bob", "1", "placed") for n in range(LONG)]
        await database_of(world).write(
            lambda c: c.executemany('INSERT INTO "order" VALUES (?, ?, ?, ?)', many)
        )
        yield world


def database_of(world: World) -> Database:
    store = world.store
    assert isinstance(store, SqliteViews)
    return store.database


def brief_of(world: World) -> Brief:
    found: Any = database_of(world)._brief
    assert isinstance(found, Brief)
    return found


@contextmanager
def no_thread(world: World) -> Generator[None]:
    """Keep the reading thread from reading, within."""
    free = threading.Event()
    held = asyncio.ensure_future(database_of(world).read(lambda _: free.wait(60)))
    try:
        yield
    finally:
        free.set()
        held.add_done_callback(lambda done: done.result())


async def by_thread(world: World, statement: Any, *, all_rows: bool = True) -> Any:
    """Return the answer to a select, which must not come before the reading thread is free."""
    store = world.store
    with no_thread(world):
        asked = asyncio.ensure_future(store.all(statement) if all_rows else statement)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not asked.done()
    return (await asked).rows


async def at_once(world: World, statement: Any) -> Any:
    """Return the answer to a select, which is had without the reading thread."""
    with no_thread(world):
        return (await asyncio.wait_for(world.store.all(statement), 30)).rows


async def test_a_query_by_index_does_not_need_the_reading_thread(tmp_path: Path) -> None:
    async with shop(tmp_path) as world:
        with no_thread(world):
            answer = await asyncio.wait_for(world.queries.ask(OrdersOf("ada")), 30)
        assert [one.order for one in answer.value] == ["o1", "o2"]
        assert (answer.as_of, answer.stale) == (2, False)


async def test_what_was_committed_last_is_read_at_once(tmp_path: Path) -> None:
    async with shop(tmp_path) as world:
        for n in range(3, 20):
            await world.append(*placed(n))
            await world.engine.catch_up()
            with no_thread(world):
                answer = await asyncio.wait_for(world.queries.ask(OrdersOf("ada")), 30)
            assert (answer.as_of, len(answer.value)) == (n, n)


async def test_a_select_with_many_steps_is_given_up_and_read_by_the_thread(tmp_path: Path) -> None:
    """Whether it goes through many rows or returns many, by index or not."""
    async with shop(tmp_path) as world:
        scan = select(Order).where(func.length(Order.status) == 1)
        assert await by_thread(world, scan) == []
        assert brief_of(world)._looks == LOOKS + 1
        found = await by_thread(world, select(Order).where(Order.customer == "bob"))
        assert len(found) == LONG
        assert brief_of(world)._looks == LOOKS + 1


async def test_a_select_that_takes_its_time_is_given_up_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop(tmp_path) as world:
        monkeypatch.setattr(brief, "SECONDS", -1.0)
        await by_thread(world, select(Order).where(func.length(Order.status) == 1))
        assert brief_of(world)._looks == 1


async def test_short_selects_are_not_given_up_for_the_steps_of_those_before(
    tmp_path: Path,
) -> None:
    """SQLite counts a statement's steps over all its executions."""
    async with shop(tmp_path) as world:
        for _ in range(2000):
            await world.store.all(select(Order).where(Order.customer == "ada"))
        assert len(await at_once(world, select(Order).where(Order.customer == "ada"))) == 2


async def test_a_statement_that_was_given_up_is_left_to_the_thread_for_a_while(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as world:

        async def looks(customer: str) -> int:
            brief_of(world)._looks = -1
            await world.store.all(select(Order).where(Order.customer == customer))
            return brief_of(world)._looks

        assert await looks("ada") == 0
        assert await looks("bob") == LOOKS + 1
        assert {await looks("bob") for _ in range(ASIDE)} == {-1}
        assert await looks("bob") == LOOKS + 1
        assert {await looks("ada") for _ in range(2 * ASIDE)} == {-1}
        assert await looks("ada") == 0
        assert await looks("bob") == LOOKS + 1
        assert {await looks("bob") for _ in range(ASIDE)} == {-1}
        assert await looks("ada") == 0


def test_a_statement_is_never_left_aside_for_ever() -> None:
    habit = Habit()
    waited = 0
    for _ in range(100):
        habit.broken()
        waited = 0
        while not habit.is_brief():
            waited += 1
        assert waited <= MOST_ASIDE
    assert waited == MOST_ASIDE


async def test_long_rows_and_answers_are_read_by_the_thread(tmp_path: Path) -> None:
    async with shop(tmp_path) as world:
        long = "x" * (MOST_BYTES + 1)
        await world.sql('UPDATE "order" SET status = ? WHERE "order" = \'o2\'', long)
        statement = select(Order).where(Order.customer == "ada")
        assert [o.status for o in await by_thread(world, statement)] == ["placed", long]
        found = await by_thread(world, world.store.get(Order, "o2"), all_rows=False)
        assert found[0].status == long


async def test_what_one_step_may_take_long_for_is_left_to_the_thread(tmp_path: Path) -> None:
    """Counting a table is one step; patterns cost what they like; decimals are sorted in Python."""
    async with shop(tmp_path) as world:
        counted = plain_select(func.count()).select_from(Order).scalar_subquery()
        ada = select(Order).where(Order.customer == "ada")
        for statement in (
            ada.where(counted > 1),
            ada.where(column(Order.status).like("%p%l%d%")),
            ada.order_by(Order.total),
        ):
            assert len(await by_thread(world, statement)) == 2
            assert brief_of(world)._looks == 0
        for statement in (ada.where(Order.total > Decimal(0)), ada.order_by(Order.status)):
            assert len(await at_once(world, statement)) == 2


async def test_a_select_that_is_at_fault_is_refused_as_by_the_thread(tmp_path: Path) -> None:
    async with shop(tmp_path) as world:
        nothing: Any = func.no_such_function(Order.customer)
        with pytest.raises(Invalid, match="SQLite does not run this statement"):
            await world.store.all(select(Order).where(nothing == "ada"))


async def test_a_lock_is_waited_for_by_the_thread_alone(tmp_path: Path) -> None:
    """The connection of brief reads gives up at once: the loop must never sleep on a lock."""
    path = tmp_path / "locked.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE t (a)")
    own = Brief(sqlite3.connect(path, timeout=60.0))
    assert own.first("SELECT count(a) FROM t", (), Habit()) == (0,)
    other.execute("BEGIN EXCLUSIVE")
    assert own.connection.execute("PRAGMA busy_timeout").fetchone() == (0,)
    assert own.first("SELECT count(a) FROM t", (), Habit()) is None
    other.execute("ROLLBACK")
    own.connection.close()
    other.close()


async def test_a_query_that_reads_much_at_once_gives_others_their_turn(tmp_path: Path) -> None:
    """And so can be cancelled, or be too late."""
    turns: list[int] = []

    async def greedy(query: OrdersOf, views: Views) -> list[Order]:
        for n in range(1000):
            await views.get(Order, "o1")
            turns.append(n)
        return await views.all(select(Order).where(Order.customer == query.customer))

    async with shop(tmp_path) as world:
        queries = Queries(world.log, world.codec, [world.engine], [answering(greedy)])
        asked = asyncio.ensure_future(queries.ask(OrdersOf("ada")))
        while not turns:
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert len(turns) < 1000


async def test_a_closed_file_is_read_by_nobody(tmp_path: Path) -> None:
    async with shop(tmp_path) as world:
        await world.store.all(select(Order).where(Order.customer == "ada"))
    with pytest.raises(Closed):
        await world.store.all(select(Order).where(Order.customer == "ada"))
