"""Views in PostgreSQL: what is there for people to see, and what happens when it goes wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from itertools import count
from typing import Any

import asyncpg
import pytest
from sqlalchemy import func, insert, text

from diptych.errors import CheckpointMoved, DefinitionError, Invalid, Unavailable
from diptych.logs.memory import MemoryLog
from diptych.read.port import Change, Checkpoint, Kept, Tally
from diptych.read.projections import fold_events, projection
from diptych.read.proving.verify import verify
from diptych.read.select import column, select
from diptych.read.stores.postgres import PostgresViews
from diptych.read.stores.postgres.rows import CUT_LOCK
from diptych.read.stores.postgres.schema import index_name
from diptych.read.views import Key, View, definition_of
from diptych.sql.postgres import Database
from diptych.testing.contracts.views.making import (
    VIEWS,
    Counter,
    Everything,
    error_of,
    put,
    sample,
    step,
)
from diptych.testing.servers import PostgresServer
from tests.logs.on_postgres import connected, waiting_for_the_lock
from tests.read.backends import Current, OnPostgres
from tests.read.proxy import Proxy
from tests.read.world import (
    Account,
    Moved,
    Order,
    World,
    accounts,
    all_recorded,
    append,
    keyed,
    orders,
    placed,
)

numbers = count(1)


@pytest.fixture(scope="module")
def url(postgres_server: PostgresServer) -> str:
    """Give the URL of a database for these tests."""
    return postgres_server.new_database()


@asynccontextmanager
async def new_store(url: str, **options: Any) -> AsyncGenerator[PostgresViews]:
    store = PostgresViews(Database(f"{url}?schema=t{next(numbers)}", **options))
    try:
        await store.open("log", VIEWS)
        yield store
    finally:
        await store.close()


async def fetch(store: PostgresViews, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    sql = sql.replace("{schema}", store.database.schema)
    rows = await store.database.run(lambda c: c.fetch(sql, *values))
    return [tuple(row) for row in rows]


# --- what people see ------------------------------------------------------------------------------


async def test_columns_have_the_types_of_the_database(url: str) -> None:
    async with new_store(url) as store:
        found = await fetch(
            store,
            "SELECT column_name::text, data_type::text, is_nullable::text, collation_name::text "
            "FROM information_schema.columns WHERE table_schema = $1 AND table_name = 'everything' "
            "ORDER BY ordinal_position",
            store.database.schema,
        )
        types = {name: (type_, nullable) for name, type_, nullable, _ in found}
        assert types == {
            "key": ("text", "NO"),
            "text": ("text", "NO"),
            "number": ("bigint", "NO"),
            "real": ("double precision", "NO"),
            "flag": ("boolean", "NO"),
            "money": ("numeric", "NO"),
            "at": ("timestamp with time zone", "NO"),
            "day": ("date", "NO"),
            "id": ("uuid", "NO"),
            "colour": ("text", "NO"),
            "level": ("bigint", "NO"),
            "size": ("text", "NO"),
            "point": ("json", "NO"),
            "names": ("json", "NO"),
            "maybe": ("numeric", "YES"),
            "maybe_at": ("timestamp with time zone", "YES"),
            "maybe_int": ("bigint", "YES"),
            "maybe_text": ("text", "YES"),
            "maybe_id": ("uuid", "YES"),
            "maybe_flag": ("boolean", "YES"),
            "maybe_colour": ("text", "YES"),
            "maybe_point": ("json", "YES"),
        }
        assert {collation for _, type_, _, collation in found if type_ == "text"} == {"C"}


async def test_indexes_are_made_once_and_are_of_use_to_the_queries(url: str) -> None:
    async with new_store(url) as store:
        await put(store, *[sample(f"{n:05d}", maybe_int=n % 7 or None) for n in range(3000)])
        await store.open("log", VIEWS)
        found = await fetch(
            store,
            "SELECT indexname::text FROM pg_indexes WHERE schemaname = $1 "
            "AND tablename = 'everything'",
            store.database.schema,
        )
        assert sorted(name for (name,) in found) == [
            "everything_by_maybe_int_text", "everything_by_money", "everything_pkey",
        ]  # fmt: skip
        await fetch(store, "ANALYZE {schema}.everything")
        for statement, index in (
            (
                select(Everything).order_by(Everything.maybe_int, Everything.text).limit(5),
                "by_maybe",
            ),
            (select(Everything).order_by(column(Everything.maybe_int).desc()).limit(5), "by_maybe"),
            (select(Everything).order_by(Everything.key).limit(5), "pkey"),
            (select(Everything).where(column(Everything.key).startswith("0001")), "pkey"),
            (select(Everything).where(column(Everything.key).in_(["00001", "00002"])), "pkey"),
        ):
            planned = store.plans.of(statement)
            plan = await fetch(store, f"EXPLAIN {planned.plan.sql}", *(planned.values or []))
            assert any(f"everything_{index}" in line for (line,) in plan), plan


async def test_rows_are_loaded_by_the_index_before_anything_is_known_of_the_table(url: str) -> None:
    async with new_store(url) as store:
        plan = await fetch(
            store, f"EXPLAIN {store.steps.rows_of(Counter).by_keys}", [f"{n}" for n in range(5000)]
        )
        assert any("Index Scan using counter_pkey" in line for (line,) in plan), plan
        assert not any("Seq Scan" in line for (line,) in plan), plan


async def test_two_that_end_a_rebuild_at_once_make_its_indexes_once(url: str) -> None:
    """Both come to it while a step holds the table: one makes them, the other finds them there."""
    kept = Kept((Everything,), indexed=False)
    schema = f"t{next(numbers)}"
    one, two = (PostgresViews(Database(f"{url}?schema={schema}")) for _ in range(2))
    try:
        await one.open("log", {"everything": kept})
        async with connected(url) as step, connected(url) as admin:
            async with step.transaction():
                await step.execute(f"LOCK TABLE {schema}.everything IN ROW EXCLUSIVE MODE")
                both = asyncio.gather(one.index(kept), two.index(kept))
                await waiting_for_the_lock(admin, 2)
            await both
        names = await fetch(
            one,
            "SELECT indexname::text FROM pg_indexes WHERE schemaname = $1 "
            "AND tablename = 'everything' AND indexname NOT LIKE '%_pkey' ORDER BY 1",
            schema,
        )
        assert names == [("everything_by_maybe_int_text",), ("everything_by_money",)]
    finally:
        await one.close()
        await two.close()


class LongNames(View, table="a" * 60, indexes=(("first", "second"), ("first",))):
    key: Key[int]
    first: int
    second: int


async def test_long_names_of_indexes_are_shortened_apart(url: str) -> None:
    definition = definition_of(LongNames)
    names = [index_name(definition.table_name, fields) for fields in definition.indexes]
    assert len(set(names)) == 2
    assert all(len(name) <= 63 for name in names)
    async with new_store(url) as store:
        await store.open("log", {"long": Kept((LongNames,))})
        found = await fetch(
            store,
            "SELECT indexname::text FROM pg_indexes WHERE schemaname = $1 AND tablename = $2",
            store.database.schema,
            "a" * 60,
        )
        assert {name for (name,) in found} >= set(names)


class TooLong(View, table="b" * 64):
    key: Key[int]


async def test_names_that_postgresql_would_cut_off_are_refused(url: str) -> None:
    async with new_store(url) as store:
        with pytest.raises(DefinitionError, match="at most 63 bytes"):
            await store.open("log", {"long": Kept((TooLong,))})


async def test_a_role_that_may_not_create_opens_what_is_there(url: str) -> None:
    async with new_store(url) as store:
        role, schema = f"app_{store.database.schema}", store.database.schema
        for grant in (
            f"CREATE ROLE {role} LOGIN",
            f"GRANT USAGE ON SCHEMA {schema} TO {role}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
        ):
            await fetch(store, grant)
        theirs = PostgresViews(
            Database(f"{url.replace('//postgres@', f'//{role}@')}?schema={schema}")
        )
        await theirs.open("log", VIEWS)
        await put(theirs, Counter("a", 1))
        with pytest.raises(Exception, match="permission denied"):
            await theirs.open("log", {"new": Kept((LongNames,))})
        await theirs.close()
        assert (await store.all(select(Counter))).rows == [Counter("a", 1)]
        await fetch(store, f"DROP OWNED BY {role}")
        await fetch(store, f"DROP ROLE {role}")


# --- what it cannot hold --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"text": "a\0b"}, r"U\+0000"),
        ({"maybe_text": "\0"}, r"U\+0000"),
        ({"money": Decimal("1E+131080")}, "at most 2000 digits"),
        ({"money": Decimal("1E-20000")}, "at most 2000 digits"),
    ],
)
async def test_what_postgresql_cannot_hold_is_refused_with_the_rule(
    url: str, fields: dict[str, Any], rule: str
) -> None:
    async with new_store(url) as store:
        with pytest.raises(Invalid, match=rule):
            await put(store, sample("k", **fields))

        async def handler() -> None:
            async with store.session() as tx:
                await tx.put(sample("k", **fields))

        with pytest.raises(Invalid, match=rule):
            await handler()
        assert (await store.all(select(Everything))).rows == []


async def test_a_key_that_it_cannot_hold_is_parked(url: str) -> None:
    def fold(row: Account | None, event: Moved) -> Account | None:
        return Account(event.source, event.amount, 0)

    with Current.on(OnPostgres(url)):
        world = World([orders(), projection(fold, Account, key=lambda e: e.source)])
    async with world:
        await world.append(*placed(1), Moved("a", "b", 1), Moved("\0", "b", 2), *placed(2))
        await world.engine.catch_up()
        assert {s.position for s in await world.engine.status()} == {4}
        ((key,),) = (await world.store.desk.keys()).values()
        assert (key.key, key.position) == ('"\\u0000"', 3)
        assert "U+0000" in key.error


async def test_statements_that_postgresql_does_not_run_are_named(url: str) -> None:
    async with new_store(url) as store:
        for statement in (
            select(func.no_such_function(Counter.name)),
            text("SELECT nonsense FROM"),
        ):
            with pytest.raises(Invalid, match="does not run this statement"):
                await store.rows(statement)


async def test_a_session_in_which_a_statement_failed_is_not_taken_for_done(url: str) -> None:
    async with new_store(url) as store:
        await put(store, Counter("a", 1))

        async def careless() -> None:
            async with store.session() as tx:
                await tx.put(Counter("b", 1))
                twice = tx.execute(insert(Counter).values(name="a", value=2))
                await error_of(twice, asyncpg.UniqueViolationError)

        with pytest.raises(Invalid, match="nothing of it was kept"):
            await careless()
        assert (await store.all(select(Counter))).rows == [Counter("a", 1)]


# --- lost connections -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["request", "reply"])
async def test_a_step_whose_commit_is_unknown_is_found_out(url: str, how: Any) -> None:
    """Lost on the way there it is made again; lost on the way back it is known to be made."""
    proxy = Proxy(url)
    async with proxy.running() as through, new_store(through) as store:
        at = (await store.checkpoints())["counter"][0]
        for n in range(5):
            change = step(at, Counter("a", n), deleted=["b"], blocks={0: Tally(n, n)})
            # The values of the step come with the request that runs it, whatever is prepared.
            proxy.cut(how, change.after.event_id.encode())
            assert await store.apply([change]) == [True]
            assert proxy.cuts == n + 1
            at = change.after
            assert await store.proof("counter") == ([at], {0: Tally(n, n)})
            assert (await store.all(select(Counter))).rows == [Counter("a", n)]


async def test_a_step_that_another_made_meanwhile_is_not_taken_for_ours(url: str) -> None:
    proxy = Proxy(url)
    async with proxy.running() as through, new_store(through) as store:
        at = await store.checkpoints()
        ours = step(at["counter"][0], Counter("a", 1))
        leg = step(at["leg"][0])
        theirs = step(ours.before, Counter("b", 1))
        theirs = Change(theirs.before, step(theirs.after).after, {}, theirs.writes)
        direct = PostgresViews(Database(f"{url}?schema={store.database.schema}"))
        proxy.cut("request", ours.after.event_id.encode())
        again = store.database.connect

        async def after_theirs() -> Any:
            await direct.apply([theirs])
            return await again()

        store.database.connect = after_theirs  # type: ignore[method-assign]
        assert await store.apply([ours, leg]) == [False, True]
        assert proxy.cuts == 1
        await direct.close()
        assert (await store.all(select(Counter))).rows == [Counter("b", 1)]


async def test_reads_are_made_again(url: str) -> None:
    proxy = Proxy(url)
    async with proxy.running() as through, new_store(through) as store:
        await put(store, Counter("a", 1))
        for work in (
            lambda: store.all(select(Counter)),
            lambda: store.rows(select(column(Counter.name))),
            lambda: store.get(Counter, "a"),
            lambda: store.load(Counter, ["a"]),
            lambda: store.checkpoints(),
            lambda: store.proof("counter"),
            lambda: store.block("counter", 0, 0),
        ):
            expected = await work()
            proxy.cut("reply")
            assert await work() == expected
            proxy.cut_all()
            assert await work() == expected
        assert proxy.cuts == 7


async def test_an_engine_whose_connections_are_cut_applies_everything_once(url: str) -> None:
    proxy = Proxy(url)
    async with proxy.running() as through:
        with Current.on(OnPostgres(through)):
            world = World([orders(), accounts()], page=5)
        async with world:
            await world.engine.start()
            head = 0
            for n in range(60):
                head = await world.append(*placed(n), Moved("a", f"k{n % 3}", n))
                proxy.cut(("request", "reply")[n % 2], b"")
                if n % 7 == 0:
                    proxy.cut_all()
                await world.engine.wait_for(["order"], head, time.monotonic() + 5)
            assert await world.engine.wait_for(["order", "account"], head, time.monotonic() + 60)
            assert proxy.cuts > 30
            records = await all_recorded(world.log)
            assert keyed(await world.rows(Order), "order") == fold_events(orders(), records, {})
            assert keyed(await world.rows(Account), "name") == fold_events(accounts(), records, {})
            verdicts = await verify(world.log, world.codec, world.store, world.projections)
            assert all(v.ok for v in verdicts), verdicts


async def test_a_database_that_is_away_is_unavailable_and_work_resumes_by_itself(url: str) -> None:
    proxy = Proxy(url)
    async with proxy.running() as through:
        log = MemoryLog()
        store = PostgresViews(Database(f"{through}?schema=t{next(numbers)}", patience=0.1))
        world = World([orders()], log=log)
        world.store = world.engine.spans.store = world.engine.versions.store = store
        async with world:
            await world.engine.start()
            await world.engine.catch_up()
            proxy.away = True
            proxy.cut_all()
            head = await append(log, *placed(1, 2))
            for work in (
                lambda: store.all(select(Order)),
                lambda: store.apply([step(Checkpoint("order", log.identity))]),
                lambda: store.checkpoints(),
                lambda: _use(store),
            ):
                await error_of(work(), Unavailable)
            proxy.away = False
            assert await world.engine.wait_for(["order"], head, time.monotonic() + 60)
            assert len(await world.rows(Order)) == 2
            assert (await verify(log, world.codec, store, world.projections))[0].ok


async def _use(store: PostgresViews) -> None:
    async with store.session() as tx:
        await tx.put(Counter("the row", 1))


@pytest.mark.parametrize("how", ["request", "reply"])
async def test_a_session_whose_connection_is_lost_is_unavailable(url: str, how: Any) -> None:
    proxy = Proxy(url)
    async with proxy.running() as through, new_store(through) as store:
        for mark in (b"BEGIN", b"the row", b"COMMIT"):
            proxy.cut(how, mark)
            await error_of(_use(store), Unavailable)
            committed = mark == b"COMMIT" and how == "reply"
            assert len((await store.all(select(Counter))).rows) == int(committed)


# --- cancellation ---------------------------------------------------------------------------------


async def test_cancelling_leaves_no_transaction_and_no_poisoned_connection(url: str) -> None:
    async with new_store(url) as store, new_store(url) as watching:
        at = (await store.checkpoints())["counter"][0]
        for n in range(12):  # more often than there are connections
            change = step(at, Counter("a", n))
            async with store.session() as tx:  # it holds the checkpoint's row
                await tx.move(step(at))
                task = asyncio.create_task(store.apply([change]))
                while not await fetch(
                    watching,
                    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                    "AND datname = current_database()",
                ):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert task.cancelled()
            at = (await store.checkpoints())["counter"][0]
        while await fetch(
            watching,
            "SELECT FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' "
            "AND datname = current_database()",
        ):
            await asyncio.sleep(0)
        assert (at.position, (await store.all(select(Counter))).rows) == (12, [])
        assert await store.apply([step(at, Counter("a", 1))]) == [True]


async def test_a_handler_paused_in_its_transaction_holds_up_nobody_else(url: str) -> None:
    """Another worker that comes for the same checkpoint gives way, and goes on with the rest."""
    async with new_store(url) as store:
        other = PostgresViews(Database(f"{url}?schema={store.database.schema}"))
        at = (await store.checkpoints())["counter"][0]
        async with store.session() as paused:
            await paused.move(step(at))

            async def late() -> None:
                async with other.session() as tx:
                    await tx.move(step(at))

            await error_of(late(), CheckpointMoved)
            leg = (await other.checkpoints())["leg"][0]
            assert await other.apply([step(leg)]) == [True]
        assert (await store.checkpoints())["counter"][0].position == at.position + 1
        await other.close()


async def test_a_cutter_paused_in_its_transaction_is_thrown_out(url: str) -> None:
    """Its locks go with it, and the next one cuts."""
    async with new_store(url) as store:
        other = PostgresViews(Database(f"{url}?schema={store.database.schema}"))
        connection = await store.database.connect()
        await connection.execute("BEGIN")
        await connection.execute(
            "SET LOCAL idle_in_transaction_session_timeout = '1s'; "
            f"SELECT pg_advisory_xact_lock(hashtextextended('{store.database.schema}.leg', "
            f"{CUT_LOCK}))"
        )
        spans: list[Checkpoint] = []
        while not spans:
            with suppress(Unavailable):
                spans = await other.recut("leg", [3])
        assert [span.slice for span in spans] == [0, 3]
        connection.terminate()
        await other.close()
