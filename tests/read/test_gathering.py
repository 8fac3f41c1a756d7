"""Steps of several pages are written as one, and what is surely new is not looked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from diptych.logs.memory import MemoryLog
from diptych.read.following.fold import RowCache
from diptych.read.following.follower import Follower
from diptych.read.following.gathering import Gathering
from diptych.read.following.unseen import Unseen
from diptych.read.port import Change, Tally, Writes
from diptych.read.projections import fold_events
from tests.read.world import (
    Account,
    Deleted,
    Moved,
    Order,
    World,
    accounts,
    all_recorded,
    append,
    codec,
    keyed,
    orders,
    placed,
)

pytestmark = pytest.mark.usefixtures("backend")


def _follower() -> Follower:
    return Follower(accounts(), codec(), 100)


def _written(changes: list[dict[str, Any]]) -> tuple[dict[str, int], Writes]:
    """Gather steps; return the rows that a table then has which had "old" in it, and the writes."""
    follower = _follower()
    gathering = Gathering(100)
    for position, one in enumerate(changes, 1):
        before = follower.checkpoint
        after = type(before)(**{f: getattr(before, f) for f in before.__struct_fields__})
        rows = [Account(name, number, 0) for name, number in one.get("rows", {}).items()]
        writes = Writes(Account, rows, one.get("deleted", []), {}, one.get("new", 0))
        gathering.add([(follower, 0, Change(before, after, {position: Tally(1, 1)}, (writes,)))])
    ((_, _, change),) = gathering.take()
    assert change.blocks == {n: Tally(1, 1) for n in range(1, len(changes) + 1)}
    (writes,) = change.writes
    table = {"old": 0}
    for row in writes.rows[: writes.new]:
        assert row.name not in table  # inserted, not replaced
        table[row.name] = row.balance
    table |= {row.name: row.balance for row in writes.rows[writes.new :]}
    for key in writes.deleted:
        assert table.pop(key, None) is not None
    return table, writes


def test_a_row_that_came_in_one_step_and_changed_in_the_next_is_inserted_once() -> None:
    table, writes = _written([{"rows": {"a": 1, "old": 1}, "new": 1}, {"rows": {"a": 2}}])
    assert (table, writes.new, len(writes.rows)) == ({"a": 2, "old": 1}, 1, 2)


def test_a_row_that_came_and_went_leaves_nothing_to_be_done() -> None:
    table, writes = _written([{"rows": {"a": 1}, "new": 1}, {"deleted": ["a"]}])
    assert (table, writes.rows, writes.deleted) == ({"old": 0}, [], [])


def test_a_row_that_went_and_came_again_is_replaced_not_inserted() -> None:
    table, writes = _written([{"deleted": ["old"]}, {"rows": {"old": 5}, "new": 1}])
    assert (table, writes.new, writes.deleted) == ({"old": 5}, 0, [])


def test_steps_that_came_before_one_that_failed_are_not_written() -> None:
    follower = _follower()
    gathering = Gathering(100)
    gathering.add([(follower, 0, Change(follower.tip, follower.tip, {}))])
    follower.forget()
    assert gathering.take() == []
    assert not gathering


@pytest.mark.parametrize(("held", "transactions"), [(60.0, 1), (0.0, 5)])
async def test_after_a_rest_the_first_page_waits_for_others_unless_it_takes_long(
    held: float, transactions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction of its own would touch most of the pages that the next one touches again."""
    monkeypatch.setattr("diptych.read.following.gathering.HELD_SECONDS", held)
    async with World([orders()], page=50) as world:
        await world.append(*placed(*range(225)))
        written: list[int] = []
        apply = world.engine.store.apply

        async def counted(changes: Sequence[Change]) -> list[bool]:
            written.append(changes[0].after.position)
            return await apply(changes)

        monkeypatch.setattr(world.engine.store, "apply", counted)
        await world.engine.catch_up()
        assert len(written) == transactions
        assert written[-1] == 225


@pytest.mark.parametrize("kind", [str, int, lambda n: (n, str(n))])
def test_a_key_that_was_noted_is_never_taken_for_a_new_one(kind: Any) -> None:
    unseen = Unseen()
    keys = [kind(n) for n in range(20_000)]
    taken = unseen.note(keys)
    assert len(taken) < 20  # each of them would be looked for in vain
    assert unseen.note(keys) == keys


async def _loads(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    asked: list[int] = []
    store = world.engine.store
    load = store.load

    async def counted(view: Any, keys: Any) -> Any:
        asked.append(len(keys))
        return await load(view, keys)

    monkeypatch.setattr(store, "load", counted)
    await world.engine.catch_up()
    return asked


async def test_what_begins_at_nothing_looks_for_rows_that_may_be_there_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what goes on from where others were looks for all of them."""
    log, path = MemoryLog(), tmp_path / "v.db"
    await append(log, *placed(*range(1000)))
    async with World([orders()], log=log, path=path, page=50, cache_rows=4) as world:
        assert sum(await _loads(world, monkeypatch)) < 100
    await append(log, *placed(*range(500, 1500)), *map(Deleted, ["o7", "o1400"]))
    async with World([orders()], log=log, path=path, page=50, cache_rows=4) as world:
        assert sum(await _loads(world, monkeypatch)) > 1000
        records = await all_recorded(log)
        assert keyed(await world.rows(Order), "order") == fold_events(orders(), records, {})


async def _resumed(path: Path) -> bool:
    """Whether rows are right, before and after another process has gone on with them."""
    log = MemoryLog()
    for _ in range(2):
        await append(log, *(Moved(f"a{n % 7}", f"a{n % 5}", n) for n in range(200)))
        async with World([accounts()], log=log, path=path, page=50) as world:
            await world.engine.catch_up()
            records = await all_recorded(log)
            rows = keyed(await world.rows(Account), "name")
            if rows != fold_events(accounts(), records, {}):
                return False
    return True


async def test_what_goes_on_takes_no_key_for_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted bug: after a resume no rows are looked for, as if there were none."""
    assert await _resumed(tmp_path / "v.db")
    sound = Follower.reload

    async def careless(self: Follower, *places: Any) -> bool:
        found = await sound(self, *places)
        self.cache.begin()
        self.cache.possible([])  # as if some had been asked for
        return found

    monkeypatch.setattr(Follower, "reload", careless)
    assert not await _resumed(tmp_path / "w.db")


async def test_rows_that_are_written_late_are_not_forgotten_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted bug: a row is dropped from memory while its step is held back, and read as it was."""

    async def fits(path: Path) -> bool:
        log = MemoryLog()
        await append(log, *(Moved(f"a{n % 7}", f"a{n % 5}", n) for n in range(200)))
        async with World([accounts()], log=log, path=path, page=5, cache_rows=2) as world:
            await world.engine.catch_up()
            records = await all_recorded(log)
            rows = keyed(await world.rows(Account), "name")
            return rows == fold_events(accounts(), records, {})

    assert await fits(tmp_path / "v.db")
    keep = RowCache.keep

    def careless(self: RowCache, rows: dict[Any, Any], upto: int = 0) -> None:
        keep(self, rows, upto)
        self.trim()

    monkeypatch.setattr(RowCache, "keep", careless)
    assert not await fits(tmp_path / "w.db")


async def test_a_row_that_nobody_has_folded_does_not_stop_what_is_inserted(tmp_path: Path) -> None:
    """What is to be inserted is there already: the step is made again, in smaller parts."""
    log = MemoryLog()
    await append(log, *(Moved(f"a{n}", f"b{n}", n) for n in range(300)))
    async with World([accounts()], log=log, path=tmp_path / "v.db", page=200) as world:
        async with world.store.session() as transaction:
            await transaction.put(Account("a250", 0, 0))
        await world.engine.catch_up()
        records = await all_recorded(log)
        assert keyed(await world.rows(Account), "name") == fold_events(accounts(), records, {})
        assert (await world.engine.status())[0].parked_keys == 0
