"""Rows in Redis and DuckDB, books in SQLite and PostgreSQL: proved, changed, parked, killed."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct, structs

from diptych import Running
from diptych.errors import Invalid, Unavailable, ViewLost
from diptych.read.rowstore import Placed
from diptych.testing.servers import PostgresServer, RedisServer
from tests.app import purse
from tests.app.bank import Bank
from tests.app.test_versions import change, ending, expected, pay, wait_until

numbers = count(1)


class At(Struct):
    """Where a test has its databases."""

    log: str
    main: str
    cache: str

    @property
    def views(self) -> dict[str, str]:
        return {"main": self.main, "cache": self.cache}


def books(kind: str, request: pytest.FixtureRequest, path: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{path}/books.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    made = server.new_database()
    yield made
    server.drop_database(made)


def rows(kind: str, request: pytest.FixtureRequest, path: Path) -> str:
    if kind == "duckdb":
        return f"duckdb:///{path}/rows.duckdb"
    server: RedisServer = request.getfixturevalue("redis_server")
    return f"{server.url}?prefix=p{next(numbers)}:"


EACH = [(b, r) for b in ("sqlite", "postgres") for r in ("redis", "duckdb")]


@pytest.fixture(params=EACH, ids="-".join)
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[At]:
    for url in books(request.param[0], request, tmp_path):
        yield At(url, url, rows(request.param[1], request, tmp_path))


@pytest.fixture(params=["sqlite", "postgres"])
def at_redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[At]:
    """Several processes: DuckDB is for one."""
    for url in books(request.param, request, tmp_path):
        yield At(url, url, rows("redis", request, tmp_path))


@asynccontextmanager
async def opened(made: Bank, at: At, **options: Any) -> AsyncGenerator[Running]:
    async with made.app.open(log=at.log, views=at.views, **options) as running:
        yield running


def store_of(running: Running) -> Any:
    (engine,) = [e for e in running._engines if e.projections]
    return engine.store


async def balances(running: Running, made: Bank, after: Any = None) -> dict[str, int]:
    answer = await running.ask(made.all(), after=after, wait=30)
    assert not answer.stale
    found: dict[str, int] = answer.value
    return found


async def assert_proved(running: Running) -> None:
    await running.projections.versions()  # so that it knows what is live
    events, found = await running.verify(), await running.verify_rows()
    assert all(one.ok for one in events), events
    assert all(one.ok for one in found), found


async def states(running: Running) -> list[str]:
    await running.catch_up()
    return sorted(one.state for one in await running.projections.versions())


# --- versions -------------------------------------------------------------------------------------


async def test_a_version_is_built_beside_compared_switched_to_rolled_back_and_dropped(
    at: At,
) -> None:
    """Readers of the old code read what is live; each version has rows of its own."""
    one, three = purse.v1(), purse.v3()
    async with opened(one, at) as old:
        receipt = await pay(old, 0, 300)
        assert await balances(old, one, receipt.token) == expected(300)
        await assert_proved(old)
        async with opened(three, at, rebuild="manual") as new:
            (built,) = await new.projections.rebuild(cutover=False, compare=True)
            assert built.state == "held"
            (difference,) = built.differences
            assert difference.columns == {"balance": len(expected(300))}
            assert (difference.missing, difference.extra, difference.rows) == (0, 0, 18)
            assert difference.examples[0][0] == "a0"
            assert difference.positions.keys() >= {"accounts", f"accounts@{built.version}"}
            assert await balances(old, one) == await balances(new, three) == expected(300)
            await new.projections.cutover("accounts")
            assert await balances(old, one) == await balances(new, three) == expected(300, 2)
            await assert_proved(new)
            receipt = await pay(old, 300, 310)
            assert await balances(new, three, receipt.token) == expected(310, 2)
            await new.projections.rollback("accounts")
            assert await balances(new, three, receipt.token) == expected(310)
            await assert_proved(old)
            tables = [name for one in await new.projections.versions() for name in one.tables]
            assert sorted(tables) == ["accounts", f"accounts__{built.version}"]
            assert (await store_of(new).row_store.tables(tables)).keys() == set(tables)
            await new.projections.cutover("accounts")
    async with opened(three, at) as new:
        (dropped,) = await new.projections.drop("accounts")
        assert (dropped.instance, dropped.tables) == ("accounts", ["accounts"])
        assert await store_of(new).row_store.tables(["accounts"]) == {}
        assert await states(new) == ["live"]
        with pytest.raises(Invalid, match="no version that was live before"):
            await new.projections.rollback("accounts")
        assert await balances(new, three) == expected(310, 2)
    async with opened(one, at, rebuild="manual") as again:
        assert (await again.projections.plan())[0].action == "dropped"
        await again.projections.rebuild("accounts")
        assert await balances(again, one) == expected(310)
        await assert_proved(again)


async def test_a_column_that_was_added_is_read_by_those_who_know_it(at: At) -> None:
    """Programs of both versions run side by side; what they compare is what both have."""
    one, two = purse.v1(), purse.v2()
    async with opened(one, at) as old, opened(two, at) as new:
        receipt = await pay(old, 0, 60)
        assert await balances(old, one, receipt.token) == expected(60)
        await new.catch_up()
        assert await balances(new, two, receipt.token) == expected(60)
        assert await balances(old, one, receipt.token) == expected(60)
        row = await new.views.get(two.account, "a0")
        assert row is not None
        assert row.payments == 9
        await new.projections.rollback("accounts")
        (same,) = await new.projections.compare("accounts")
        assert (same.rows, same.missing, same.extra, same.differing) == (18, 0, 0, 0)
        await new.projections.cutover("accounts")
        await assert_proved(new)


async def test_compare_names_rows_and_columns_that_differ(at: At) -> None:
    """Changed, missing and too many; with the rows themselves."""
    one, two = purse.v1(), purse.v2()
    async with opened(one, at) as old:
        receipt = await pay(old, 0, 60)
        await balances(old, one, receipt.token)
        async with opened(two, at, rebuild="manual") as new:
            await new.projections.rebuild(cutover=False)
            store = store_of(new)
            table = store.written(two.account)
            rows = await store.row_store.load(table, ["a3", "b2"])
            wrong = structs.replace(rows["a3"].row, balance=-5)
            await store.row_store.write(table, {"a3": Placed(wrong, 1000)})
            await store.row_store.write(table, {"b2": Placed(None, 1000)})
            extra = structs.replace(wrong, name="c")
            await store.row_store.write(table, {"c": Placed(extra, 1000)})
            (found,) = await new.projections.compare("accounts")
            assert (found.missing, found.extra, found.differing) == (1, 1, 1)
            assert found.columns == {"balance": 1}
            assert [key for key, _, _ in found.examples] == ["a3", "b2", "c"]
            assert found.examples[0][2] == {"balance": -5}
            assert found.examples[1][1] == {"balance": expected(60)["b2"]}
            assert found.examples[1][2] is None


async def test_a_table_of_the_books_with_the_same_name_outlives_a_drop(tmp_path: Path) -> None:
    """Tables of rows beside are noted under another name than the books' own."""
    main = f"sqlite:///{tmp_path}/books.db"
    at = At(main, main, f"duckdb:///{tmp_path}/rows.duckdb")
    async with opened(purse.v1(), at) as running:
        await pay(running, 0, 20)
        await running.catch_up()
    await change(main, "CREATE TABLE accounts (name TEXT)")
    await change(main, "INSERT INTO accounts VALUES ('of others')")
    async with opened(purse.v3(), at) as running:
        await running.catch_up()
        assert [one.tables for one in await running.projections.drop("accounts")] == [["accounts"]]
    await change(main, "INSERT INTO accounts SELECT name FROM accounts")


# --- where rows are from --------------------------------------------------------------------------


async def test_a_view_that_moves_to_rows_is_folded_there_and_does_not_come_back_stale(
    at: At,
) -> None:
    """What it left behind in the books is not taken for current when it moves back."""
    beside, inside = purse.v1(), purse.v1(store="main")
    async with inside.app.open(log=at.log, views=at.main) as running:
        receipt = await pay(running, 0, 30)
        assert await balances(running, inside, receipt.token) == expected(30)
    async with opened(beside, at) as running:
        receipt = await pay(running, 30, 50)
        assert await balances(running, beside, receipt.token) == expected(50)
        await assert_proved(running)
    with pytest.raises(ViewLost, match="accounts"):
        async with inside.app.open(log=at.log, views=at.main):
            pass


async def test_rows_that_books_of_before_had_filled_are_not_taken_over(tmp_path: Path) -> None:
    """Whoever deletes the read database to have all folded anew, has all folded anew."""
    log = f"sqlite:///{tmp_path}/log.db"
    at = At(log, f"sqlite:///{tmp_path}/books.db", f"duckdb:///{tmp_path}/rows.duckdb")
    one = purse.v1()
    async with opened(one, at) as running:
        receipt = await pay(running, 0, 30)
        await balances(running, one, receipt.token)
        store = store_of(running)
        table = store.written(one.account)
        there = (await store.row_store.load(table, ["a1"]))["a1"].row
        await store.row_store.write(table, {"a1": Placed(structs.replace(there, balance=7), 1000)})
    for file in tmp_path.glob("books.db*"):
        file.unlink()
    async with opened(one, at) as running:
        await running.catch_up()
        assert await balances(running, one) == expected(30)
        await assert_proved(running)


# --- parked, put back -----------------------------------------------------------------------------


async def test_a_key_is_parked_retried_and_skipped_as_anywhere(at: At) -> None:
    """Others go on; after a retry with the corrected fold the rows are those of a cold fold."""
    bad, good = purse.v1(bad=10), purse.v1()
    async with opened(bad, at) as running:
        receipt = await pay(running, 0, 40)
        await running.catch_up()
        found = await balances(running, bad, receipt.token)
        keys = {"a3", "b10"}
        assert {k: v for k, v in found.items() if k not in keys} == {
            k: v for k, v in expected(40).items() if k not in keys
        }
        parked = (await store_of(running).desk.keys())["accounts"]
        assert {key.key for key in parked} == {'"a3"', '"b10"'}
        await assert_proved(running)
    async with opened(good, at, rebuild="manual") as running:
        for key in keys:
            await running.parked.retry("accounts", key)
        await running.projections.rebuild()
        await running.catch_up()
        assert await balances(running, good) == expected(40)
        await assert_proved(running)


async def test_a_rewind_folds_anew_while_queries_go_on(at: At) -> None:
    """No answer says that it is as of more than its rows have."""
    one = purse.v1()
    async with opened(one, at) as running:
        await pay(running, 0, 200)
        await running.catch_up()
        stop = asyncio.Event()
        asked = 0

        async def query() -> None:
            nonlocal asked
            while not stop.is_set():
                views = running._queries.views()
                try:
                    row = await views.get(one.account, "a0")
                except Unavailable:  # for a moment there is no table
                    continue
                if views.as_of == 200:
                    assert row is not None
                    assert row.balance == expected(200)["a0"]
                asked += 1

        tasks = [asyncio.create_task(query()) for _ in range(3)]
        async with ending(tasks):
            for _ in range(5):
                before = asked
                await running.steering.rewind("accounts")
                await running.catch_up()
                await wait_until(lambda before=before: asked > before + 5, tasks)
            stop.set()
            await asyncio.gather(*tasks)
        assert await balances(running, one) == expected(200)
        await assert_proved(running)


async def test_a_pause_holds_and_work_goes_on_after_it(at: At) -> None:
    one = purse.v1()
    async with opened(one, at) as running:
        await pay(running, 0, 20)
        await running.catch_up()
        await running.steering.pause("accounts", actor="ada", why="to look")
        await pay(running, 20, 40)
        assert (await running.ask(one.all())).value == expected(20)
        assert await running.steering.resume("accounts")
        receipt = await pay(running, 40, 50)
        assert await balances(running, one, receipt.token) == expected(50)
        await assert_proved(running)


# --- several, and killed --------------------------------------------------------------------------


async def test_workers_of_two_versions_that_are_killed_lose_and_double_nothing(
    at_redis: At,
) -> None:
    """Two at a time, while commands go on."""
    at, luck = at_redis, random.Random(2)
    command = [sys.executable, "-W", "ignore", "-m", "tests.app.purse"]
    one, three = purse.v1(), purse.v3()
    async with opened(one, at, projections=False) as running:
        written = 0
        for _ in range(3):
            workers = [
                subprocess.Popen(
                    [*command, version, at.log, at.main, at.cache],
                    stdout=subprocess.PIPE,
                )
                for version in ("v1", "v3")
            ]
            try:
                for worker in workers:
                    assert worker.stdout is not None
                    assert worker.stdout.readline() == b"ready\n"
                for worker in workers:
                    end = time.monotonic() + luck.uniform(0.05, 0.4)
                    while time.monotonic() < end:
                        await pay(running, written, written + 20)
                        written += 20
                    worker.kill()
            finally:
                for worker in workers:
                    worker.kill()
                    with worker:
                        pass
    async with opened(one, at) as old, opened(three, at) as new:
        await asyncio.gather(old.catch_up(), new.catch_up())
        assert await balances(new, three) == expected(written, 2)
        await assert_proved(new)
        await new.projections.rollback("accounts")
        assert await balances(old, one) == expected(written)
        await assert_proved(old)


async def test_a_rebuild_that_is_killed_at_any_step_comes_to_the_same_end(at_redis: At) -> None:
    """Each time a process of its own goes on, until one comes to its end."""
    at, luck = at_redis, random.Random(3)
    async with opened(purse.v1(), at) as old:
        await pay(old, 0, 300)
        await old.catch_up()
    killed = 0
    for step in [*luck.sample(range(1, 30), 5), 0]:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "tests.app.purse", "v2", at.log, at.main, at.cache, str(step)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        killed += done.returncode == -9
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
    assert killed
    two = purse.v2()
    async with opened(two, at, rebuild="manual") as new:
        await new.projections.rebuild()
        assert await balances(new, two) == expected(300)
        await assert_proved(new)
        assert await states(new) == ["live", "old"]
