"""Rows are compared with what the events come to: whatever was changed by hand is named."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from diptych.codec import Codec
from diptych.errors import ProjectionFailed
from diptych.read.projections import Keyed, projection
from diptych.read.proving import rowcheck
from diptych.read.proving.rowcheck import Column, RowFault, RowVerdict, verify_rows
from diptych.read.proving.verify import verify
from tests.read.world import (
    Account,
    Moved,
    Order,
    Placed,
    World,
    accounts,
    order,
    orders,
    placed,
)

pytestmark = pytest.mark.usefixtures("backend")


async def built(*projections: Keyed) -> World:
    world = World(projections or [orders(), accounts()])
    await world.engine.open()
    for n in range(60):
        await world.append(*placed(n), Moved(f"k{n % 9}", f"k{n % 5}", n))
    await world.engine.catch_up()
    return world


async def judged(world: World, which: int = 0, **options: Any) -> RowVerdict:
    one = world.projections[which]
    assert isinstance(one, Keyed)
    return await verify_rows(world.log, world.codec, world.store, one, **options)


@pytest.mark.parametrize("rows_at_a_time", [7, 100_000])
async def test_rows_that_are_right_are_found_right(
    monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int
) -> None:
    monkeypatch.setattr(rowcheck, "MOST_ROWS", rows_at_a_time)
    monkeypatch.setattr(rowcheck, "PAGE", 11)
    world = await built()
    found = [await judged(world, which) for which in (0, 1)]
    assert [(v.projection, v.ok, v.rows, v.reason) for v in found] == [
        ("order", True, 60, ""),
        ("account", True, 9, ""),
    ]
    await world.store.close()


PAID = Column("status", "placed", "paid")


@pytest.mark.parametrize("rows_at_a_time", [7, 100_000])
async def test_rows_changed_by_hand_are_named(
    monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int
) -> None:
    """Changed, deleted, or put there: ``verify`` of the effects cannot know of it."""
    monkeypatch.setattr(rowcheck, "MOST_ROWS", rows_at_a_time)
    world = await built()
    table = Order.__view__.table_name
    await world.sql(
        f"UPDATE \"{table}\" SET status = 'paid', customer = 'eve' WHERE \"order\" = 'o7'"
    )
    await world.sql(f"UPDATE \"{table}\" SET status = 'paid' WHERE \"order\" = 'o9'")
    await world.sql(f'DELETE FROM "{table}" WHERE "order" = \'o8\'')
    async with world.store.session() as tx:
        await tx.put(Order("o99", "eve", Decimal(1), "placed"))
    assert all(v.ok for v in await verify(world.log, world.codec, world.store, world.projections))
    verdict = await judged(world)
    assert not verdict.ok
    assert (verdict.rows, verdict.differing) == (61, 4)
    assert verdict.columns == {"customer": 1, "status": 2}
    assert sorted(verdict.faults, key=lambda fault: fault.key) == [
        RowFault(
            "different",
            "o7",
            [Column("customer", "ada", "eve"), Column("status", "placed", "paid")],
        ),
        RowFault("missing", "o8"),
        RowFault("different", "o9", [Column("status", "placed", "paid")]),
        RowFault("extra", "o99"),
    ]
    assert "1 row is missing; 1 row is not to be there; 2 rows are different" in verdict.reason
    assert len((await judged(world, most=2)).faults) == 2
    assert (await judged(world, 1)).ok
    await world.store.close()


async def test_a_sample_is_a_share_of_the_keys() -> None:
    """The same keys each time; the whole has them all."""
    world = await built()
    half = await judged(world, sample=0.5)
    assert half.ok
    assert 10 < half.rows < 50
    assert (await judged(world, sample=0.5)).rows == half.rows
    table = Order.__view__.table_name
    await world.sql(f'DELETE FROM "{table}"')
    assert (await judged(world, sample=0.5)).differing == half.rows
    assert (await judged(world)).differing == 60
    await world.store.close()


async def test_a_projection_that_goes_on_meanwhile_is_judged_rightly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows that have moved on since their events were folded aside are folded on, too."""
    monkeypatch.setattr(rowcheck, "PAGE", 3)
    world = await built()
    await world.engine.start()
    stop = False

    async def write() -> None:
        n = 1000
        while not stop:
            n += 1
            await world.append(*placed(n, n % 60), Moved(f"k{n % 9}", f"k{n % 5}", n))
            await asyncio.sleep(0.001)

    writing = asyncio.create_task(write())
    for _ in range(3):
        for which in (0, 1):
            verdict = await judged(world, which)
            assert not verdict.faults, verdict
    table = Account.__view__.table_name
    stop = True
    await writing
    await world.engine.catch_up()
    await world.sql(f"UPDATE \"{table}\" SET moves = moves + 1 WHERE name = 'k1'")
    verdict = await judged(world, 1)
    assert [(f.key, [c.name for c in f.columns]) for f in verdict.faults] == [("k1", ["moves"])]
    await world.engine.stop()
    await world.store.close()


async def test_slices_that_stand_apart_are_judged_each_where_it_is() -> None:
    world = await built()
    await world.store.recut("account", [20, 40])
    low = (await world.store.checkpoints())["account"][0]
    await world.append(*[Moved(f"k{n % 9}", f"k{n % 5}", n) for n in range(30)])
    await world.engine.spans.all()
    ahead = [f for f in world.engine.spans.of("account") if f.span.start == 20]
    for follower in ahead:
        await world.engine.spans.reload(follower)
    await world.engine._turn(ahead, None, settle=True)
    await world.engine._written()
    spans = (await world.store.checkpoints())["account"]
    assert {span.position for span in spans} == {low.position, low.position + 30}
    assert (await judged(world, 1)).ok
    await world.engine.catch_up()
    assert (await judged(world, 1)).ok
    await world.store.close()


async def test_a_fold_that_has_changed_is_told_by_its_rows() -> None:
    """Another fold of the same events gives other rows; one that fails says where."""
    world = await built(orders())

    def louder(row: Order | None, event: Placed) -> Order | None:
        return Order(event.order, event.customer.upper(), event.total, "placed")

    verdict = await verify_rows(
        world.log, world.codec, world.store, projection(louder, Order, name="order")
    )
    assert (verdict.differing, verdict.columns) == (60, {"customer": 60})

    def broken(row: Order | None, event: Placed) -> Order | None:
        assert event.order != "o3", "planted"
        return order(row, event)

    with pytest.raises(ProjectionFailed, match="planted") as told:
        await verify_rows(
            world.log, world.codec, world.store, projection(broken, Order, name="order")
        )
    assert told.value.facts["position"] == 7
    await world.store.close()


async def test_a_checkpoint_beyond_the_head_is_refused_by_rows_too() -> None:
    """As after a restore of the log alone: there is no end to reach, and a reason to name."""
    world = await built()
    await world.sql("UPDATE diptych_checkpoints SET position = position + 1000")
    async with asyncio.timeout(60):
        verdict = await judged(world)
    [plain, _] = await verify(world.log, world.codec, world.store, world.projections)
    assert (verdict.ok, verdict.rows, verdict.reason) == (False, 0, plain.reason)
    assert verdict.outcome == plain.outcome == "refused"
    assert "lies beyond the head of the log" in verdict.reason
    await world.sql("DELETE FROM diptych_checkpoints WHERE projection = 'account'")
    rows = await judged(world, 1)
    [_, plain] = await verify(world.log, world.codec, world.store, world.projections)
    assert (rows.outcome, rows.reason) == (plain.outcome, plain.reason)
    assert "by `diptych projections rewind account`" in rows.reason
    await world.store.close()


async def test_what_a_program_does_not_know_is_not_to_be_forgotten() -> None:
    """Rows were made of events of a type that it does not know: it was renamed, most likely."""
    world = await built(orders())
    await world.sql(f"UPDATE \"{Order.__view__.table_name}\" SET customer = 'eve'")
    known = Codec()
    known.register(world.projections[0].events)
    verdict = await verify_rows(world.log, known, world.store, orders())
    assert not verdict.ok
    assert "does not know (Moved" in verdict.remedy
    assert "do not rewind order before that" in verdict.remedy
    await world.store.close()
