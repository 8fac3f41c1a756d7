"""What every view store does for operators: parked effects, pauses, rewinds."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from diptych.read.parking.desk import NO_KEY
from diptych.read.port import Change, Parked, ParkedKey, Pause, Proof, Tally, ViewStore, pack
from diptych.testing.contracts.views.making import (
    AT,
    LOG,
    Counter,
    Marker,
    StoreMaker,
    put,
    replace,
    step,
)
from diptych.testing.contracts.views.spans import TALLIES, leg, stand

LATER = AT + timedelta(seconds=1)
ODD = '"é\'\\u0000\\n"'


def parked(key: str, position: int, **more: Any) -> Parked:
    """Return an effect that failed."""
    made = Parked("leg", key, position, 2, 1, f"event-{position}", "Flown", AT, LATER)
    found: Parked = replace(made, **({"kind": "ValueError", "error": "é\n'", "attempts": 1} | more))
    return found


async def park(store: ViewStore, *effects: Parked, unparked: Any = ()) -> list[bool]:
    """Put effects by a step of the span they are of, at which the position moves."""
    before = (await store.checkpoints())["leg"][0]
    moved = step(before)
    return await store.apply([replace(moved, parked=effects, unparked=unparked)])


class DeskContract(StoreMaker):
    """Parked keys and pauses are as safe as checkpoints."""

    async def test_what_is_parked_comes_back_as_it_was(self) -> None:
        """By key and position; put again it takes the place of what was there."""
        async with self.new_store() as store:
            assert await store.desk.keys() == {}
            a5 = parked(ODD, 5)
            a7 = parked(ODD, 7, kind="", error="", attempts=0)
            b6 = parked("[1,2]", 6, state="skipped", actor="ada", why="é", decided=LATER)
            assert await park(store, a7, b6, a5) == [True]
            assert await store.desk.parked("leg") == [a5, b6, a7]
            assert await store.desk.parked("leg", ODD) == [a5, a7]
            assert await store.desk.parked("leg", ODD, limit=1) == [a5]
            assert await store.desk.parked("leg", queued=True) == [a5, a7]
            assert await store.desk.parked("counter") == []
            assert await store.desk.keys() == {
                "leg": [
                    ParkedKey("leg", ODD, 2, 2, 0, 5, AT, "Flown", "ValueError", "é\n'", LATER, 1),
                    ParkedKey("leg", "[1,2]", 2, 0, 1),
                ]
            }
            again = replace(a5, attempts=2, error="other")
            assert await park(store, again, unparked=(a7.place, b6.place)) == [True]
            assert await store.desk.parked("leg") == [again]

    async def test_an_event_without_key_is_parked_once_for_each_span(self) -> None:
        """And counts once."""
        async with self.new_store() as store:
            low = parked(NO_KEY, 5, slice=0, slices=3)
            high = parked(NO_KEY, 5, slice=3, slices=5, error="other")
            assert await park(store, low, high) == [True]
            (key,) = (await store.desk.keys())["leg"]
            assert (key.key, key.events, key.position, key.error) == (NO_KEY, 1, 5, low.error)
            rest = replace(low, slices=1)
            assert await park(store, rest, unparked=[high.place]) == [True]
            assert await store.desk.parked("leg") == [rest]

    async def test_nothing_is_parked_by_a_step_that_is_not_made(self) -> None:
        """Neither put nor taken away."""
        async with self.new_store() as store:
            (before,) = (await store.checkpoints())["leg"]
            assert await park(store, parked("1", 1)) == [True]
            stale = replace(step(before), parked=(parked("2", 2),), unparked=(("1", 1, 2),))
            assert await store.apply([stale]) == [False]
            assert await store.desk.parked("leg") == [parked("1", 1)]

    async def test_a_session_parks_too(self) -> None:
        """With its checkpoint, or not at all."""
        async with self.new_store() as store:
            (before,) = (await store.checkpoints())["leg"]
            change = replace(step(before), parked=(parked("1", 1),))
            try:
                async with store.session() as tx:
                    await tx.move(change)
                    raise KeyError
            except KeyError:
                pass
            assert await store.desk.parked("leg") == []
            async with store.session() as tx:
                await tx.move(change)
            assert await store.desk.parked("leg") == [parked("1", 1)]

    async def test_a_step_that_rests_on_an_older_revision_is_not_made(self) -> None:
        """A span that was cut and joined has the newest of its parts."""
        async with self.new_store() as store:
            await stand(store)
            (old,) = (await store.checkpoints())["leg"]
            new = replace(old, revision=old.revision + 1)
            assert await store.apply([Change(old, new, {})]) == [True]
            assert await store.apply([step(old)]) == [False]
            (low, high) = await store.recut("leg", [3])
            assert (low.revision, high.revision) == (new.revision, new.revision)
            newer = replace(high, revision=high.revision + 1)
            assert await store.apply([Change(high, newer, {})]) == [True]
            (whole,) = await store.recut("leg", [])
            assert whole == replace(leg(0, 8), revision=newer.revision)
            assert (await store.proof("leg"))[0] == [whole]
            assert await store.apply([step(whole)]) == [True]

    async def test_a_paused_projection_makes_no_step_until_it_is_resumed(self) -> None:
        """Not one that was computed before; others go on. Who paused it first is kept."""
        async with self.new_store() as store:
            pause = Pause("leg", AT, "ada", "é'")
            (before,) = (await store.checkpoints())["leg"]
            assert await store.desk.pauses() == {}
            assert await store.desk.pause(pause) == pause
            assert await store.desk.pauses() == {"leg": pause}
            assert await store.apply([step(before)]) == [False]
            await put(store, Counter("a", 1))
            again = replace(pause, since=AT + timedelta(hours=1), actor="bob", why="too")
            assert await store.desk.pause(again) == pause  # the first stands
            assert await store.desk.pauses() == {"leg": pause}
            (paused,) = (await store.checkpoints())["leg"]
            assert await store.desk.resume("leg")
            assert not await store.desk.resume("leg")
            assert await store.desk.pauses() == {}
            assert await store.apply([step(paused)]) == [False]
            (resumed,) = (await store.checkpoints())["leg"]
            assert replace(resumed, revision=0) == replace(before, revision=0)
            assert await store.apply([step(resumed)]) == [True]

    async def test_pauses_beside_steps_stop_them(self) -> None:
        """After a pause no step is made, whoever was on the way with one."""
        async with self.new_store() as store:
            other = await self.same(store) or store
            await stand(store)
            for _ in range(10):
                steps = [
                    other.apply([step(span)])
                    for span in await store.recut("leg", [2, 4, 6])
                    for _ in range(2)
                ]
                racing = asyncio.gather(*steps)
                await store.desk.pause(Pause("leg", AT, "ada", ""))
                at = [(s.slice, s.position) for s in (await store.checkpoints())["leg"]]
                await racing
                assert at == [(s.slice, s.position) for s in (await store.checkpoints())["leg"]]
                assert await store.desk.resume("leg")
            if other is not store:
                await other.close()

    async def test_a_projection_is_put_back(self) -> None:
        """As one span, with the block it stands in; later blocks, parked effects and rows go."""
        async with self.new_store() as store:
            await put(store, Counter("a", 1))
            others = await store.proof("counter")
            for number in (0, 1, 2):
                (span,) = (await store.checkpoints())["leg"]
                at = replace(leg(0, 8, 5), position=number * 1024 + 5, revision=span.revision)
                kept = (parked("1", number * 1024 + 5),)
                change = Change(span, at, {number: Tally(9, 9)}, (), kept)
                assert await store.apply([change]) == [True]
            await store.prove(Proof("leg", LOG, AT, True, 7, 2**40, "", [7], bytes(24)))
            await store.recut("leg", [3])
            to = replace(leg(0, 8), position=1030, tallies=pack(TALLIES))
            await store.desk.rewind(to, Tally(1, 1), ())
            ((found,), blocks) = await store.proof("leg")
            assert found.revision > 0
            assert replace(found, revision=0) == to
            assert blocks == {0: Tally(9, 9), 1: Tally(1, 1)}
            assert [one.position for one in await store.desk.parked("leg")] == [5, 1029]
            assert await store.proofs() == {}
            assert await store.apply([step(found)]) == [True]
            (old,) = (await store.checkpoints())["counter"]
            zero = replace(old, position=0, event_id="", count=0, digest=0, time=None)
            assert await store.proof("counter") == others
            await store.desk.rewind(zero, Tally(), (Counter, Marker))
            ((start,), blocks) = await store.proof("counter")
            assert (replace(start, revision=0), blocks) == (zero, {})
            assert (await store.get(Counter, "a")).rows == []
            assert await store.apply([step(old)]) == [False]
