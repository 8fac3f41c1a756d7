"""A view is changed while people use it: built beside, proved, switched to, rolled back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from diptych import Invalid, Running
from diptych.errors import DefinitionError, ProjectionFailed, ViewNotReady
from diptych.read.following.engine import Engine
from diptych.read.port import Turn
from diptych.read.versioning.versions import UNKNOWN
from diptych.testing.servers import PostgresServer
from tests.app import bank
from tests.app.bank import Bank, Pay


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/bank.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    made = server.new_database()
    yield made
    server.drop_database(made)


@asynccontextmanager
async def opened(made: Bank, url: str, **options: Any) -> AsyncGenerator[Running]:
    async with made.app.open(log=url, views=url, **options) as running:
        yield running


def engine_of(running: Running) -> Engine:
    (engine,) = running._engines
    return engine


async def pay(running: Running, first: int, last: int) -> Any:
    done = [running.submit(Pay(f"a{n % 7}", f"b{n % 11}", n)) for n in range(first, last)]
    receipts = await asyncio.gather(*done)
    return receipts[-1]


def expected(last: int, times: int = 1) -> dict[str, int]:
    found: dict[str, int] = {}
    for n in range(last):
        for name, sign in ((f"a{n % 7}", -1), (f"b{n % 11}", 1)):
            found[name] = found.get(name, 0) + sign * n * times
    return found


async def balances(running: Running, made: Bank, after: Any = None) -> dict[str, int]:
    answer = await running.ask(made.all(), after=after, wait=30)
    assert not answer.stale
    return {row.name: row.balance for row in answer.value}


async def states(running: Running) -> dict[str, str]:
    await running.catch_up()
    return {one.version: one.state for one in await running.projections.versions()}


# --- what is noticed ------------------------------------------------------------------------------


async def test_the_plan_names_what_changed_and_changes_nothing(url: str) -> None:
    one, two = bank.v1(), bank.v2(slices=16)
    async with opened(one, url) as running:
        assert [(p.action, p.why) for p in await running.projections.plan()] == [("none", [])]
        await pay(running, 0, 3)
        async with opened(two, url, create="nothing") as other:
            for _ in range(2):
                (plan,) = await other.projections.plan()
                assert plan.action == "build"
                assert plan.why == [
                    "column `payments: int` was added",
                    "the fold's code changed",
                    "slices: 1 → 16",
                ]
            assert len(await other.projections.versions()) == 1
    async with opened(bank.v1(), url) as running:
        assert [p.action for p in await running.projections.plan()] == ["none"]


async def test_tables_from_before_versions_are_adopted(url: str) -> None:
    one = bank.v1()
    async with opened(one, url) as running:
        await pay(running, 0, 20)
        await running.catch_up()
        engine = engine_of(running)
        (row,) = await engine.store.versions()
    await forget_versions(url)
    async with opened(bank.v1(), url) as running:
        (now,) = await running.projections.versions()
        assert (now.version, now.state, now.instance) == (row.version, "live", "accounts")
        assert (await running.verify())[0].ok


async def test_tables_from_before_versions_that_do_not_fit_are_served_to_nobody(url: str) -> None:
    async with opened(bank.v1(), url) as running:
        await pay(running, 0, 20)
        await running.catch_up()
    await forget_versions(url)
    two = bank.v2()
    async with opened(two, url) as running:
        assert await balances(running, two) == expected(20)
        await running.catch_up()
        found = {one.instance: one.state for one in await running.projections.versions()}
        version = engine_of(running).versions.version("accounts")
        assert found == {"accounts": "old", f"accounts@{version}": "live"}
        assert UNKNOWN in {one.version for one in await running.projections.versions()}


async def forget_versions(url: str) -> None:
    if url.startswith("sqlite"):
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db, db:
            db.execute("DELETE FROM diptych_versions")
        return
    import asyncpg

    connection = await asyncpg.connect(url)
    await connection.execute("DELETE FROM diptych.diptych_versions")
    await connection.close()


# --- building and switching -----------------------------------------------------------------------


@pytest.mark.parametrize("times", [2])
async def test_a_changed_fold_is_built_beside_and_served_when_it_is_whole(
    url: str, times: int
) -> None:
    """Readers of the old code read the new rows, as their columns are the same."""
    one, three = bank.v1(), bank.v3()
    async with opened(one, url) as old:
        receipt = await pay(old, 0, 50)
        assert await balances(old, one, receipt.token) == expected(50)
        async with opened(three, url) as new:
            await new.catch_up()
            assert await balances(new, three) == expected(50, times)
            assert await balances(old, one) == expected(50, times)
            assert sorted((await states(new)).values()) == ["live", "old"]
            assert (await new.verify())[0].ok


async def test_a_changed_column_is_read_by_those_who_know_it(url: str) -> None:
    """Old and new programs run side by side, each reads rows that hold its columns."""
    one, two = bank.v1(), bank.v2()
    async with opened(one, url) as old, opened(two, url) as new:
        receipt = await pay(old, 0, 30)
        await new.catch_up()
        receipt = await pay(new, 30, 60)
        assert await balances(new, two, receipt.token) == expected(60)
        assert await balances(old, one, receipt.token) == expected(60)
        assert sum(row.payments for row in (await new.ask(two.all())).value) == 120
        await new.projections.rollback("accounts")
        receipt = await pay(new, 60, 70)
        assert await balances(new, two, receipt.token) == expected(70)
        assert await balances(old, one, receipt.token) == expected(70)


async def test_until_it_is_built_a_view_that_nobody_has_is_not_ready(url: str) -> None:
    async with opened(bank.v1(), url) as old:
        await pay(old, 0, 10)
        await old.catch_up()
    two = bank.v2()
    async with opened(two, url, rebuild="manual") as new:
        with pytest.raises(ViewNotReady, match="not being built"):
            await new.ask(two.all(), wait=0.0)
        assert [(one.phase, one.ok) for one in await new.verify()] == [("live", True)]
        asked = asyncio.create_task(new.ask(two.all(), wait=30))
        await new.projections.rebuild()
        assert {row.name: row.balance for row in (await asked).value} == expected(10)


async def test_an_old_version_does_not_switch_back_by_itself(url: str) -> None:
    """In a rolling deployment programs of both versions are started again and again."""
    one, three = bank.v1(), bank.v3()
    async with opened(one, url) as old:
        await pay(old, 0, 10)
        async with opened(three, url) as new:
            await new.catch_up()
        async with opened(one, url) as again:
            await again.catch_up()
            assert (await again.projections.plan())[0].action == "old"
            assert await balances(again, one) == expected(10, 2)
            await again.projections.cutover("accounts")
            assert await balances(again, one) == expected(10)
        async with opened(three, url) as new:
            await new.catch_up()
            assert await balances(new, three) == expected(10)


async def test_a_version_that_was_dropped_is_built_again_only_when_asked(url: str) -> None:
    one, three = bank.v1(), bank.v3()
    async with opened(one, url) as running:
        await pay(running, 0, 10)
        await running.catch_up()
    async with opened(three, url) as running:
        await running.catch_up()
        (dropped,) = await running.projections.drop("accounts")
        assert (dropped.instance, dropped.state) == ("accounts", "old")
        with pytest.raises(Invalid, match="no version that was live before"):
            await running.projections.rollback("accounts")
        (live,) = await running.projections.versions()
        with pytest.raises(Invalid, match="the live one is not dropped"):
            await running.projections.drop("accounts", live.version)
        assert await balances(running, three) == expected(10, 2)
    async with opened(one, url) as running:
        await running.catch_up()
        assert (await running.projections.plan())[0].action == "dropped"
        assert await balances(running, one) == expected(10, 2)
        await running.projections.rebuild("accounts")
        assert await balances(running, one) == expected(10)
        assert (await running.verify())[0].ok


async def test_with_no_cutover_it_waits_until_somebody_says_so(url: str) -> None:
    one, three = bank.v1(), bank.v3()
    async with opened(one, url) as old:
        await pay(old, 0, 40)
        async with opened(three, url, rebuild="manual") as new, opened(three, url) as worker:
            (built,) = await new.projections.rebuild(cutover=False, compare=True)
            assert built.state == "held"
            (difference,) = built.differences
            assert difference.columns == {"balance": len(expected(40))}
            assert difference.examples[0][0] == "a0"
            await worker.catch_up()
            assert await balances(worker, three) == expected(40)
            switched = await new.projections.cutover("accounts")
            assert (switched.lag, switched.now) == (0, built.version)
            assert await balances(old, one) == expected(40, 2)
            with pytest.raises(Invalid, match="nothing to switch to"):
                await new.projections.cutover("accounts")


async def test_compare_names_rows_and_columns_that_differ(url: str) -> None:
    async with opened(bank.v1(), url) as old:
        await pay(old, 0, 40)
        two = bank.v2()
        async with opened(two, url) as new:
            await new.catch_up()
            (same,) = await versus(new)
            assert (same.missing, same.extra, same.differing, same.examples) == (0, 0, 0, [])
            engine = engine_of(new)
            table = engine.versions.mine("accounts").tables["accounts"]  # type: ignore[union-attr]
            await change(url, f"UPDATE {table} SET balance = balance + 1 WHERE name = 'a3'")
            await change(url, f"DELETE FROM {table} WHERE name = 'b2'")
            await change(url, f"INSERT INTO {table} VALUES ('c', 1, 1)")
            (found,) = await versus(new)
            assert (found.missing, found.extra, found.differing) == (1, 1, 1)
            assert found.columns == {"balance": 1}
            assert [key for key, _, _ in found.examples] == ["a3", "b2", "c"]


async def versus(running: Running) -> Any:
    """Compare after going back to the version of before, so that there are two."""
    await running.projections.rollback("accounts")
    found = await running.projections.compare("accounts")
    await running.projections.cutover("accounts")
    return found


async def change(url: str, statement: str) -> None:
    if url.startswith("sqlite"):
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db, db:
            db.execute(statement)
        return
    import asyncpg

    connection = await asyncpg.connect(url)
    await connection.execute("SET search_path TO diptych")
    await connection.execute(statement)
    await connection.close()


async def test_indexes_are_made_at_the_end(url: str) -> None:
    async with opened(bank.v1(), url) as old:
        await pay(old, 0, 10)
        async with opened(bank.v2(), url, rebuild="manual") as new:
            engine = engine_of(new)
            await engine.versions.build("accounts", "held")
            table = engine.versions.mine("accounts").tables["accounts"]  # type: ignore[union-attr]
            assert await indexes(url, table) == set()
            await new.projections.rebuild()
            assert await indexes(url, table) == {
                f"{table}_by_balance",
                f"{table}_by_payments_name",
            }


async def indexes(url: str, table: str) -> set[str]:
    if url.startswith("sqlite"):
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
            sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ?"
            return {name for (name,) in db.execute(sql, (table,))}
    import asyncpg

    connection = await asyncpg.connect(url)
    sql = "SELECT indexname FROM pg_indexes WHERE tablename = $1 AND indexname NOT LIKE '%_pkey'"
    found = {name for (name,) in await connection.fetch(sql, table)}
    await connection.close()
    return found


async def test_a_version_that_is_not_proved_does_not_become_live(url: str) -> None:
    one, three = bank.v1(), bank.v3()
    async with opened(one, url) as old:
        await pay(old, 0, 40)
        async with opened(three, url, rebuild="manual") as new:
            await new.projections.rebuild(cutover=False)
            instance = engine_of(new).versions.mine("accounts").instance  # type: ignore[union-attr]
            await change(
                url,
                f"UPDATE diptych_checkpoints SET count = count - 1 WHERE projection = '{instance}'",
            )
            await change(url, f"DELETE FROM diptych_proofs WHERE projection = '{instance}'")
        async with opened(bank.v3(), url, rebuild="manual") as new:
            with pytest.raises(ProjectionFailed, match="does not hold exactly its events"):
                await new.projections.cutover("accounts")
            assert await balances(old, one) == expected(40)


async def test_what_becomes_live_is_as_far_as_what_was(url: str) -> None:
    """Else positions would go back for who reads."""
    async with opened(bank.v1(), url) as old:
        await pay(old, 0, 40)
        await old.catch_up()
        async with opened(bank.v3(), url, projections=False) as new:
            versions = engine_of(new).versions
            row = versions.mine("accounts")
            assert row is not None
            assert not await versions.switch("accounts", row, level=True)
            assert versions.live("accounts") != row
            await new.catch_up()
            now = versions.mine("accounts")
            assert now is not None
            assert now.state == "live"


async def test_of_two_who_switch_one_does(url: str) -> None:
    async with opened(bank.v1(), url) as old:
        await pay(old, 0, 5)
        async with opened(bank.v3(), url, rebuild="manual") as new:
            await new.projections.rebuild(cutover=False)
            engine = engine_of(new)
            live, mine = engine.versions.live("accounts"), engine.versions.mine("accounts")
            assert live is not None
            assert mine is not None
            from msgspec import structs

            changes = [
                Turn(live, structs.replace(live, state="old")),
                Turn(mine, structs.replace(mine, state="live")),
            ]
            done = await asyncio.gather(*(engine.store.turn(changes) for _ in range(5)))
            assert sorted(done) == [False] * 4 + [True]


async def test_handlers_are_adopted_and_not_fired_again(url: str) -> None:
    sent: list[str] = []
    async with bank.with_handler(sent).open(log=url, views=url) as running:
        await pay(running, 0, 5)
        await running.catch_up()
    assert len(sent) == 5
    async with bank.with_handler(sent, "changed").open(
        log=url, views=url, create="nothing"
    ) as running:
        (plan,) = await running.projections.plan()
        assert (plan.action, plan.why) == ("adopt", ["the fold's code changed"])
    async with bank.with_handler(sent, "changed").open(log=url, views=url) as running:
        assert (await running.projections.plan())[0].action == "none"
        with pytest.raises(Invalid, match="A handler is not built beside itself"):
            await running.projections.rebuild("letters")
        assert await running.projections.rebuild() == []
        await pay(running, 5, 6)
        await running.catch_up()
    assert sent[5:] == ["a5!"]


async def test_a_handler_whose_table_does_not_fit_is_refused_before_anything_is_noted(
    url: str,
) -> None:
    """The plan says so; a start with that code takes nothing from the code of before."""
    sent: list[str] = []
    async with bank.with_handler(sent).open(log=url, views=url) as running:
        await pay(running, 0, 5)
        await running.catch_up()
    other = bank.with_handler(sent, column=True)
    for _ in range(2):
        async with other.open(log=url, views=url, create="nothing") as running:
            (plan,) = await running.projections.plan()
            assert plan.action == "refused"
            assert "ALTER TABLE" in plan.objections[0]
            assert "changed: stamps" in plan.objections[0]
        with pytest.raises(DefinitionError, match="ALTER TABLE"):
            async with other.open(log=url, views=url):
                pass
    async with bank.with_handler(sent).open(log=url, views=url) as running:
        assert (await running.projections.plan())[0].action == "none"
    kind = "INTEGER" if url.startswith("sqlite") else "bigint"
    await change(url, f"ALTER TABLE letters ADD COLUMN stamps {kind} NOT NULL DEFAULT 1")
    async with other.open(log=url, views=url, create="nothing") as running:
        assert (await running.projections.plan())[0].action == "adopt"


async def test_inline_projections_go_on_in_place(url: str) -> None:
    one, three = bank.v1(inline=True), bank.v3(inline=True)
    async with opened(one, url) as running:
        await pay(running, 0, 10)
    async with opened(three, url) as running:
        await pay(running, 10, 11)
        with pytest.raises(Invalid, match="An inline projection is not built beside itself"):
            await running.projections.rebuild("accounts")
        found = await balances(running, three)
        assert found["b10"] == 20
        assert found["b9"] == 9


async def test_an_inline_projection_is_put_back_beside_the_process_that_appends(url: str) -> None:
    one = bank.v1(inline=True)
    async with opened(one, url) as running:
        await pay(running, 0, 10)
        two = bank.v1(inline=True)
        async with opened(two, url, create="nothing", projections=False) as other:
            done = await other.steering.rewind("accounts")
            assert (done.before, done.position) == (10, 0)
            assert await balances(other, two) == expected(10)
        await pay(running, 10, 20)
        assert await balances(running, one) == expected(20)
        (verdict,) = await running.verify()
        assert (verdict.ok, verdict.position) == (True, 20)


# --- while people use it --------------------------------------------------------------------------


@pytest.mark.parametrize("after", [bank.v2, bank.v3], ids=["column", "fold"])
async def test_no_query_fails_or_sees_half_of_anything(url: str, after: Any) -> None:
    """Through rebuild, cutover, rollback, and cutover again, with a writer beside.

    Money is neither made nor lost in any answer, what a token stands for is there, and positions
    do not go back.
    """
    one, two = bank.v1(), after()
    counted = 0
    async with opened(one, url) as old, opened(one, url) as reader:
        await pay(old, 0, 3000)
        await old.catch_up()
        stop = asyncio.Event()
        written = 3000

        async def write() -> None:
            nonlocal written
            while not stop.is_set():
                await pay(old, written, written + 20)
                written += 20
                await asyncio.sleep(0.001)

        async def query(running: Running, made: Bank) -> None:
            nonlocal counted
            as_of = 0
            while not stop.is_set():
                head = await running.log.head()
                token = f"{running.log.identity}.{head}" if counted % 3 == 0 else None
                answer = await running.ask(made.all(), after=token, wait=30)
                assert not answer.stale
                assert sum(row.balance for row in answer.value) == 0
                assert len(answer.value) == 18
                assert answer.as_of >= (as_of if token is None else head)
                as_of = answer.as_of
                counted += 1
                row = await running.views.get(made.account, "a0")
                assert row is not None

        tasks = [asyncio.create_task(t) for t in (write(), query(old, one), query(reader, one))]
        async with ending(tasks), opened(two, url) as new:
            await wait_until(lambda: any(task.done() for task in tasks) or is_live(new), tasks)
            tasks.append(asyncio.create_task(query(new, two)))
            for _ in range(3):
                before = counted
                await wait_until(lambda before=before: counted > before + 20, tasks)
                await new.projections.rollback("accounts")
                before = counted
                await wait_until(lambda before=before: counted > before + 20, tasks)
                await new.projections.cutover("accounts")
            before = counted
            await wait_until(lambda: counted > before + 20, tasks)
            stop.set()
            await asyncio.gather(*tasks)
            await new.catch_up()
            times = 2 if after is bank.v3 else 1
            assert await balances(new, two) == expected(written, times)
            assert all(one.ok for one in await new.verify())


@asynccontextmanager
async def ending(tasks: list[asyncio.Task[None]]) -> AsyncGenerator[None]:
    """Leave no task behind."""
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_live(running: Running) -> bool:
    row = engine_of(running).versions.mine("accounts")
    return row is not None and row.state == "live"


async def wait_until(condition: Any, tasks: list[asyncio.Task[None]]) -> None:
    for _ in range(6000):
        for task in tasks:
            if task.done():
                task.result()
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that within a minute")


async def test_a_view_that_is_current_is_not_held_up_by_one_that_is_built(url: str) -> None:
    """The same worker does both."""
    one, three = bank.v1(), bank.v3()
    async with opened(one, url) as old:
        await pay(old, 0, 50)
        async with opened(three, url, rebuild="manual") as new:
            new_engine = engine_of(new)
            new_engine.page = 10
            building = asyncio.create_task(new.projections.rebuild(limit=100.0))
            receipt = await pay(old, 50, 60)
            assert await balances(old, one, receipt.token) == expected(60)
            await building
            assert await balances(old, one) == expected(60, 2)


@pytest.mark.parametrize("running_here", [True, False], ids=["worker", "reader"])
async def test_a_live_query_goes_on_with_the_version_that_is_live(
    url: str, running_here: bool
) -> None:
    one, three = bank.v1(), bank.v3()
    async with opened(one, url) as old:
        await pay(old, 0, 20)
        await old.catch_up()
        async with opened(one, url, projections=running_here) as reader:
            answers = reader.live(one.all())
            first = await anext(answers)
            assert {row.name: row.balance for row in first.value} == expected(20)
            async with opened(three, url, rebuild="manual") as new:
                await new.projections.rebuild()
                then = await asyncio.wait_for(anext(answers), 30)
                assert {row.name: row.balance for row in then.value} == expected(20, 2)
            await answers.aclose()
