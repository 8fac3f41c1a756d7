"""The engine: batches mean what one event after the other means, exactly once, whatever happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.errors import ForeignCheckpoint, ProjectionFailed, Unavailable, ViewLost
from diptych.log import Log
from diptych.logs.memory import MemoryLog
from diptych.messages import Event
from diptych.read.following import handling
from diptych.read.following.fold import RowCache
from diptych.read.parking.steering import Steering
from diptych.read.port import Change, Transaction
from diptych.read.projections import fold_events, handler, projection
from diptych.read.proving.verify import verify
from tests.read.backends import Current, OnPostgres
from tests.read.world import (
    Account,
    Cancelled,
    Deleted,
    Journal,
    Moved,
    Noted,
    Order,
    Placed,
    World,
    accounts,
    all_recorded,
    append,
    journals,
    keyed,
    orders,
    placed,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::diptych.errors.SqliteVersionWarning"),
    pytest.mark.usefixtures("backend"),
]

NAMES = st.sampled_from("abcdef")
SHOP_EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Placed, NAMES, NAMES, st.decimals(0, 100, places=2)),
    st.builds(Cancelled, NAMES),
    st.builds(Deleted, NAMES),
    st.builds(Moved, NAMES, NAMES, st.integers(0, 9)),
    st.builds(Noted, st.just("n")),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(SHOP_EVENTS, max_size=60),
    st.integers(1, 20),
    st.integers(1, 6),
    st.integers(0, 60),
)
async def test_any_batch_and_cache_size_gives_the_rows_of_one_by_one(
    events: list[Event], page: int, cache: int, cut: int
) -> None:
    log = MemoryLog()
    async with World(
        [orders(), accounts(), journals()], log=log, page=page, cache_rows=cache
    ) as world:
        for part in (events[:cut], events[cut:]):
            if part:
                await append(log, *part)
            await world.engine.catch_up()
        records = await all_recorded(log)
        assert keyed(await world.rows(Order), "order") == fold_events(orders(), records, {})
        assert keyed(await world.rows(Account), "name") == fold_events(accounts(), records, {})
        assert all(v.ok for v in await verify(log, world.codec, world.store, world.projections))


async def test_a_checkpoint_moves_over_unused_events() -> None:
    async with World([orders()]) as world:
        await world.append(*placed(1), *[Noted("x")] * 10)
        await world.engine.catch_up()
        checkpoint = (await world.store.checkpoints())["order"][0]
        assert (checkpoint.position, checkpoint.count) == (11, 1)


async def test_a_wait_does_not_hang_on_events_that_the_projection_does_not_use() -> None:
    async with World([orders()]) as world:
        await world.engine.start()
        head = await world.append(*[Noted("x")] * 5)
        assert await world.engine.wait_for(["order"], head, time.monotonic() + 30)
        assert (await world.store.checkpoints())["order"][0].position == head


async def test_a_handler_gets_the_transaction() -> None:
    async with World([journals()]) as world:
        await world.append(Noted("a"), *placed(1), Deleted("o1"), Noted("b"))
        await world.engine.catch_up()
        assert await world.rows(Journal) == [Journal(1, "a-o1b")]
        assert (await world.engine.status())[0].count == 3


async def test_a_handler_writes_only_the_views_it_names() -> None:
    async def stray(event: Noted, tx: Transaction) -> None:
        await tx.put(Order("o", "c", Decimal(1), "s"))

    async with World([orders(), handler(stray, Journal)]) as world:
        await world.append(Noted("a"))
        with pytest.raises(ProjectionFailed, match="add this one to handles"):
            await world.engine.catch_up()


async def test_a_handler_that_raises_keeps_what_came_before_and_nothing_of_it() -> None:
    async def fragile(event: Noted, tx: Transaction) -> None:
        await tx.put(Journal(len(event.text), event.text))
        if event.text == "bad":
            raise ValueError("no")

    async with World([handler(fragile, Journal)]) as world:
        await world.append(Noted("a"), Noted("bb"), Noted("bad"), Noted("dddd"))
        with pytest.raises(ProjectionFailed, match="no"):
            await world.engine.catch_up()
        assert [r.text for r in await world.rows(Journal)] == ["a", "bb"]  # type: ignore[attr-defined]
        status = (await world.engine.status())[0]
        assert (status.position, status.failed_position, status.state) == (2, 3, "failed")
        assert (await verify(world.log, world.codec, world.store, world.projections))[0].ok


async def test_a_handler_that_takes_its_time_holds_up_nobody() -> None:
    """What it is at is broken off when the engine stops, and done again."""
    if not isinstance(Current.backend, OnPostgres):
        pytest.skip("on SQLite nobody else writes while a handler's transaction is open")
    release = asyncio.Event()
    begun: list[str] = []

    async def slow(event: Noted, tx: Transaction) -> None:
        begun.append(event.text)
        await tx.put(Journal(len(begun), event.text))
        await release.wait()

    async with World([handler(slow, Journal), orders()], page=3) as world:
        await world.append(Noted("a"), Noted("b"))
        await world.engine.start()
        while not begun:
            await asyncio.sleep(0)
        for n in range(5):
            head = await world.append(*placed(n), Noted("c"))
            assert await world.engine.wait_for(["order"], head, time.monotonic() + 30)
        assert begun == ["a"]
        await world.engine.stop()
        release.set()
        await world.engine.catch_up()
        assert "".join(begun) == "aab" + "c" * 5
        assert [r.text for r in await world.rows(Journal)] == [*"abccccc"]  # type: ignore[attr-defined]
        assert all(
            v.ok for v in await verify(world.log, world.codec, world.store, world.projections)
        )


async def test_the_slower_a_handler_the_less_is_done_twice_after_a_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that takes long is committed event by event; others many at once."""

    async def into(event: Noted, tx: Transaction) -> None:
        await tx.put(Journal(len(event.text), event.text))

    async def commits(seconds: float) -> int:
        monkeypatch.setattr(handling, "HANDLER_SECONDS", seconds)
        async with World([handler(into, Journal)]) as world:
            await world.append(*(Noted("n" * (n + 1)) for n in range(40)))
            made = 0
            session = world.store.session

            def counted() -> Any:
                nonlocal made
                made += 1
                return session()

            monkeypatch.setattr(world.store, "session", counted)
            await world.engine.catch_up()
            return made

    assert await commits(0.0) == 40
    assert await commits(1e6) == 6  # 1, 2, 4, 8, 16, 9


async def test_what_will_pass_is_tried_again_and_not_parked() -> None:
    works = False

    def fold(row: Order | None, event: Placed) -> Order | None:
        if not works:
            raise TimeoutError("not yet")
        return Order(event.order, event.customer, event.total, "placed")

    async with World([projection(fold, Order)]) as world:
        head = await world.append(*placed(1, 2))
        await world.engine.start()
        while (await world.engine.status())[0].state != "failed":
            await asyncio.sleep(0)
        works = True
        assert await world.engine.wait_for(["order"], head, time.monotonic() + 30)
        status = (await world.engine.status())[0]
        assert (status.error, status.parked_keys) == (None, 0)


async def test_two_engines_on_one_store_apply_everything_once(tmp_path: Path) -> None:
    log = MemoryLog()
    one = World([orders(), accounts()], log=log, path=tmp_path / "v.db", page=7)
    two = World([orders(), accounts()], log=log, path=tmp_path / "v.db", page=11)
    async with one, two:
        await one.engine.start()
        await two.engine.start()
        head = 0
        for n in range(200):
            head = await append(log, *placed(n), Moved("a", f"k{n % 5}", n))
            await asyncio.sleep(0)
        for world in (one, two):
            assert await world.engine.wait_for(["order", "account"], head, time.monotonic() + 60)
        records = await all_recorded(log)
        assert keyed(await one.rows(Order), "order") == fold_events(orders(), records, {})
        assert keyed(await one.rows(Account), "name") == fold_events(accounts(), records, {})
        assert all(v.ok for v in await verify(log, one.codec, one.store, one.projections))


async def test_a_step_from_a_checkpoint_that_moved_writes_nothing(tmp_path: Path) -> None:
    async with World([orders()]) as world:
        await world.append(*placed(1, 2, 3))
        await world.engine.catch_up()
        stale = world.engine.spans.of("order")[0].checkpoint
        await world.append(*placed(4))
        await world.engine.catch_up()
        assert await world.store.apply([Change(stale, stale, {}, ())]) == [False]
        before = (await world.store.checkpoints())["order"][0]
        await world.sql("UPDATE diptych_checkpoints SET count = count + 1")
        await world.append(*placed(5))
        follower = world.engine.spans.of("order")[0]
        await world.engine._turn([follower], None, settle=True)
        await world.engine._written()
        assert follower.state == "standby"
        assert "o5" not in keyed(await world.rows(Order), "order")
        assert (await world.store.checkpoints())["order"][0].position == before.position


class CutStore:
    """A store that fails, before or after what it was asked to do."""

    def __init__(self, world: World, pattern: Sequence[str]) -> None:
        self.real = world.store
        self.pattern = list(pattern)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        how = self.pattern.pop() if self.pattern else "well"
        if how == "before":
            raise Unavailable("planted: before")
        moved = await self.real.apply(changes)
        if how == "after":
            raise Unavailable("planted: after")
        return moved


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["before", "after", "well"]), max_size=8), st.integers(1, 9))
async def test_failures_between_and_around_commits_lose_and_double_nothing(
    pattern: list[str], page: int
) -> None:
    async with World([orders(), accounts()], page=page) as world:
        world.engine.spans.store = cast(Any, CutStore(world, pattern))
        for n in range(12):
            await world.append(*placed(n), Moved("a", "b", n))
        for _ in range(len(pattern) + 1):
            try:
                await world.engine.catch_up()
                break
            except Unavailable:
                continue
        records = await all_recorded(world.log)
        assert keyed(await world.rows(Account), "name") == fold_events(accounts(), records, {})
        verdicts = await verify(world.log, world.codec, world.store, world.projections)
        assert all(v.ok for v in verdicts), verdicts


async def test_a_new_process_goes_on_where_the_last_commit_was(tmp_path: Path) -> None:
    log = MemoryLog()
    for n in range(5):
        await append(log, *placed(n), Moved("a", "b", n))
        world = World([orders(), accounts()], log=log, path=tmp_path / "v.db", page=3)
        async with world:
            if n % 2:
                task = asyncio.create_task(world.engine.catch_up())
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            else:
                await world.engine.catch_up()
    async with World([orders(), accounts()], log=log, path=tmp_path / "v.db") as world:
        await world.engine.catch_up()
        records = await all_recorded(log)
        assert keyed(await world.rows(Account), "name") == fold_events(accounts(), records, {})
        assert all(v.ok for v in await verify(log, world.codec, world.store, world.projections))


# --- foreign checkpoints --------------------------------------------------------------------------


async def refused(world: World) -> str:
    await world.engine.open()
    status = {s.projection: s for s in await world.engine.status()}
    assert status["order"].state == "refused"
    with pytest.raises(ForeignCheckpoint):
        await world.engine.catch_up()
    await world.store.close()
    return status["order"].error or ""


async def test_a_checkpoint_of_another_log_is_refused(tmp_path: Path) -> None:
    async with World([orders()], path=tmp_path / "v.db") as world:
        await world.append(*placed(1))
        await world.engine.catch_up()
    other = World([orders()], path=tmp_path / "v.db")
    await other.append(*placed(1))
    assert "belongs to another log" in await refused(other)
    # What the error says mends it.
    async with World([orders()], log=other.log, path=tmp_path / "v.db") as world:
        rewound = await Steering(world.log, world.codec, [world.engine]).rewind("order")
        assert (rewound.before, rewound.position) == (1, 0)
        await world.engine.open()
        await world.engine.catch_up()
        records = await all_recorded(world.log)
        assert keyed(await world.rows(Order), "order") == fold_events(orders(), records, {})
        verdicts = await verify(world.log, world.codec, world.store, world.projections)
        assert all(verdict.ok for verdict in verdicts)


class Restored(MemoryLog):
    """A log with the identity of another."""

    def __init__(self, original: MemoryLog) -> None:
        super().__init__()
        self._identity = original.identity


async def test_a_log_that_lost_events_is_noticed(tmp_path: Path) -> None:
    log = MemoryLog()
    async with World([orders()], log=log, path=tmp_path / "v.db") as world:
        await world.append(*placed(1, 2, 3))
        await world.engine.catch_up()
    restored = Restored(log)
    await append(restored, *placed(1))
    world = World([orders()], log=restored, path=tmp_path / "v.db")
    assert "beyond the head" in await refused(world)
    await append(restored, *placed(7, 8, 9))
    world = World([orders()], log=restored, path=tmp_path / "v.db")
    assert "has gone on differently" in await refused(world)


async def test_a_checkpoint_whose_tallies_were_changed_by_hand_is_refused() -> None:
    async with World([orders()]) as world:
        await world.append(*placed(1, 2))
        await world.engine.catch_up()
        await world.sql("UPDATE diptych_checkpoints SET tallies = ?", bytes(24))
        await world.append(*placed(3))
        for follower in world.engine.spans:
            follower.forget()
        with pytest.raises(ForeignCheckpoint, match="changed by hand"):
            await world.engine.catch_up()


async def test_others_go_on_when_one_is_refused() -> None:
    async with World([orders(), accounts()]) as world:
        await world.append(*placed(1), Moved("a", "b", 1))
        await world.engine.catch_up()
        await world.sql("UPDATE diptych_checkpoints SET log = 'x' WHERE projection = 'order'")
        await world.engine.open()
        await world.engine.start()
        head = await world.append(Moved("a", "b", 1))
        assert await world.engine.wait_for(["account"], head, time.monotonic() + 30)
        assert not await world.engine.wait_for(["order"], head, time.monotonic())


async def test_a_checkpoint_that_is_gone_is_not_begun_anew_over_old_rows() -> None:
    async with World([orders()]) as world:
        await world.append(*placed(1))
        await world.engine.catch_up()
        await world.sql("DELETE FROM diptych_checkpoints")
        world.engine.spans.of("order")[0].forget()
        await world.append(*placed(2))
        with pytest.raises(ForeignCheckpoint, match="has no checkpoint"):
            await world.engine.catch_up()
        assert (await world.engine.status())[0].state == "refused"


async def test_a_table_that_was_dropped_is_not_made_anew_and_empty(tmp_path: Path) -> None:
    """It is refused; and doing as the text says, views are built anew from the log."""
    log = MemoryLog()
    async with World([orders(), accounts()], log=log, path=tmp_path / "v.db") as world:
        await world.append(*placed(1, 2))
        await world.engine.catch_up()
        await world.sql("DROP TABLE account")
        await world.engine.open()  # made before the first event that concerns it
        await world.sql('DROP TABLE "order"')
        for _ in range(2):
            with pytest.raises(ViewLost, match="Restore the table; or delete") as refused:
                await world.engine.open()
            assert (refused.value.projection, refused.value.table) == ("order", "order")
            assert (refused.value.position, refused.value.applied) == (2, 2)
        for table in ("diptych_checkpoints", "diptych_blocks"):
            await world.sql(f"DELETE FROM {table} WHERE projection = 'order'")
    async with World([orders(), accounts()], log=log, path=tmp_path / "v.db") as world:
        await world.engine.catch_up()
        assert len(await world.rows(Order)) == 2
        assert all(one.ok for one in await verify(log, world.codec, world.store, [orders()]))


class Away:
    """A log that cannot be read for a while."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.failures = 3

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def read(self, *args: Any, **options: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise OSError("away")
        return await self._log.read(*args, **options)


async def test_the_engine_survives_what_it_does_not_know() -> None:
    async with World([orders()]) as world:
        away = Away(world.log)
        world.engine.log = cast(Any, away)
        head = await world.append(*placed(1))
        await world.engine.start()
        assert await world.engine.wait_for(["order"], head, time.monotonic() + 30)
        assert away.failures == 0
        assert (await world.engine.status())[0].error is None


# --- status, cache --------------------------------------------------------------------------------


async def test_lag_is_told_in_events_and_in_seconds() -> None:
    async with World([orders()]) as world:
        await world.append(*placed(1), age=100)
        await world.append(*placed(2), age=50)
        status = (await world.engine.status())[0]
        assert (status.position, status.head, status.lag) == (0, 2, 2)
        assert 100 <= status.lag_seconds < 1000
        await world.engine.catch_up()
        status = (await world.engine.status())[0]
        assert (status.lag, status.lag_seconds) == (0, 0.0)


def test_a_row_cache_knows_absence_and_forgets_the_oldest() -> None:
    cache = RowCache(4)
    cache.keep({"a": 1, "b": None})
    assert cache.find(["a", "b", "c"]) == ({"a": 1, "b": None}, ["c"])
    cache.keep({"c": 3, "d": 4})
    cache.trim()
    cache.keep({"e": 5, "f": 6})
    assert cache.find(["a"]) == ({"a": 1}, [])  # it may not be in the store yet
    cache.keep({"g": 7, "h": 8})
    cache.trim()
    assert cache.find(["a"]) == ({}, ["a"])
    cache.clear()
    assert cache.find(["e"]) == ({}, ["e"])
