"""What was changed by hand in the books concerns its own projection only, and is never right."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest

from diptych.errors import ForeignCheckpoint
from diptych.read.parking.desk import Pause
from diptych.read.parking.steering import Steering
from diptych.read.port import Change, Parked
from diptych.read.proving.verify import Verdict, verify
from tests.read.backends import OnPostgres
from tests.read.world import Moved, Order, World, accounts, orders, placed

pytestmark = pytest.mark.usefixtures("backend")

IN_ALL = (
    "digest = 'zz'",
    "digest = ''",
    "digest = upper(digest)",
    "digest = ' ' || substr(digest, 2)",
)
IN_SQLITE = (
    "digest = x'00'",
    "digest = 5",
    "tallies = 'zz'",
    "tallies = 5",
    "count = 'many'",
    "position = 'far'",
    "position = 1.5",
    "position = -1",
    "slices = 'x'",
    "slice = 'x'",
    "revision = 'x'",
)


async def at_three(world: World) -> None:
    await world.append(*placed(1, 2, 3), Moved("a", "b", 1))
    await world.engine.catch_up()


async def verdicts_of(world: World) -> dict[str, Verdict]:
    found = await verify(world.log, world.codec, world.store, world.projections)
    return {verdict.projection: verdict for verdict in found}


async def require_mended_by_rewind(world: World) -> None:
    await Steering(world.log, world.codec, [world.engine]).rewind("order")
    await world.engine.doubt()
    await world.engine.catch_up()
    assert all(verdict.ok for verdict in (await verdicts_of(world)).values())
    assert len(await world.rows(Order)) == 4


@pytest.mark.parametrize("change", [*IN_ALL, "tallies = ?", *IN_SQLITE])
async def test_a_checkpoint_that_cannot_be_read_stops_its_own_projection(change: str) -> None:
    async with World([orders(), accounts()]) as world:
        if isinstance(world.backend, OnPostgres) and change in IN_SQLITE:
            return  # its columns take no such value
        await at_three(world)
        values = [b"x"] if "?" in change else []
        where = "WHERE projection = 'order'"
        await world.sql(f"UPDATE diptych_checkpoints SET {change} {where}", *values)
        found = await verdicts_of(world)
        assert (found["order"].ok, found["order"].outcome) == (False, "refused")
        assert "changed by hand" in found["order"].reason
        assert "diptych projections rewind order" in found["order"].remedy
        assert found["account"].ok
        assert await world.rows(Order)  # queries are answered

        # Others go on, in this process and in one that starts now; the damaged one does not.
        for follower in world.engine.spans:
            follower.forget()
        await world.append(*placed(4), Moved("a", "b", 2))
        with pytest.raises(ForeignCheckpoint, match="changed by hand"):
            await world.engine.catch_up()
        states = {one.projection: one for one in await world.engine.status()}
        assert (states["order"].state, states["account"].state) == ("refused", "running")
        assert "changed by hand" in (states["order"].error or "")
        assert states["account"].lag == 0
        await world.engine.open()

        # Nor do several workers that would share it make sound sums of it.
        before = await world.sql("SELECT * FROM diptych_checkpoints WHERE projection = 'order'")
        await world.store.recut("order", [32])
        after = await world.sql("SELECT * FROM diptych_checkpoints WHERE projection = 'order'")
        assert after == before

        await require_mended_by_rewind(world)


@pytest.mark.parametrize(
    "change",
    [*IN_ALL, "digest = x'00'", "digest = 5", "count = 'x'", "block = 'x'"],
)
async def test_a_block_that_cannot_be_read_stays_wrong(change: str) -> None:
    async with World([orders(), accounts()]) as world:
        if isinstance(world.backend, OnPostgres) and change not in IN_ALL:
            return
        await at_three(world)
        await world.sql(f"UPDATE diptych_blocks SET {change} WHERE projection = 'order'")
        for follower in world.engine.spans:
            follower.forget()
        for _ in range(2):  # as it is, and after a step that adds to it
            found = await verdicts_of(world)
            assert (found["order"].ok, found["order"].outcome) == (False, "compared")
            assert "not the sum of its blocks" in found["order"].reason
            assert "diptych projections rewind order" in found["order"].remedy
            assert found["account"].ok
            await world.append(*placed(4), Moved("a", "b", 2))
            await world.engine.catch_up()
        await require_mended_by_rewind(world)


async def test_a_worker_that_runs_finds_the_damage_and_says_so() -> None:
    async with World([orders(), accounts()]) as world:
        await at_three(world)
        await world.engine.start()
        await world.sql("UPDATE diptych_checkpoints SET digest = 'zz' WHERE projection = 'order'")
        await world.append(*placed(4), Moved("a", "b", 2))
        async with asyncio.timeout(30):
            while {one.state for one in world.engine.spans} != {"running", "refused"}:
                await asyncio.sleep(0.01)
            await world.engine.wait_for(["account"], 6, asyncio.get_running_loop().time() + 30)
        (order,) = world.engine.spans.of("order")
        assert "changed by hand" in str(order.error)


@pytest.mark.parametrize(
    "change", ["tallies = ?", "reach = ?", "unknown = 'no JSON'", "time = 'noon'", "count = 'x'"]
)
async def test_a_proof_that_cannot_be_read_is_none(change: str) -> None:
    async with World([orders(), accounts()]) as world:
        postgres = isinstance(world.backend, OnPostgres)
        await at_three(world)
        await verdicts_of(world)
        if postgres and change[:4] in ("time", "coun"):
            return
        damage = {"tallies = ?": b"x", "reach = ?": [None] if postgres else "[null]"}
        values = [damage[change]] if change in damage else []
        await world.sql(f"UPDATE diptych_proofs SET {change} WHERE projection = 'order'", *values)
        await world.engine.status()
        found = await verify(world.log, world.codec, world.store, world.projections, since="last")
        assert [verdict.ok for verdict in found] == [True, True]
        assert all(one.proved and one.proved.ok for one in await world.engine.status())


@pytest.mark.parametrize("time", ["noon", "2026-01-01T12:00:00", 5])
async def test_a_time_that_is_none_ends_nothing(time: object) -> None:
    async with World([orders(), accounts()]) as world:
        if isinstance(world.backend, OnPostgres):
            time = datetime(2026, 1, 1, tzinfo=UTC)
        await at_three(world)
        now = datetime.now(UTC)
        parked = Parked("account", '"a"', 4, 0, 1, "e", "moved", now, now, "E", "no")
        await world.store.desk.pause(Pause("order", now, "ada", "why"))
        (span,) = (await world.store.checkpoints())["account"]
        after = msgspec.structs.replace(span, revision=span.revision + 1)
        assert await world.store.apply([Change(span, after, {}, parked=(parked,))]) == [True]
        for table, column in (
            ("checkpoints", "time"),
            ("pauses", "since"),
            ("versions", "since"),
            ("parked", "time"),
            ("parked", "since"),
            ("parked", "decided"),
        ):
            await world.sql(f"UPDATE diptych_{table} SET {column} = ?", time)
        assert len(await world.engine.status()) == 2
        assert len(await world.store.desk.parked("account")) == 1
        await world.store.versions()
        await verdicts_of(world)
        assert await Steering(world.log, world.codec, [world.engine]).resume("order")
