"""Steps of several pages are written as one, and what is surely new is not looked for."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from diptych.codec import Codec
from diptych.logs.memory import MemoryLog
from diptych.read.following.engine import Engine
from diptych.read.following.fold import RowCache
from diptych.read.following.follower import Follower
from diptych.read.following.gathering import Gathering
from diptych.read.following.unseen import Unseen
from diptych.read.port import Change, Tally, Writes
from tests.read.world import (
    Account,
    Order,
    World,
    accounts,
    all_recorded,
    append,
    fold_events,
    keyed,
    orders,
    random_events,
)


def _follower() -> Follower:
    codec = Codec()
    codec.register(accounts().events)
    return Follower(accounts(), codec, 100)


def _written(changes: list[dict[str, Any]]) -> tuple[dict[str, int], Writes]:
    """Gather steps; return the rows that a table then has which had "old" in it, and the writes."""
    follower = _follower()
    gathering = Gathering(100)
    for position, one in enumerate(changes, 1):
        before = follower.checkpoint
        after = type(before)(**{f: getattr(before, f) for f in before.__struct_fields__})
        rows = [Account(name, number) for name, number in one.get("rows", {}).items()]
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
    log = MemoryLog()
    events = random_events(random.Random(1), 2000)
    await append(log, *events[:1000])
    async with World([orders()], log=log, path=tmp_path / "v.db", page=50) as world:
        first = await _loads(world, monkeypatch)
        rows = await world.rows(Order)
        assert sum(first) < len(rows) / 2
    await append(log, *events[1000:])
    async with World([orders()], log=log, path=tmp_path / "v.db", page=50) as world:
        assert sum(await _loads(world, monkeypatch)) > 0
        records = await all_recorded(log)
        assert keyed(await world.rows(Order), "order") == fold_events(orders(), records, {})
