"""Rows in a database without transactions: each effect is made once for each key all the same."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Generator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis
from sqlalchemy import func

from diptych.errors import (
    DamagedRow,
    ForeignCheckpoint,
    Invalid,
    NoViews,
    ProjectionFailed,
    Unavailable,
)
from diptych.logs.memory import MemoryLog
from diptych.read import beside, rowstore
from diptych.read.following.fold import RowCache
from diptych.read.parking.desk import NO_KEY
from diptych.read.parking.keys import ParkedKeys
from diptych.read.parking.steering import Steering
from diptych.read.port import Writes
from diptych.read.projections import projection
from diptych.read.proving.rowcheck import verify_rows
from diptych.read.queries import Queries
from diptych.read.select import column, select
from diptych.read.stores import duckdb
from diptych.read.stores.redis import WRITE, Address, Rows
from diptych.testing.servers import RedisServer, redis
from tests.logs.on_postgres import until
from tests.read.backends import Current
from tests.read.beside import OnDuckdb, OnRedis, assert_right, faulty, folded, rows_of, some_events
from tests.read.test_parking import Faults
from tests.read.world import (
    Account,
    Cancelled,
    Deleted,
    Moved,
    Order,
    Placed,
    World,
    accounts,
    orders,
    placed,
)


@pytest.fixture(autouse=True)
def _on_redis(redis_server: RedisServer) -> Generator[None]:
    with Current.on(OnRedis(redis_server.url)):
        yield


def cut_short(world: World, views: int = 1) -> None:
    """Have a step end between its rows, of so many views, and the checkpoints."""
    left = [views]

    async def after() -> None:
        left[0] -= 1
        if not left[0]:
            faulty(world).after = None
            raise Unavailable("Planted: the process ends here")

    faulty(world).after = after


@pytest.mark.parametrize("page", [1, 3, 2000])
async def test_the_rows_are_those_of_a_cold_fold(page: int) -> None:
    """On pages of any size, with deletions and events of several keys."""
    async with World([orders(), accounts()], page=page, cache_rows=4) as world:
        for round_ in range(3):
            await world.append(*some_events(random.Random(round_), 40))
            await world.engine.catch_up()
        await assert_right(world)


async def crash_between(tmp_path: Path) -> None:
    log, path = MemoryLog(), tmp_path / "crash.db"
    luck = random.Random(1)
    async with World([orders(), accounts()], log=log, path=path, page=7, gather=1) as world:
        await world.append(*some_events(luck, 50))
        await world.engine.catch_up()
        await world.append(*some_events(luck, 50))
        cut_short(world, views=2)
        with pytest.raises(Unavailable):
            await world.engine.catch_up()
    async with World([orders(), accounts()], log=log, path=path, page=3) as world:
        await world.engine.catch_up()
        await assert_right(world)


async def test_a_step_that_ended_between_rows_and_checkpoint_is_made_once(tmp_path: Path) -> None:
    """Another process, with other pages, makes it again; what the rows have is passed over."""
    await crash_between(tmp_path)


async def test_an_engine_makes_its_own_step_again_when_the_database_was_away() -> None:
    """Whatever it had in memory is forgotten, and every row asked where it is."""
    async with World([orders(), accounts()], page=10) as world:
        await world.append(*some_events(random.Random(2), 100))
        for _ in range(20):
            cut_short(world)
            try:
                await world.engine.catch_up()
                break
            except Unavailable:
                continue
        await world.engine.catch_up()
        await assert_right(world)


async def late_rows(tmp_path: Path) -> None:
    """A worker writes the rows of a step long after others went on beyond it."""
    log, path = MemoryLog(), tmp_path / "late.db"
    slow = World([orders()], log=log, path=path, page=1, gather=1)
    async with slow, World([orders()], log=log, path=path, page=100) as fast:
        await fast.append(*placed(1), *placed(2), Cancelled("o2"), Deleted("o1"))
        reached, go = asyncio.Event(), asyncio.Event()

        async def before() -> None:
            faulty(slow).before = None
            reached.set()
            await go.wait()

        faulty(slow).before = before
        late = asyncio.create_task(slow.engine.catch_up())
        await reached.wait()
        await fast.engine.catch_up()
        go.set()
        await late
        await assert_right(fast)


async def test_rows_that_come_late_change_nothing(tmp_path: Path) -> None:
    """Neither a row that went on, nor one that came and went within a step, rises again."""
    await late_rows(tmp_path)


async def test_rows_of_a_step_that_lost_are_ahead_and_right(tmp_path: Path) -> None:
    """They go further than the checkpoint of the one who won; it catches up with them."""
    log, path = MemoryLog(), tmp_path / "lost.db"
    wide = World([accounts()], log=log, path=path, page=100)
    async with wide, World([accounts()], log=log, path=path, page=5) as narrow:
        await narrow.append(*[Moved("a", "b", n) for n in range(20)])

        async def after() -> None:
            faulty(wide).after = None
            await narrow.engine._turn(list(narrow.engine.spans), 20, settle=True)
            await narrow.engine._written()

        faulty(wide).after = after
        # The slow one's rows are written, then the other moves the checkpoint.
        await wide.engine._turn(list(wide.engine.spans), 20, settle=True)
        await wide.engine._written()
        assert (await narrow.store.checkpoints())["account"][0].position == 5
        ahead = (await narrow.store.get(Account, "a")).rows[0]
        assert ahead.moves == 20
        await narrow.engine.catch_up()
        await assert_right(narrow)


@pytest.mark.parametrize("seed", range(6))
async def test_engines_that_race_and_fail_at_random_come_to_the_same_rows(
    seed: int, tmp_path: Path
) -> None:
    """Three of them with pages of their own; rows are written late, half or for nothing."""
    luck, log = random.Random(seed), MemoryLog()
    path = tmp_path / f"race{seed}.db"
    worlds = [
        World([orders(), accounts()], log=log, path=path, page=page, cache_rows=cache)
        for page, cache in ((3, 4), (11, 100), (29, 10))
    ]
    for world in worlds:
        await world.engine.open()
        faulty(world).luck = luck

    async def follow(world: World) -> None:
        while True:
            try:
                return await world.engine.catch_up()
            except Unavailable:
                continue

    try:
        for _ in range(3):
            await worlds[0].append(*some_events(luck, 60))
            await asyncio.gather(*map(follow, worlds))
        await assert_right(worlds[0])
    finally:
        for world in worlds:
            await world.__aexit__()


# --- planted bugs ---------------------------------------------------------------------------------


async def test_writes_without_the_guard_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: a row replaces whatever is there."""
    careless = WRITE.replace("if not there or", "if true or")
    assert careless != WRITE
    monkeypatch.setattr("diptych.read.stores.redis.WRITE", careless)
    with pytest.raises(AssertionError):
        await late_rows(tmp_path)


async def test_folding_what_the_rows_have_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: nobody looks how far the rows go."""

    def note(self: RowCache, loaded: Any, first: int) -> None:
        self.ahead = {}

    monkeypatch.setattr(RowCache, "note", note)
    with pytest.raises(AssertionError):
        await crash_between(tmp_path)


async def test_deletions_without_a_mark_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: what is deleted leaves nothing behind."""

    plain = beside._placed

    def placed_rows(writes: Writes) -> dict[Any, rowstore.Placed]:
        return {key: one for key, one in plain(writes).items() if one.row is not None}

    monkeypatch.setattr(beside, "_placed", placed_rows)
    with pytest.raises(AssertionError):
        await late_rows(tmp_path)


# --- operators ------------------------------------------------------------------------------------


def counting(row: Account | None, event: Moved, key: str) -> Account | None:
    if event.amount in REFUSED:
        raise ValueError("not this one")
    return Account(key, (row.balance if row else 0) + event.amount, 1 + (row.moves if row else 0))


REFUSED: set[int] = set()


async def test_a_retry_that_was_cut_short_is_made_once() -> None:
    """The rows of parked events are ahead of the books as those of other steps are."""
    one = projection(counting, Account, key=lambda event: [event.source])
    async with World([one]) as world:
        await world.append(*[Moved("a", "b", n) for n in (1, 2, 3, 4)], Moved("c", "d", 1))
        REFUSED.update((2, 4))
        try:
            await world.engine.catch_up()
            assert {k: r.moves for k, r in (await rows_of(world, one)).items()} == {"a": 1, "c": 1}
            keys = ParkedKeys(world.log, world.codec, [world.engine])
            REFUSED.remove(2)
            cut_short(world)
            with pytest.raises(Unavailable):
                await keys.retry("account", '"a"')
            assert (await rows_of(world, one))["a"].moves == 3
        finally:
            REFUSED.clear()
        await keys.retry("account", '"a"')
        await assert_right(world)


async def test_a_rewind_drops_the_rows_and_they_are_folded_anew() -> None:
    """What was changed by hand is right again; tombstones are gone too."""
    one = orders()
    async with World([one]) as world:
        await world.append(*placed(1, 2, 3), Deleted("o3"))
        await world.engine.catch_up()
        store: Any = world.store
        rows, table = store.row_store.rows, store.written(Order)
        wrong = msgspec.structs.replace((await rows_of(world, one))["o1"], status="lost")
        await rows.write(table, {"o1": rowstore.Placed(wrong, 10_000)})
        await Steering(world.log, world.codec, [world.engine]).rewind("order")
        assert await rows.load(table, ["o1", "o3"]) == {}
        await world.engine.catch_up()
        await assert_right(world)


async def test_a_query_that_a_rewind_overtakes_is_told_by_the_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its positions are from before, its row is not; so it asks again."""
    one = orders()
    async with World([one]) as world:
        await world.append(*placed(1, 2, 3))
        await world.engine.catch_up()
        before = await world.store.get(Order, "o1")
        rows = faulty(world)
        load = rows.load

        async def overtaken(table: Any, keys: Any) -> Any:
            monkeypatch.setattr(rows, "load", load)
            await Steering(world.log, world.codec, [world.engine]).rewind("order")
            return await load(table, keys)

        monkeypatch.setattr(rows, "load", overtaken)
        found = await world.store.get(Order, "o1")
        assert (found.rows, found.positions) == ([], before.positions)
        assert found.turn > before.turn
        monkeypatch.setattr(rows, "load", overtaken)
        views = Queries(world.log, world.codec, [world.engine], []).views()
        assert await views.get(Order, "o1") is None
        assert views.as_of == 0


# --- servers --------------------------------------------------------------------------------------


async def test_work_waits_while_redis_is_away_and_goes_on_by_itself() -> None:
    """Queries say that it is away; nothing is lost where Redis keeps what it acknowledged."""
    one = accounts()
    with redis(durable=True) as server, Current.on(OnRedis(server.url)):
        async with World([one]) as world:
            await world.append(*[Moved("a", "b", 1)] * 10)
            await world.engine.start()
            await world.engine.catch_up()
            server.kill()
            head = await world.append(*[Moved("a", "b", 1)] * 10)
            with pytest.raises(Unavailable):
                await world.store.get(Account, "a")
            while not any(isinstance(f.error, Unavailable) for f in world.engine.spans):
                await asyncio.sleep(0.01)
            server.start()
            assert await world.engine.wait_for(
                ["account"], head, asyncio.get_running_loop().time() + 60
            )
            await assert_right(world)


async def test_a_call_that_is_cancelled_ends_at_once(redis_server: RedisServer) -> None:
    """At whichever of its steps: the driver swallows it at some, and an engine would not stop."""
    rows = Rows(Address.parse(f"{redis_server.url}?prefix=cancelled:"))
    await rows.tables(["a"])  # connects
    steps = 0
    while True:
        call = asyncio.create_task(rows.tables(["a", "b"]))
        for _ in range(steps):
            await asyncio.sleep(0)
        if call.done():
            break
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled(), steps
        steps += 1
    assert steps > 5
    await rows.close()


async def test_rows_that_redis_has_lost_are_refused_then_filled_anew(tmp_path: Path) -> None:
    """Nobody takes an empty Redis for complete: who may make tables begins from the first event."""
    log, path = MemoryLog(), tmp_path / "lost.db"
    with redis() as server, Current.on(OnRedis(server.url)):
        async with World([accounts()], log=log, path=path) as world:
            await world.append(*[Moved("a", "b", 1)] * 10)
            await world.engine.catch_up()
            only_reads = World([accounts()], log=log, path=path)
            await only_reads.engine.open(create=False)
            server.kill()
            server.start()
            await world.append(*[Moved("a", "b", 1)] * 10)
            with pytest.raises(Unavailable, match="diptych work"):
                await only_reads.engine.catch_up()
            await only_reads.engine.open(create=False)
            (status,) = await only_reads.engine.status()
            assert (status.state, "diptych work" in str(status.error)) == ("away", True)
            await only_reads.store.close()
            await world.engine.catch_up()
            await assert_right(world)
            found = await world.store.get(Account, "a")
            assert found.rows[0].moves == 20
            assert found.positions["account"] == 20


@pytest.mark.parametrize("idle", [True, False])
async def test_a_running_engine_fills_anew_what_redis_has_lost(
    idle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself: also one that has nothing else to do, and where others find the same."""
    monkeypatch.setattr("diptych.read.following.engine.DOUBT_SECONDS", 0.05)
    with redis() as server, Current.on(OnRedis(server.url)):
        async with World([accounts()]) as world:
            head = await world.append(*[Moved("a", "b", 1)] * 10)
            await world.engine.start()
            await world.engine.catch_up()
            server.kill()
            server.start()
            if not idle:
                head = await world.append(*[Moved("a", "b", 1)] * 10)

            async def filled() -> bool:
                with suppress(Unavailable):
                    found = await world.store.get(Account, "a")
                    return bool(found.rows) and found.rows[0].moves == head
                return False

            await until(filled)
            await world.engine.catch_up()
            await assert_right(world)


async def test_an_event_parked_without_a_key_is_rewound_not_retried() -> None:
    """It would change rows in their past; nothing is lost, and the error says what to do."""
    faults = Faults("key", {2})
    one = faults.projection()
    async with World([one]) as world:
        await world.append(*[Moved("a", "b", n) for n in range(4)])
        await world.engine.catch_up()
        parked = ParkedKeys(world.log, world.codec, [world.engine])
        before = await rows_of(world, one)
        assert [key.key for key in await parked.keys()] == [NO_KEY]
        faults.kind = ""
        with pytest.raises(ProjectionFailed, match="rewind the projection"):
            await parked.retry()
        assert await rows_of(world, one) == before
        assert [key.key for key in await parked.keys()] == [NO_KEY]
        await Steering(world.log, world.codec, [world.engine]).rewind(one.name)
        await world.engine.catch_up()
        assert await parked.keys() == []
        await assert_right(world)


# --- what is asked --------------------------------------------------------------------------------


async def test_an_answer_is_as_of_no_more_than_its_row_has() -> None:
    """Rows are written before the checkpoint: what is read may be newer, never older."""
    async with World([accounts()]) as world:
        await world.append(Moved("a", "b", 1))
        seen: list[tuple[int, int]] = []

        async def after() -> None:
            found = await world.store.get(Account, "a")
            seen.append((found.rows[0].moves, found.positions["account"]))

        faulty(world).after = after
        await world.engine.catch_up()
        assert seen == [(1, 0)]


async def test_a_statement_over_rows_in_redis_is_invalid() -> None:
    """The error says what can be asked."""
    async with World([orders()]) as world:
        with pytest.raises(Invalid, match=r"views\.get"):
            await world.queries.views().all(select(Order))
        with pytest.raises(Invalid, match="key"):
            await world.queries.views().get(Order, ("a", "b"))
        assert await world.queries.views().get(Order, "o1") is None


async def test_a_row_that_cannot_be_kept_parks_its_key() -> None:
    """The others go on."""

    def bad(row: Order | None, event: Placed) -> Order:
        return Order(event.order, "\ud800" if event.order == "o2" else "a", event.total, "placed")

    one = projection(bad, Order)
    async with World([one]) as world:
        await world.append(*placed(1, 2, 3))
        await world.engine.catch_up()
        assert set(await rows_of(world, one)) == {"o1", "o3"}
        assert [key.key for key in (await world.store.desk.keys())["order"]] == ['"o2"']


@pytest.mark.parametrize("value", ["garbage", "5 no json", "5 {}", "9 [1]"])
async def test_a_value_that_somebody_has_overwritten_parks_its_key(value: str) -> None:
    """It is a damaged row as in SQL: named, held for a rewind, and nothing else waits for it."""
    one = accounts()
    async with World([one]) as world:
        await world.append(Moved("a", "b", 1), Moved("c", "d", 1))
        await world.engine.catch_up()
        await overwrite(world, "account", '"a"', value)
        for follower in world.engine.spans:
            follower.forget()
        await world.append(Moved("a", "b", 1), Moved("c", "d", 1))
        await world.engine.catch_up()
        (parked,) = await ParkedKeys(world.log, world.codec, [world.engine]).keys()
        assert (parked.key, parked.kind) == ('"a"', "DamagedRow")
        with pytest.raises(DamagedRow, match="key: a") as raised:
            await world.store.get(Account, "a")
        assert raised.value.facts["got"] == value
        assert (await world.store.get(Account, "d")).rows[0].moves == 2
        verdict = await verify_rows(world.log, world.codec, world.store, one)
        assert [(fault.what, fault.key) for fault in verdict.faults] == [("different", "a")]
        await Steering(world.log, world.codec, [world.engine]).rewind(one.name)
        await world.engine.catch_up()
        await assert_right(world)


async def test_a_value_that_somebody_has_overwritten_is_replaced_by_who_knows_its_row() -> None:
    """What is no position is in nobody's way."""
    one = accounts()
    async with World([one]) as world:
        await world.append(Moved("a", "b", 1))
        await world.engine.catch_up()
        await overwrite(world, "account", '"a"', "garbage")
        await world.append(Moved("a", "b", 1))
        await world.engine.catch_up()
        await assert_right(world)


async def overwrite(world: World, table: str, field: str, value: str) -> None:
    """Do what another program may do."""
    rows: Any = faulty(world).rows
    async with Redis.from_url(rows.address.url) as client:
        name = f"{rows.address.prefix}{table}"
        assert await client.hset(name, field, value) == 0


async def test_rows_of_another_log_are_refused(tmp_path: Path) -> None:
    """They would be taken for what is ahead."""
    async with World([orders()], path=tmp_path / "a.db") as world:
        await world.append(*placed(1))
        await world.engine.catch_up()
    (tmp_path / "a.db").unlink()
    other = World([orders()], path=tmp_path / "a.db")
    with pytest.raises(ForeignCheckpoint, match="another log"):
        await other.engine.open()
    await other.store.close()


async def test_without_create_nothing_is_made() -> None:
    """Neither rows nor checkpoints."""
    world = World([orders()])
    with pytest.raises(NoViews):
        await world.engine.open(create=False)
    assert await faulty(world).tables(["order"]) == {}
    await world.store.close()


async def test_books_that_were_put_back_pass_over_what_the_rows_have(tmp_path: Path) -> None:
    """Checkpoints restored from an older backup: the rows are ahead, and stay right."""
    log, path = MemoryLog(), tmp_path / "books.db"
    one = accounts()
    async with World([one], log=log, path=path) as world:
        await world.append(*[Moved("a", "b", 1)] * 10)
        await world.engine.catch_up()
    path.unlink()
    async with World([one], log=log, path=path, page=4) as world:
        await world.append(*[Moved("a", "b", 1)] * 5)
        await world.engine.catch_up()
        await assert_right(world)
        assert (await folded(log, one))["a"].moves == 15


# --- DuckDB ---------------------------------------------------------------------------------------


@pytest.fixture
def on_duckdb(tmp_path: Path) -> Generator[None]:
    """Have worlds made on DuckDB."""
    with Current.on(OnDuckdb(tmp_path)):
        yield


@pytest.mark.usefixtures("on_duckdb")
async def test_duckdb_keeps_what_a_cold_fold_gives(tmp_path: Path) -> None:
    """After steps that were cut short, by engines that race."""
    await crash_between(tmp_path)
    await late_rows(tmp_path)


@pytest.mark.usefixtures("on_duckdb")
async def test_duckdb_answers_statements() -> None:
    """Sums of decimals are exact; NULLs and texts sort as everywhere; deleted rows are not seen."""
    async with World([orders()]) as world:
        await world.append(*placed(1, 2, 3, 4), *placed(5, customer="bob"), Deleted("o4"))
        await world.engine.catch_up()
        views = world.queries.views()
        rows = await views.all(
            select(Order)
            .where(Order.customer == "ada", Order.total > Decimal("0.01"))
            .order_by(column(Order.order).desc())
        )
        assert [(row.order, str(row.total)) for row in rows] == [("o3", "0.03"), ("o2", "0.02")]
        totals = select(column(Order.customer), func.sum(Order.total), func.count())
        statement = totals.group_by(column(Order.customer)).order_by(column(Order.customer))
        found = await views.rows(statement)
        assert [(name, total, n) for name, total, n in found] == [
            ("ada", Decimal("0.06"), 3),
            ("bob", Decimal("0.05"), 1),
        ]
        some = select(Order).where(column(Order.order).in_(["o1", "o5", "o4"]))
        assert {row.order for row in await views.all(some)} == {"o1", "o5"}
        assert views.as_of == 6
        with pytest.raises(Invalid, match="DuckDB"):
            await views.rows(select(func.no_such_function(column(Order.order))))


async def test_a_duckdb_file_that_another_process_has_is_unavailable(tmp_path: Path) -> None:
    """The error says that one process at a time has it."""
    path = tmp_path / "held.duckdb"
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        rows = duckdb.Rows(duckdb.Address(path))
        with pytest.raises(Unavailable, match="one process"):
            await rows.tables(["order"])
        holder.kill()
    assert await rows.tables(["order"]) == {}
    await rows.close()
