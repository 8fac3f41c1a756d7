"""What every view store does with checkpoints: they move by compare-and-set, with their rows."""

from __future__ import annotations

import asyncio
from typing import Any

from diptych.errors import DefinitionError, NoViews, ViewLost
from diptych.read.port import Change, Checkpoint, Kept, Tally, Writes, pack
from diptych.read.select import select
from diptych.read.views import Key, View
from diptych.testing.contracts.views.making import (
    AT,
    LOG,
    VIEWS,
    Counter,
    Leg,
    Level,
    Marker,
    StoreMaker,
    by_key,
    error_of,
    put,
    replace,
    sample,
    step,
)


class Was(View, table="changing", indexes=(("name",),)):
    """A view."""

    key: Key[int]
    name: str


class IsOptional(View, table="changing", indexes=(("name",),)):
    """The same, changed."""

    key: Key[int]
    name: str | None


class HasMore(View, table="changing"):
    """The same, changed otherwise."""

    key: Key[int]
    name: str
    more: bool


class HasOtherKey(View, table="changing"):
    """The same, changed once more."""

    key: Key[int]
    name: Key[str]


class IsNew(View):
    """One that nobody has made."""

    key: Key[int]


class StepContract(StoreMaker):
    """Rows, blocks and checkpoint of a step: all of it, or nothing."""

    async def test_opening_again_changes_nothing(self) -> None:
        """New projections begin at 0; those that are there stay where they are."""
        async with self.new_store() as store:
            zero = {
                name: [Checkpoint(name, LOG, slices=one.slices, tallies=bytes(24 * one.slices))]
                for name, one in VIEWS.items()
            }
            assert await store.checkpoints() == zero
            await put(store, Counter("a", 1))
            before = await store.checkpoints()
            await store.open("another log", {**VIEWS, "new": Kept((Was,))})
            new = {"new": [Checkpoint("new", "another log")]}
            assert await store.checkpoints() == before | new
            assert (await store.all(select(Counter))).rows == [Counter("a", 1)]

    async def test_a_checkpoint_comes_back_as_it_was(self) -> None:
        """All of its fields, and the tallies of its blocks, which replace those of before."""
        async with self.new_store() as store:
            zero = (await store.checkpoints())["leg"][0]
            most = 2**128 - 1
            after = replace(
                zero,
                position=2**40,
                event_id="é-1",
                count=2**41,
                digest=most,
                time=AT,
                tallies=pack([Tally(n, most - n) for n in range(8)]),
            )
            blocks = {0: Tally(3, 5), 2**30: Tally(2**41, most)}
            assert await store.apply([Change(zero, after, blocks)]) == [True]
            assert (await store.checkpoints())["leg"][0] == after
            assert await store.proof("leg") == ([after], blocks)
            assert await store.block("leg", 0, 2**30) == Tally(2**41, most)
            for name, slice_, number in (("leg", 0, 1), ("leg", 1, 0), ("counter", 0, 0)):
                assert await store.block(name, slice_, number) == Tally()
            again = replace(after, position=after.position + 1)
            assert await store.apply([Change(after, again, {0: Tally(4, 6), 1: Tally(1, 1)})])
            blocks |= {0: Tally(4, 6), 1: Tally(1, 1)}
            assert await store.proof("leg") == ([again], blocks)
            assert await store.proof("unknown") == ([], {})

    async def test_a_step_from_a_checkpoint_that_moved_writes_nothing(self) -> None:
        """Whichever of its fields is another: no row, no deletion, no block, no checkpoint."""
        async with self.new_store() as store:
            await put(store, Counter("a", 1), Counter("b", 2))
            stands = (await store.checkpoints())["counter"][0]
            stale: list[dict[str, Any]] = [
                {"position": stands.position - 1},
                {"position": stands.position + 1},
                {"count": stands.count + 1},
                {"digest": stands.digest + 1},
                {"log": "another"},
                {"slice": 1},
                {"slices": 2},
                {"projection": "unknown"},
            ]
            for fields in stale:
                change = step(
                    replace(stands, **fields),
                    Counter("a", 9),
                    Counter("c", 9),
                    deleted=["b"],
                    blocks={0: Tally(9, 9)},
                )
                assert await store.apply([change]) == [False], fields
            assert await store.proof("counter") == ([stands], {})
            rows = (await store.all(select(Counter).order_by(Counter.name))).rows
            assert rows == [Counter("a", 1), Counter("b", 2)]

    async def test_steps_of_several_projections_are_judged_each_by_itself(self) -> None:
        """In one transaction; the answers are in the order of the steps."""
        async with self.new_store() as store:
            at = {name: spans[0] for name, spans in (await store.checkpoints()).items()}
            stale = replace(at["everything"], count=7)
            leg = Leg(1, AT.date(), sample("x").level, "leg")
            changes = [step(at["leg"], leg), step(stale, sample("x")), step(at["counter"])]
            assert await store.apply(changes) == [True, False, True]
            moved = await store.checkpoints()
            assert {n: c.position for n, (c,) in moved.items()} == {
                "leg": 1, "everything": 0, "counter": 1,
            }  # fmt: skip
            assert (await store.all(select(Leg))).rows == [leg]

    async def test_one_step_that_cannot_be_written_keeps_all_from_being(self) -> None:
        """Nothing of the transaction is left behind."""
        async with self.new_store() as store:
            at = await store.checkpoints()
            missing: Any = None
            changes = [
                step(at["counter"][0], Counter("a", 1)),
                step(at["everything"][0], sample("x", text=missing)),
            ]
            await error_of(store.apply(changes), Exception)
            assert await store.checkpoints() == at
            assert (await store.all(select(Counter))).rows == []

    async def test_of_many_steps_from_one_checkpoint_one_is_made(self) -> None:
        """Racers, on several connections where there are such, end with one winner's rows."""
        async with self.new_store() as store:
            other = await self.same(store) or store
            for round_ in range(10):
                at = (await store.checkpoints())["counter"][0]
                steps = [step(at, Counter("a", n), Counter(f"{n}", n)) for n in range(8)]
                racers = [(store, other)[n % 2].apply([one]) for n, one in enumerate(steps)]
                went = [moved for (moved,) in await asyncio.gather(*racers)]
                assert went.count(True) == 1, (round_, went)
                winner = went.index(True)
                (row,) = (await store.get(Counter, "a")).rows
                assert row.value == winner
                names = {r.name for r in (await store.all(select(Counter))).rows}
                assert names == {"a", f"{winner}"}
                await put(store, deleted=[f"{winner}"], view=Counter)
            if other is not store:
                await other.close()

    async def test_many_new_rows_are_written_as_few_are(self) -> None:
        """However a store inserts them: they stand beside what is replaced and deleted."""
        async with self.new_store() as store:
            few = [Leg(n, AT.date(), Level.LOW, "old") for n in range(3)]
            await put(store, *few)
            stands = (await store.checkpoints())["leg"][0]
            many = [Leg(n, AT.date(), Level.HIGH, f"é{n}") for n in range(2500)]
            changed = Leg(1, AT.date(), Level.LOW, "changed")
            gone = [(2, AT.date(), Level.LOW)]
            writes = (Writes(Leg, [*many, changed], gone, new=len(many)),)
            change = replace(step(stands), writes=writes)
            assert await store.apply([change]) == [True]
            wanted = [few[0], changed, *many]
            assert by_key((await store.all(select(Leg))).rows) == by_key(wanted)

    async def test_many_new_rows_of_a_step_that_is_not_made_are_not_there(self) -> None:
        """Whoever comes too late inserts nothing, be it much; his neighbours' steps are made."""
        async with self.new_store() as store:
            stored = await store.checkpoints()
            late, stands = stored["leg"][0], stored["counter"][0]
            await put(store, Leg(0, AT.date(), Level.LOW, "first"))
            many = [Leg(n, AT.date(), Level.HIGH, "late") for n in range(300)]
            counters = [Counter(f"c{n}", n) for n in range(300)]
            steps = [
                replace(step(late), writes=(Writes(Leg, many, [], new=300),)),
                replace(step(stands), writes=(Writes(Counter, counters, [], new=300),)),
            ]
            assert await store.apply(steps) == [False, True]
            assert (await store.all(select(Leg))).rows == [Leg(0, AT.date(), Level.LOW, "first")]
            assert len((await store.all(select(Counter))).rows) == 300

    async def test_a_step_whose_new_rows_are_there_already_is_made_in_full_or_not_at_all(
        self,
    ) -> None:
        """Rows that nobody has written in a step: they are replaced, or the step is refused."""
        async with self.new_store() as store:
            await put(store, Counter("c7", -1))
            stands = (await store.checkpoints())["counter"][0]
            counters = [Counter(f"c{n}", n) for n in range(300)]
            change = replace(step(stands), writes=(Writes(Counter, counters, [], new=300),))
            try:
                made = await store.apply([change])
            except Exception:
                made = [False]
            found = by_key((await store.all(select(Counter))).rows)
            after = (await store.checkpoints())["counter"][0]
            if made == [True]:
                assert (after, found) == (change.after, by_key(counters))
            else:
                assert (after, found) == (stands, {"c7": Counter("c7", -1)})

    async def test_several_may_open_a_new_database_at_once(self) -> None:
        """Each finds all tables made."""
        store = await self.make_store()
        others = [await self.same(store) for _ in range(3)]
        stores = [store, *[other for other in others if other is not None]]
        try:
            await asyncio.gather(*[one.open(LOG, VIEWS) for one in stores])
            for one in stores:
                assert set(await one.checkpoints()) == set(VIEWS)
        finally:
            for one in stores:
                await one.close()

    async def test_opening_makes_nothing_where_it_may_not(self) -> None:
        """``NoViews`` names the projections that lack something, and they go on lacking it."""
        store = await self.make_store()
        other = await self.same(store)
        try:
            if other is None:  # a database that nobody can have made before
                return
            error = await error_of(store.open(LOG, VIEWS, create=False), NoViews)
            assert error.facts["lacking"] == ", ".join(VIEWS)
            await other.open(LOG, VIEWS)
            await put(other, Counter("a", 1))
            more = {**VIEWS, "new": Kept((Was,))}
            for _ in range(2):
                error = await error_of(store.open(LOG, more, create=False), NoViews)
                assert error.facts["lacking"] == "new"
            await store.open(LOG, VIEWS, create=False)
            assert set(await store.checkpoints()) == set(VIEWS)
            assert (await store.all(select(Counter))).rows == [Counter("a", 1)]
            await other.open(LOG, {"p": Kept((Was,))})
            await error_of(store.open(LOG, {"p": Kept((HasMore,))}, create=False), DefinitionError)
            lost = store.open(LOG, {"counter": Kept((Counter, IsNew))}, create=False)
            await error_of(lost, ViewLost)
        finally:
            await store.close()
            if other is not None:
                await other.close()

    async def test_a_table_that_is_not_there_is_made_only_before_the_first_event(self) -> None:
        """Afterwards it would pass for complete, and be empty: ``ViewLost`` names it."""
        async with self.new_store() as store:
            await put(store, Counter("a", 1))
            for _ in range(2):
                error = await error_of(store.open(LOG, {"counter": Kept((Counter, Was))}), ViewLost)
                told = {"projection": "counter", "table": "changing", "position": 1, "applied": 1}
                assert error.facts == told
            await store.open(LOG, {"counter": Kept((Counter, Marker)), "leg": Kept((Leg, Was))})
            assert (await store.all(select(Was))).rows == []
            assert (await store.all(select(Counter))).rows == [Counter("a", 1)]

    async def test_a_projection_begins_on_tables_that_are_new_or_empty(self) -> None:
        """Where rows are there, it gets no checkpoint, and is not said to be missing either."""
        async with self.new_store() as store:
            await put(store, Counter("a", 1))
            more = {**VIEWS, "second": Kept((Counter,)), "third": Kept((Was,))}
            for create in (True, True, False):
                await store.open(LOG, more, create=create)
                assert set(await store.checkpoints()) == {*VIEWS, "third"}
            assert (await store.all(select(Counter))).rows == [Counter("a", 1)]

    async def test_a_table_of_other_columns_is_refused(self) -> None:
        """Another type, another key, more or fewer columns: ``DefinitionError`` names them."""
        async with self.new_store() as store:
            await store.open(LOG, {"p": Kept((Was,))})
            await store.open(LOG, {"p": Kept((Was,))})
            for view, changed in ((IsOptional, "name"), (HasMore, "more"), (HasOtherKey, "name")):
                error = await error_of(store.open(LOG, {"p": Kept((view,))}), DefinitionError)
                assert error.facts["changed"] == changed
