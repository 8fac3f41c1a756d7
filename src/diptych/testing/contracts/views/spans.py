"""What every view store does with spans of slices, with workers, and with what was proved."""

from __future__ import annotations

import asyncio
from typing import Any

from diptych.errors import CheckpointMoved
from diptych.read.port import (
    Change,
    Checkpoint,
    Proof,
    Tally,
    Version,
    ViewStore,
    Worker,
    definition_of,
    pack,
)
from diptych.testing.contracts.views.making import (
    AT,
    LOG,
    VIEWS,
    Counter,
    StoreMaker,
    error_of,
    put,
    replace,
    step,
)

TALLIES = [Tally(n + 1, 2**127 + n) for n in range(8)]


def leg(slice_: int, slices: int, position: int = 5) -> Checkpoint:
    """Return the checkpoint of some slices of a projection, each with a tally of its own."""
    parts = TALLIES[slice_ : slice_ + slices]
    return Checkpoint(
        "leg",
        LOG,
        position,
        f"event-{position}",
        sum(t.count for t in parts),
        sum(t.digest for t in parts) % 2**128,
        AT,
        slice_,
        slices,
        pack(parts),
    )


async def stand(store: ViewStore) -> None:
    """Bring the projection to where `leg` says."""
    (zero,) = (await store.checkpoints())["leg"]
    change = Change(zero, leg(0, 8), {0: Tally(3, 3)})
    assert await store.apply([change]) == [True]


async def until_moved(store: ViewStore, before: Any) -> None:
    """Wait for a step, however long it takes, by nothing but what the store says."""
    mark = store.mark()
    while await store.checkpoints() == before:
        await store.moved(mark, 3600)
        mark = store.mark()


class SpanContract(StoreMaker):
    """Slices, workers and proofs."""

    async def test_spans_are_cut_and_joined(self) -> None:
        """Each slice keeps its own count and digest, whatever the spans; so does each block."""
        async with self.new_store() as store:
            await stand(store)
            await put(store, Counter("a", 1))
            others = (await store.checkpoints())["counter"]
            halves = [leg(0, 3), leg(3, 5)]
            assert await store.recut("leg", [3]) == halves
            assert await store.checkpoints() | {"counter": others} == await store.checkpoints()
            assert await store.proof("leg") == (halves, {0: Tally(3, 3)})
            assert await store.recut("leg", [2, 6]) == [leg(0, 2), leg(2, 4), leg(6, 2)]
            assert await store.recut("leg", []) == [leg(0, 8)]
            assert (await store.checkpoints())["leg"] == [leg(0, 8)]
            assert await store.recut("unknown", [1]) == []

    async def test_spans_move_each_by_itself_and_are_joined_when_level(self) -> None:
        """Also several of a projection in one transaction; blocks are sums over all spans."""
        async with self.new_store() as store:
            await stand(store)
            low, high = await store.recut("leg", [3])
            ahead = replace(high, position=6, event_id="event-6")
            assert await store.apply([Change(high, ahead, {0: Tally(4, 4)})]) == [True]
            assert await store.recut("leg", []) == [low, ahead]
            assert await store.block("leg", 3, 0) == Tally(4, 4)
            assert await store.proof("leg") == ([low, ahead], {0: Tally(7, 7)})
            level = replace(low, position=6, event_id="event-6")
            on = replace(ahead, position=7, event_id="event-7")
            steps = [Change(ahead, on, {}), Change(low, level, {}), Change(leg(0, 8), on, {})]
            assert await store.apply(steps[1:]) == [True, False]
            assert await store.apply(steps[:2]) == [True, False]
            last = replace(level, position=7, event_id="event-7")
            assert await store.apply([Change(level, last, {})]) == [True]
            assert await store.recut("leg", []) == [leg(0, 8, 7)]
            # The lowest position counts for those who wait.
            await store.recut("leg", [4])
            (left, _) = (await store.checkpoints())["leg"]
            assert await store.apply([Change(left, replace(left, position=9), {})])
            assert (await store.get(Counter, "a")).positions["leg"] == 7

    async def test_a_step_of_a_span_that_was_cut_is_not_made(self) -> None:
        """Neither by ``apply`` nor in a session; nor one of a span that was joined."""
        async with self.new_store() as store:
            await stand(store)
            (whole,) = (await store.checkpoints())["leg"]
            low, _ = await store.recut("leg", [3])
            assert await store.apply([step(whole)]) == [False]

            async def work() -> None:
                async with store.session() as tx:
                    await tx.move(step(whole))

            await error_of(work(), CheckpointMoved)
            await store.recut("leg", [])
            assert await store.apply([step(low)]) == [False]
            assert await store.apply([step(whole)]) == [True]

    async def test_racers_who_cut_and_step_lose_nothing(self) -> None:
        """Whoever is first: each slice's tally is there once, and each step once or not at all."""
        async with self.new_store() as store:
            other = await self.same(store) or store
            await stand(store)
            made = 0
            for round_ in range(12):
                spans = (await store.checkpoints())["leg"]
                steps = [
                    other.apply([Change(span, replace(span, position=span.position + 1), {})])
                    for span in spans
                ]
                cut = asyncio.create_task(store.recut("leg", [[], [3], [2, 6], [5]][round_ % 4]))
                made += sum(went for (went,) in await asyncio.gather(*steps))
                await cut
                now = (await store.checkpoints())["leg"]
                assert b"".join(span.tallies for span in now) == pack(TALLIES), round_
                assert [span.slice for span in now][1:] == [span.end for span in now][:-1]
            assert made
            if other is not store:
                await other.close()

    async def test_racers_who_cut_see_all_slices(self) -> None:
        """Whoever is second cuts what the first has left."""
        async with self.new_store() as store:
            other = await self.same(store) or store
            await stand(store)
            for round_ in range(12):
                cuts: list[list[int]] = [[3], [], [2, 6], [5], [1, 2, 3, 7]]
                work = [
                    (store, other)[n % 2].recut("leg", cuts[(round_ + n) % 5]) for n in range(4)
                ]
                for spans in await asyncio.gather(*work):
                    slices = [n for span in spans for n in range(span.slice, span.end)]
                    assert slices == list(range(8)), (round_, spans)
            if other is not store:
                await other.close()

    async def test_who_waits_is_told_of_steps(self) -> None:
        """Of those made through the same store, and through another on the same database."""
        async with self.new_store() as store:
            other = await self.same(store) or store
            for round_ in range(6):
                writer = (store, other)[round_ % 2]
                waiting = asyncio.create_task(until_moved(store, await store.checkpoints()))
                await put(writer, Counter("a", round_))
                await asyncio.wait_for(waiting, 60)
            await store.moved(store.mark(), 0)
            if other is not store:
                await other.close()

    async def test_workers_know_of_each_other(self) -> None:
        """While they say that they are there; in the order of their ids."""
        async with self.new_store() as store:
            one = Worker("1", "host/é", 17, ("a", "b"), ("b", "é"))
            two = Worker("2", "other", 2**31, ())
            assert await store.beat(two, 3600) == [two]
            assert await store.beat(one, 3600) == [one, two]
            more = replace(two, projections=("c",), bulk=("c",))
            assert await store.beat(more, 3600) == [one, more]
            assert await store.workers(3600) == [one, more]
            assert await store.workers(0) == []
            await store.leave("1")
            await store.leave("unknown")
            assert await store.beat(more, 3600) == [more]
            await store.beat(one, 0)  # whoever was seen longer ago than that is forgotten
            assert await store.beat(one, 3600) == [one]

    async def test_what_was_proved_is_kept(self) -> None:
        """The last of each projection, as it was."""
        async with self.new_store() as store:
            assert await store.proofs() == {}
            proof = Proof("leg", LOG, AT, True, 7, 2**40, "", [7, 2**40, 0], pack(TALLIES))
            gone = {"Gone": 3}
            other = Proof("counter", LOG, AT, False, 0, 0, "missing: é", [0], bytes(24), gone)
            for one in (other, proof):
                await store.prove(one)
            assert await store.proofs() == {"leg": proof, "counter": other}
            again = replace(proof, ok=False, position=8, reason="because")
            await store.prove(again)
            assert (await store.proofs())["leg"] == again

    async def test_versions_are_forgotten(self) -> None:
        """With all that is theirs alone, or nothing of it; and no turn is counted twice."""
        async with self.new_store() as store:
            table = definition_of(Counter).table_name
            tables = {table: table}
            await put(store, Counter("a", 1))
            counter = Version("counter", "1", "counter", tables, "live", "{}", AT)
            other = Version("other", "1", "other", tables, "live", "{}", AT)
            leg = Version("leg", "1", "leg", {}, "live", "{}", AT)
            await store.prove(Proof("counter", LOG, AT, True, 0, 0, "", [0], bytes(24)))
            noted = {one.projection: one for one in await store.claim([leg, other, counter])}
            turn = max(one.turn for one in noted.values())
            assert not await store.forget([noted["other"], replace(counter, state="old")])
            assert len(await store.versions()) == 3
            assert await store.forget([noted["counter"]])
            assert not await store.forget([noted["counter"]])
            assert "counter" not in await store.checkpoints()
            assert await store.proofs() == {}
            assert await store.load(Counter, ["a"])  # the other one is in its table
            assert await store.forget([noted["other"]])
            (left,) = await store.versions()
            assert (left.projection, left.turn > turn) == ("leg", True)
            assert "leg" in await store.checkpoints()
            await store.open(LOG, {"counter": VIEWS["counter"]})
            assert await store.load(Counter, ["a"]) == {}
