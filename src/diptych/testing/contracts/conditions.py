"""What every log does with append conditions, one after the other and in races."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from diptych.log import EVERY_EVENT, Append, Appended, Condition, EventQuery, Log, Outcome
from diptych.testing.contracts.making import (
    LogMaker,
    any_of,
    appended,
    event,
    fill,
    only,
    put,
    refused,
)

RACERS = 16


class ConditionContract(LogMaker):
    """Conditions are never violated, and never fail without a reason."""

    async def test_a_condition_holds_or_tells_the_first_match(self) -> None:
        """A condition of any mix of items holds exactly when nothing after its position matches."""
        async with self.new_log() as log:
            await put(
                log,
                event("Opened", "a:1", "b:1"),  # 1
                event("Moved", "a:1", "b:2"),  # 2
                event("Closed", "a:1"),  # 3
                event("Moved", "a:2", "b:1", "c:1"),  # 4
                event("Noted"),  # 5
                event("Moved", "a:1", "b:2"),  # 6
            )
            for query, matches in (
                (EventQuery.of([], ["a:1"]), [1, 2, 3, 6]),
                (EventQuery.of(["Moved"], ["a:1"]), [2, 6]),
                (EventQuery.of(["Moved", "Closed"], ["a:1"]), [2, 3, 6]),
                (EventQuery.of(["Moved"]), [2, 4, 6]),
                (EventQuery.of(["Opened", "Noted"]), [1, 5]),
                (EventQuery.of([], ["a:1", "b:2"]), [2, 6]),
                (EventQuery.of(["Moved"], ["b:1", "a:2", "c:1"]), [4]),
                (EventQuery.of(["Closed"], ["a:2", "c:1"]), []),
                (EventQuery.of([], ["a:3"]), []),
                (EventQuery.of(["Unheard"]), []),
                (any_of((["Closed"], ["a:1"]), ([], ["c:1"])), [3, 4]),
                (any_of((["Noted"], []), (["Moved"], ["a:1", "b:2"])), [2, 5, 6]),
                (any_of((["Unheard"], []), ([], ["a:9"]), ([], ["b:1"])), [1, 4]),
                (any_of((["Noted"], []), ([], [])), [1, 2, 3, 4, 5, 6]),
                (EVERY_EVENT, [1, 2, 3, 4, 5, 6]),
            ):
                for after in range(8):
                    (answer,) = await log.append([Append((), (Condition(query, after),))])
                    left = [position for position in matches if position > after]
                    if left:
                        assert refused(answer).reason == "conflict"
                        assert refused(answer).position == left[0], (query, after)
                    else:
                        assert answer == Appended(0, 6), (query, after)

    async def test_every_condition_must_hold(self) -> None:
        """An append with several conditions tells the first that does not hold, by its index."""
        async with self.new_log() as log:
            await put(log, event("Moved", "a:1"), event("Moved", "b:1"), event("Moved", "b:1"))
            conditions = (only("c:1"), only("b:1"), only("a:1"))
            answer = refused(await put(log, event(), conditions=conditions))
            assert (answer.condition, answer.position) == (1, 2)
            conditions = (only("c:1"), only("b:1", after=3), only("a:1", after=1))
            appended(await put(log, event(), conditions=conditions))

    async def test_old_conditions_are_checked_like_new_ones(self) -> None:
        """A condition that reaches far back is checked over all that came since."""
        async with self.new_log() as log:
            await put(log, event("Moved", "old:1"))
            for _ in range(4):
                await fill(log, 500, "Noise", "noise:1")
            await put(log, event("Moved", "new:1"))
            assert refused(await put(log, conditions=(only("old:1"),))).position == 1
            assert refused(await put(log, conditions=(only("new:1"),))).position == 2002
            assert refused(await put(log, conditions=(only("noise:1", after=7),))).position == 8
            both = any_of(([], ["new:1"]), ([], ["old:1"]))
            assert refused(await put(log, conditions=(Condition(both),))).position == 1
            assert refused(await put(log, conditions=(Condition(both, 1),))).position == 2002
            appended(await put(log, conditions=(Condition(both, 2002), only("old:1", after=1))))

    async def test_a_condition_sees_earlier_appends_of_its_batch(self) -> None:
        """Of two appends in a batch that exclude each other, the first takes place."""
        async with self.new_log() as log:
            batch = [Append((event("Moved", "a:1"),), (only("a:1"),)) for _ in range(3)]
            first, second, third = await log.append(batch)
            assert first == Appended(1, 1)
            for answer in (second, third):
                assert (refused(answer).reason, refused(answer).position) == ("conflict", 1)

    async def test_a_condition_sees_all_of_a_long_batch(self) -> None:
        """However long a batch is, its last append sees the first one's events."""
        async with self.new_log() as log:
            batch = [Append((event("Moved", f"a:{n}", "b:1"),)) for n in range(1, 41)]
            batch += [Append((), (only(f"a:{n}"),)) for n in range(1, 41)]
            batch += [Append((), (only("b:1"),)), Append((), (Condition(EVERY_EVENT),))]
            answers = [refused(answer) for answer in (await log.append(batch))[40:]]
            assert [answer.position for answer in answers] == [*range(1, 41), 1, 1]

    async def test_known_positions_are_no_conflict(self) -> None:
        """A condition passes over the positions in ``known``, and over no others."""
        async with self.new_log() as log:
            await fill(log, 3, "Moved", "a:1")
            every = only("a:1").query
            for known, position in (((1,), 2), ((1, 2), 3), ((2, 3), 1), ((1, 3), 2)):
                answer = await put(log, event(), conditions=(Condition(every, known=known),))
                assert refused(answer).position == position
            for condition in (
                Condition(every, known=(1, 2, 3)),
                Condition(every, after=1, known=(3, 2)),
                Condition(every, after=3),
            ):
                appended(await put(log, event("Other"), conditions=(condition,)))

    async def test_an_append_builds_on_another_of_its_batch(self) -> None:
        """``since`` stands for the last position of an earlier append of the batch."""
        async with self.new_log() as log:
            await fill(log, 2, "Moved", "a:1")
            query = only("a:1").query
            batch = [
                Append((event("Moved", "a:1"),), (Condition(query, after=2),)),
                Append((event("Moved", "a:1"),), (Condition(query, since=0),)),
                Append((event("Moved", "a:1"),), (Condition(query, since=0),)),
                Append((event("Moved", "a:1"),), (Condition(query, since=1),)),
            ]
            first, second, stale, third = await log.append(batch)
            assert (first, second, third) == (Appended(3, 3), Appended(4, 4), Appended(5, 5))
            assert (refused(stale).reason, refused(stale).position) == ("conflict", 4)

    async def test_seen_appends_of_the_batch_are_no_conflict(self) -> None:
        """The events of the appends in ``seen`` count as known; those of others do not."""
        async with self.new_log() as log:
            query = only("a:1").query
            batch = [
                Append((event("Moved", "a:1"), event("Moved", "a:1"))),
                Append((event("Moved", "b:1"),)),
                Append((event("Moved", "a:1"),)),
                Append((event("Other"),), (Condition(query, seen=(0, 2)),)),
                Append((event("Other"),), (Condition(query, seen=(0, 1)),)),
                Append((event("Other"),), (Condition(query, since=0, seen=(2,)),)),
                Append((event("Other"),), (Condition(query, after=1, known=(2,), seen=(2,)),)),
            ]
            answers = await log.append(batch)
            assert [isinstance(a, Appended) for a in answers] == [True] * 4 + [False, True, True]
            assert (refused(answers[4]).reason, refused(answers[4]).position) == ("conflict", 4)

    async def test_what_builds_on_nothing_new_is_unfounded(self) -> None:
        """An append that builds on one that was refused or replayed is refused as unfounded."""
        async with self.new_log() as log:
            await put(log, event("Moved", "a:1"), key="k", content=b"c")
            nothing = only("z:1").query
            batch = [
                Append((event(),), (only("a:1"),)),  # refused
                Append((event(),), key="k", content=b"c"),  # replayed
                Append((event(),), (Condition(nothing, since=0),)),
                Append((event(),), (Condition(nothing, seen=(0,)),)),
                Append((event(),), (Condition(nothing, since=1),)),
                Append((event(),), (Condition(nothing, seen=(1,)),)),
                Append((event(),), (Condition(nothing, since=2),)),
                Append((event(),)),
                Append((event(),), (only("z:1"), Condition(nothing, seen=(7,), since=7))),
            ]
            answers = await log.append(batch)
            assert [refused(answer).reason for answer in answers[2:7]] == ["unfounded"] * 5
            assert answers[7:] == [Appended(2, 2), Appended(3, 3)]

    async def test_what_no_event_can_have_is_no_conflict(self) -> None:
        """Conditions on texts that cannot be stored hold, and nobody's neighbour suffers."""
        async with self.new_log() as log:
            await fill(log, 20, "Moved", "a:1")
            for text in ("nul:\0", "half:\ud800", "x" * 5000):
                strange, odd, plain = await asyncio.gather(
                    put(log, event(), conditions=(only(text, types=["Moved"]),)),
                    put(log, event(), conditions=(only("a:1", types=[text]), only(text))),
                    put(log, event(), conditions=(only("a:1", types=["Moved", text]),)),
                )
                assert isinstance(strange, Appended)
                assert isinstance(odd, Appended)
                assert refused(plain).position == 1

    async def test_of_racers_that_start_together_one_wins(self) -> None:
        """Of sixteen appends that exclude each other, started at a barrier, exactly one wins."""
        async with self.new_log() as log:
            for race in range(20):
                barrier = asyncio.Barrier(RACERS)
                tag, after = f"seat:{race}", await log.head()

                async def racer(
                    tag: str = tag, after: int = after, start: asyncio.Barrier = barrier
                ) -> Outcome:
                    await start.wait()
                    return await put(log, event("Taken", tag), conditions=(only(tag, after=after),))

                _one_won(await asyncio.gather(*(racer() for _ in range(RACERS))))

    async def test_of_racers_that_start_staggered_one_wins(self) -> None:
        """Of sixteen readers that start one behind the other, look and then append, one wins."""
        async with self.new_log() as log:
            for race in range(20):
                tag = f"seat:{race}"
                outcomes = await asyncio.gather(
                    *(_look_and_take(log, tag, n) for n in range(RACERS))
                )
                _one_won([outcome for outcome in outcomes if outcome is not None])

    async def test_racers_beside_unconditional_writers_are_not_let_through(self) -> None:
        """A conditional append that overlaps an unconditional one never wins against it."""
        async with self.new_log() as log:
            for race in range(20):
                tag, after = f"seat:{race}", await log.head()
                calls = [put(log, event("Taken", tag), conditions=(only(tag, after=after),))]
                calls.insert(race % 2, put(log, event("Taken", tag)))
                outcomes = await asyncio.gather(*calls)
                taken = (await log.read(only(tag).query)).events
                conditional = outcomes[1 - race % 2]
                if isinstance(conditional, Appended):
                    assert taken[0].position == conditional.last
                else:
                    assert len(taken) == 1

    async def test_disjoint_conditions_never_conflict(self) -> None:
        """Appends whose conditions do not concern each other all take place."""
        async with self.new_log() as log:
            for _ in range(10):
                after = await log.head()
                calls = [
                    put(
                        log,
                        event("Taken", f"seat:{n}"),
                        conditions=(only(f"seat:{n}", after=after),),
                    )
                    for n in range(RACERS)
                ]
                for outcome in await asyncio.gather(*calls):
                    appended(outcome)

    async def test_overlapping_conditions_let_one_of_each_pair_through(self) -> None:
        """Racers that each take two of sixteen seats in a ring never take a seat twice."""
        async with self.new_log() as log:
            for _ in range(10):
                after = await log.head()
                await asyncio.gather(*(_take_two(log, n, after) for n in range(RACERS)))
                taken = [tag for e in (await log.read(after=after)).events for tag in e.tags]
                assert taken
                assert len(taken) == len(set(taken))


async def _look_and_take(log: Log, tag: str, patience: int) -> Outcome | None:
    for _ in range(patience):
        await asyncio.sleep(0)
    page = await log.read(only(tag).query)
    if page.events:
        return None
    return await put(log, event("Taken", tag), conditions=(only(tag, after=page.upto),))


async def _take_two(log: Log, n: int, after: int) -> Outcome:
    one, two = f"seat:{n}", f"seat:{(n + 1) % RACERS}"
    condition = Condition(any_of(([], [one]), (["Taken"], [two])), after)
    return await put(log, event("Taken", one, two), conditions=(condition,))


def _one_won(outcomes: Sequence[Outcome]) -> None:
    winners = [outcome for outcome in outcomes if isinstance(outcome, Appended)]
    assert len(winners) == 1, f"{len(winners)} of {len(outcomes)} racers won"
    for outcome in outcomes:
        if not isinstance(outcome, Appended):
            assert (outcome.reason, outcome.position) == ("conflict", winners[0].last)
