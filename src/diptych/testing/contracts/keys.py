"""What every log does with idempotency keys."""

from __future__ import annotations

import asyncio

from diptych.log import Append, Appended, Log
from diptych.testing.contracts.making import (
    LogMaker,
    appended,
    event,
    fill,
    only,
    positions,
    put,
    refused,
)

REJECTION = b'{"code":"no","text":"\xc3\xa9 \\"q\\""}'


class KeyContract(LogMaker):
    """A key is kept for ever, with the first answer."""

    async def test_a_key_takes_effect_once(self) -> None:
        """The same key with the same content gets the first answer, and stores nothing again."""
        async with self.new_log() as log:
            await fill(log, 2)
            assert await put(log, event(), event(), key="k", content=b"\x00c") == Appended(3, 4)
            for _ in range(2):
                again = await put(log, event(), key="k", content=b"\x00c")
                assert again == Appended(3, 4, replayed=True)
            assert await log.head() == 4

    async def test_a_key_is_not_used_for_other_content(self) -> None:
        """The same key with other content is refused, with the position of the first use."""
        async with self.new_log() as log:
            await put(log, event(), event(), key="k", content=b"one")
            answer = refused(await put(log, event(), key="k", content=b"two"))
            assert (answer.reason, answer.position) == ("key-reused", 2)
            assert await log.head() == 2

    async def test_the_first_answer_comes_before_any_condition(self) -> None:
        """A key that was used is answered without a look at the conditions."""
        async with self.new_log() as log:
            condition = only("a:1")
            for _ in range(2):
                answer = await put(
                    log, event("Moved", "a:1"), key="k", content=b"c", conditions=(condition,)
                )
                assert appended(answer).last == 1
            assert await log.head() == 1

    async def test_a_refused_append_does_not_use_its_key(self) -> None:
        """The key of a refused append is free: it may be tried again."""
        async with self.new_log() as log:
            await put(log, event("Moved", "a:1"))
            answer = await put(log, event(), key="k", content=b"c", conditions=(only("a:1"),))
            assert refused(answer).reason == "conflict"
            assert await log.recall(["k"]) == {}
            assert await put(log, event(), key="k", content=b"other") == Appended(2, 2)

    async def test_a_rejection_is_kept_under_its_key(self) -> None:
        """A rejection stores no event, and is the first answer to its key, byte for byte."""
        async with self.new_log() as log:
            await fill(log, 3)
            first = await put(log, key="k", content=b"c", rejection=REJECTION)
            assert first == Appended(0, 3, rejection=REJECTION)
            await fill(log, 1)
            again = await put(log, event(), key="k", content=b"c")
            assert again == Appended(0, 3, replayed=True, rejection=REJECTION)
            assert refused(await put(log, event(), key="k", content=b"d")).reason == "key-reused"
            assert await log.head() == 4

    async def test_a_rejection_minds_its_conditions(self) -> None:
        """A rejection whose condition does not hold is refused, and not kept."""
        async with self.new_log() as log:
            await put(log, event("Moved", "a:1"))
            stale = await put(log, key="k", rejection=REJECTION, conditions=(only("a:1"),))
            assert refused(stale).reason == "conflict"
            fresh = (only("a:1", after=1),)
            assert (
                appended(await put(log, key="k", rejection=REJECTION, conditions=fresh)).last == 1
            )

    async def test_a_key_used_for_nothing_is_kept_too(self) -> None:
        """An append without events keeps its key."""
        async with self.new_log() as log:
            assert await put(log, key="k") == Appended(0, 0)
            assert await put(log, event(), key="k") == Appended(0, 0, replayed=True)

    async def test_a_key_twice_in_a_batch_takes_effect_once(self) -> None:
        """The same key again in one batch gets the first answer, unless that was a refusal."""
        async with self.new_log() as log:
            await put(log, event("Moved", "a:1"))
            batch = [
                Append((event(),), (only("a:1"),), key="free", content=b"c"),
                Append((event(),), key="free", content=b"c"),
                Append((event(),), key="free", content=b"c"),
                Append((event(),), key="free", content=b"d"),
            ]
            conflict, first, again, other = await log.append(batch)
            assert refused(conflict).reason == "conflict"
            assert (first, again) == (Appended(2, 2), Appended(2, 2, replayed=True))
            assert (refused(other).reason, refused(other).position) == ("key-reused", 2)
            assert await log.head() == 2

    async def test_racers_with_one_key_take_effect_once(self) -> None:
        """Sixteen tasks with the same key at the same time: one effect, one answer for all."""
        async with self.new_log() as log:
            for n in range(20):
                calls = (put(log, event(), key=f"k{n}", content=b"c") for _ in range(16))
                answers = [appended(answer) for answer in await asyncio.gather(*calls)]
                assert {answer.last for answer in answers} == {n + 1}
                assert [answer.replayed for answer in answers].count(False) == 1
            assert await positions(log) == list(range(1, 21))

    async def test_first_answers_are_recalled(self) -> None:
        """``recall`` tells the first answers to the keys that were used, and those only."""
        async with self.new_log() as log:
            await put(log, event(), event(), key='k "1"\\', content=b"c")
            await put(log, key="k2", content=b"c", rejection=REJECTION)
            assert await log.recall(["unused", "k2", 'k "1"\\', "k2"]) == {
                'k "1"\\': Appended(1, 2, replayed=True),
                "k2": Appended(0, 2, replayed=True, rejection=REJECTION),
            }
            assert await log.recall([]) == {}

    async def test_many_keys_are_kept(self) -> None:
        """A batch of many keys, half of them used before, answers each by itself."""
        async with self.new_log() as log:
            await _with_keys(log, range(0, 1000, 2))
            answers = await _with_keys(log, range(1000))
            assert [appended(answer).replayed for answer in answers] == [True, False] * 500
            assert await log.head() == 1000


async def _with_keys(log: Log, numbers: range) -> list[Appended]:
    batch = [Append((event(),), key=f"key-{n}", content=b"%d" % n) for n in numbers]
    return [appended(outcome) for outcome in await log.append(batch)]
