"""What is left of a projection that the code no longer has: shown, and dropped with all it kept."""

import sqlite3
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from diptych import App, Invalid, Key, Running, View
from tests.app import bank, purse
from tests.app.bank import Bank, Paid, decide, signed, touched
from tests.app.test_rows_versions import EACH, At, books, rows
from tests.app.test_versions import engine_of, opened, pay

NOTED = ("checkpoints", "blocks", "parked", "pauses", "proofs", "versions")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield from books(request.param, request, tmp_path)


@pytest.fixture(params=EACH, ids="-".join)
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[At]:
    for url in books(request.param[0], request, tmp_path):
        yield At(url, url, rows(request.param[1], request, tmp_path))


def without() -> Bank:
    """The bank without its projection."""
    app = App("bank")
    app.decides(decide)
    return Bank(app, None, None)


def beside() -> Bank:
    """The bank, with another projection than before."""
    made = without()

    class Total(View, table="totals"):
        name: Key[str]
        paid: int

    @made.app.projects(Total, key=touched)
    def totals(row: Total | None, event: Paid, key: str) -> Total:
        return Total(key, (row.paid if row else 0) + event.amount)

    return made


def renamed() -> Bank:
    """The projection has another name, and keeps its table."""
    made = without()

    class Account(View, table="accounts"):
        name: Key[str]
        balance: int

    @made.app.projects(Account, key=touched, name="renamed")
    def accounts(row: Account | None, event: Paid, key: str) -> Account:
        return Account(key, (row.balance if row else 0) + signed(event, key))

    return made


async def there(url: str) -> dict[str, int]:
    """Return the tables that there are, and how many rows each has."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            names = file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            return {n: file.execute(f'SELECT count(*) FROM "{n}"').fetchone()[0] for (n,) in names}
    connection = await asyncpg.connect(url)
    try:
        names = await connection.fetch(
            "SELECT relname FROM pg_class "
            "WHERE relkind = 'r' AND relnamespace = 'diptych'::regnamespace"
        )
        return {
            n: await connection.fetchval(f'SELECT count(*) FROM diptych."{n}"') for (n,) in names
        }
    finally:
        await connection.close()


async def fill(url: str) -> None:
    """Have two versions of the projection, a pause and a proof."""
    async with opened(bank.v1(), url) as running:
        await pay(running, 0, 30)
        await running.catch_up()
    async with opened(bank.v2(), url, rebuild="manual") as running:
        await running.projections.rebuild()
        await running.verify()
        await running.steering.pause("accounts", actor="ada", why="a look")


async def test_it_is_shown_and_dropped_with_all_it_kept(url: str) -> None:
    await fill(url)
    async with opened(beside(), url) as running:
        await running.catch_up()
        await running.verify()
        own, *left = await running.projections.versions()
        assert (own.projection, own.in_code, own.lag) == ("totals", True, 0)
        assert sorted((one.projection, one.state, one.in_code, one.own) for one in left) == [
            ("accounts", "live", False, False),
            ("accounts", "old", False, False),
        ]
        before = await there(url)
        asked = await running.projections.droppable("accounts")
        assert sorted(list(one.rows.values()) for one in asked) == [[18], [18]]
        assert await there(url) == before
        turn = engine_of(running).versions.turn
        dropped = await running.projections.drop("accounts")
        assert {table for one in dropped for table in one.tables} == {*before} - {*await there(url)}
        assert [one.projection for one in await running.projections.versions()] == ["totals"]
        # Who has seen the last turn is not to take the next one for the same.
        assert engine_of(running).versions.turn > turn
        for verdict in await running.verify():
            assert verdict.ok, verdict
    left_over = await there(url)
    assert {name: left_over[f"diptych_{name}"] for name in NOTED} == {
        "checkpoints": 1,
        "blocks": 1,
        "parked": 0,
        "pauses": 0,
        "proofs": 1,
        "versions": 1,
    }
    assert left_over["totals"] == 18
    # It comes back as one that was never there.
    async with opened(bank.v1(), url) as running:
        await running.catch_up()
        found = {one.projection: one for one in await running.projections.versions()}
        assert found["accounts"].lag == 0
        assert all(verdict.ok for verdict in await running.verify())


async def test_one_version_of_it_is_dropped_by_its_name(url: str) -> None:
    await fill(url)
    async with opened(without(), url) as running:
        listed = {one.state: one for one in await running.projections.versions()}
        await running.projections.drop("accounts", listed["old"].version)
        (left,) = await running.projections.versions()
        assert left == listed["live"]
        with pytest.raises(Invalid, match="no such version"):
            await running.projections.drop("accounts", "nothing")
        await running.projections.drop("accounts")
        assert await running.projections.versions() == []
        with pytest.raises(Invalid, match="no such projection"):
            await running.projections.drop("accounts")


async def test_it_is_left_to_workers_that_run_it(url: str) -> None:
    """They are named. Once they are gone, it can be dropped."""
    async with opened(without(), url) as running:
        async with opened(bank.v1(), url) as other:
            await pay(other, 0, 3)
            await other.catch_up()
            with pytest.raises(Invalid, match="Workers with other code run") as refused:
                await running.projections.drop("accounts")
            me = engine_of(other).crew.me
            assert f"process {me.pid} on " in refused.value.facts["workers"]
            await other.catch_up()
            assert all(verdict.ok for verdict in await other.verify())
        assert len(await running.projections.drop("accounts")) == 1


async def test_a_table_that_another_projection_uses_stays(url: str) -> None:
    """Also one that is not noted yet, as it has not been opened to work."""
    async with opened(bank.v1(), url) as running:
        await pay(running, 0, 30)
        await running.catch_up()
    async with opened(renamed(), url, create="nothing", rebuild="manual", projections=False) as one:
        (dropped,) = await one.projections.drop("accounts")
        assert (dropped.tables, dropped.rows) == ([], {})
        assert (await there(url))["accounts"] == 18


async def test_a_table_that_was_taken_meanwhile_stays(url: str) -> None:
    async with opened(bank.v1(), url) as running:
        await pay(running, 0, 30)
        await running.catch_up()
        store = engine_of(running).store
        (row,) = await store.versions()
    async with opened(renamed(), url) as running:
        store = engine_of(running).store
        assert await store.forget([row])
        assert (await there(url))["accounts"] == 18
        assert not await store.forget([row])  # it is not there any more


async def test_what_follows_another_log_is_another_application_s(url: str, tmp_path: Path) -> None:
    """It is neither shown nor dropped."""
    async with opened(bank.v1(), url) as running:
        await pay(running, 0, 3)
        await running.catch_up()
    other = without().app.open(log=f"sqlite:///{tmp_path}/other.db", views=url)
    async with other as running:
        assert await running.projections.versions() == []
        with pytest.raises(Invalid, match="another application's"):
            await running.projections.drop("accounts")


# --- rows elsewhere -------------------------------------------------------------------------------


@asynccontextmanager
async def spare(made: Bank, at: At, views: Any) -> AsyncGenerator[Running]:
    """Open it on read databases that no view names, as the command line does."""
    from diptych.app.running import Opening

    async with Opening(
        made.app.compile(),
        *(at.log, views, None),
        projections=False,
        create="nothing",
        rebuild="manual",
        verify_every=None,
        spare=True,
    ) as running:
        yield running


async def test_rows_in_a_row_store_are_dropped_with_their_books(at: At) -> None:
    async with purse.v1().app.open(log=at.log, views=at.views) as running:
        await pay(running, 0, 30)
        await running.catch_up()
    async with beside().app.open(log=at.log, views=at.main) as running:
        await running.catch_up()
    async with spare(beside(), at, {"main": at.main}) as running:
        with pytest.raises(Invalid, match="a database that is not given"):
            await running.projections.drop("accounts")
    async with spare(beside(), at, at.views) as running:
        cache: Any = next(e.store for e in running._engines if not e.projections)
        assert await cache.row_store.tables(["accounts"])
        _, left = await running.projections.versions()
        assert (left.tables, left.in_code, left.lag) == (["accounts"], False, 0)
        (asked,) = await running.projections.droppable("accounts")
        assert asked.rows == ({} if at.cache.startswith("redis") else {"accounts": 18})
        await running.projections.drop("accounts")
        assert await cache.row_store.tables(["accounts"]) == {}
        assert [one.projection for one in await running.projections.versions()] == ["totals"]


async def test_books_of_rows_that_are_gone_are_dropped(at: At) -> None:
    async with purse.v1().app.open(log=at.log, views=at.views) as running:
        await pay(running, 0, 3)
        await running.catch_up()
        cache: Any = next(e.store for e in running._engines if e.projections)
        await cache.row_store.drop("accounts")
    async with spare(without(), at, at.views) as running:
        (dropped,) = await running.projections.drop("accounts")
        assert dropped.tables == []
        assert await running.projections.versions() == []
