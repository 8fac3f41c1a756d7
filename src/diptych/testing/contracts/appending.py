"""What every log does when events are appended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from string import ascii_letters

from diptych.errors import Closed, Invalid
from diptych.log import Append, Appended, NewEvent
from diptych.testing.contracts.making import (
    METADATA,
    LogMaker,
    appended,
    event,
    everything,
    only,
    positions,
    put,
    refused,
)

AWKWARD = (
    b'{"text":"\xc3\xa9\xe2\x82\xac\xf0\x9f\x9b\xab \\"quoted\\" it\'s \\\\ \\u0000"}',
    b'{"pair":"\\ud83d\\ude00"}',
    b'{"big":123456789012345678901234567890,"neg":-0.0,"exp":1.50E+10,"tiny":1e-400}',
    b'{ "spaced" : [ 1 ,\n 2,\t{"deep":{"deeper":[[],{},null,true]}} ] , "spaced" : "twice" }',
    b'{"percent":"%s %d %%","sql":"\'; DROP TABLE events; --","empty":""}',
    b"{}",
)


class AppendContract(LogMaker):
    """Positions, atomicity, and what is stored."""

    async def test_a_new_log_is_empty(self) -> None:
        """A new log has head 0 and no events."""
        async with self.new_log() as log:
            assert await log.head() == 0
            page = await log.read()
            assert (page.events, page.upto) == ([], 0)

    async def test_positions_count_from_one(self) -> None:
        """Positions are 1, 2, 3 … in the order of appending, and the answer tells them."""
        async with self.new_log() as log:
            assert await put(log, event()) == Appended(1, 1)
            assert await put(log, event(), event(), event()) == Appended(2, 4)
            assert await log.append([Append((event(),)), Append((event(), event()))]) == [
                Appended(5, 5),
                Appended(6, 7),
            ]
            assert await positions(log) == [1, 2, 3, 4, 5, 6, 7]
            assert await log.head() == 7

    async def test_events_keep_their_order(self) -> None:
        """The events of an append, and the appends of a batch, are stored in the order given."""
        async with self.new_log() as log:
            batch = [Append(tuple(event(f"T{a}") for _ in range(3))) for a in range(700)]
            await log.append(batch)
            stored = await everything(log)
            wanted = [new.id for append in batch for new in append.events]
            assert [e.id for e in stored] == wanted
            assert [e.position for e in stored] == list(range(1, 2101))

    async def test_events_come_back_byte_for_byte(self) -> None:
        """Id, type, tags, data and metadata come back as they were appended, byte for byte."""
        async with self.new_log() as log:
            tags = ("flight:UA 1", 'quote:"x"', "back:\\slash", "é:🛫", "a:1", "line:1\n2", "%:%s")
            news = [NewEvent(f"id-{n}", "Gelandet-é", tags, d, d) for n, d in enumerate(AWKWARD)]
            await put(log, *news)
            stored = await everything(log)
            assert [(e.id, e.type, e.tags) for e in stored] == [
                (n.id, n.type, n.tags) for n in news
            ]
            assert [bytes(e.data) for e in stored] == list(AWKWARD)
            assert [bytes(e.metadata) for e in stored] == list(AWKWARD)
            for tag in tags:
                assert not isinstance(await put(log, event(), conditions=(only(tag),)), Appended)

    async def test_an_append_of_nothing_stores_nothing(self) -> None:
        """An append without events is answered with first 0 and the head."""
        async with self.new_log() as log:
            assert await log.append([]) == []
            assert await put(log) == Appended(0, 0)
            await put(log, event("Moved", "a:1"))
            assert await put(log) == Appended(0, 1)
            assert refused(await put(log, conditions=(only("a:1"),))).position == 1
            assert await log.head() == 1

    async def test_an_append_is_stored_as_a_whole_or_not_at_all(self) -> None:
        """Of a refused append no event is stored, and its neighbours in the batch are."""
        async with self.new_log() as log:
            await put(log, event("Moved", "a:1"))
            batch = [
                Append((event("First"),)),
                Append((event("Never"), event("Never")), (only("a:1"),)),
                Append((event("Second"), event("Second"))),
            ]
            first, never, second = await log.append(batch)
            assert (first, second) == (Appended(2, 2), Appended(3, 4))
            assert refused(never).reason == "conflict"
            assert [e.type for e in await everything(log)] == ["Moved", "First", "Second", "Second"]

    async def test_concurrent_appends_leave_no_hole(self) -> None:
        """Many tasks that append at the same time get distinct positions without a hole."""
        async with self.new_log() as log:
            answers: dict[str, Appended] = {}

            async def client(name: str) -> None:
                for n in range(20):
                    events = tuple(event("Moved", f"by:{name}") for _ in range(1 + n % 3))
                    answer = appended(await put(log, *events))
                    answers.update((new.id, answer) for new in events)

            await asyncio.gather(*(client(str(n)) for n in range(16)))
            stored = await everything(log)
            assert [e.position for e in stored] == list(range(1, len(answers) + 1))
            assert all(answers[e.id].first <= e.position <= answers[e.id].last for e in stored)

    async def test_a_later_append_lies_behind(self) -> None:
        """An append that began after another one was answered has the higher position."""
        async with self.new_log() as log:
            last = 0
            for _ in range(20):
                answer = appended(await put(log, event()))
                assert answer.first > last
                last = answer.last

    async def test_what_cannot_be_stored_is_invalid(self) -> None:
        """An append that no log could give back unchanged raises ``Invalid``; nothing is stored."""
        async with self.new_log() as log:
            sound = event("Moved", "a:1")
            for unsound in (
                NewEvent("x", "", (), b"{}", METADATA),
                NewEvent("x", 'Quo"te', (), b"{}", METADATA),
                NewEvent("a\\b", "Moved", (), b"{}", METADATA),
                NewEvent("x", "Moved", ("",), b"{}", METADATA),
                NewEvent("x", "Moved", ("nul:\0",), b"{}", METADATA),
                NewEvent("x", "Moved", ("half:\ud800",), b"{}", METADATA),
                NewEvent("x" * 1001, "Moved", (), b"{}", METADATA),
                NewEvent("x", "M" * 1001, (), b"{}", METADATA),
                NewEvent("x", "Moved", ("\u00e9" * 501,), b"{}", METADATA),
                NewEvent("x", "Moved", (), b"{} ", METADATA),
                NewEvent("x", "Moved", (), b"{", METADATA),
                NewEvent("x", "Moved", (), b"{}", b"[]"),
                NewEvent("x", "Moved", (), b'{"latin":"\xe9"}', METADATA),
            ):
                await _is_invalid(log.append([Append((sound,)), Append((unsound,))]))
            await _is_invalid(put(log, sound, rejection=b"{}"))
            await _is_invalid(put(log, sound, key="k", rejection=b"{}"))
            await _is_invalid(put(log, sound, key="k" * 1001))
            assert await log.head() == 0

    async def test_the_longest_texts_are_stored(self) -> None:
        """Id, type, tag and key of 1000 bytes that cannot be compressed are stored and found."""
        longest = "".join(Random(1).choices(ascii_letters, k=1000))
        async with self.new_log() as log:
            new = NewEvent(longest, longest, (longest,), b"{}", METADATA)
            assert appended(await put(log, new, key=longest)).last == 1
            assert await positions(log, only(longest, types=[longest]).query) == [1]
            assert (await log.recall([longest]))[longest].last == 1

    async def test_tags_given_twice_count_once(self) -> None:
        """An event that bears a tag twice is found once by it."""
        async with self.new_log() as log:
            await put(log, event("Moved", "a:1", "a:1", "b:1"))
            assert await positions(log, only("a:1").query) == [1]
            assert (await log.read()).events[0].tags == ("a:1", "a:1", "b:1")

    async def test_a_cancelled_append_is_stored_as_a_whole_or_not_at_all(self) -> None:
        """When the appending task is cancelled, the log goes on, and no append is torn."""
        async with self.new_log() as log:
            for _ in range(10):
                task = asyncio.ensure_future(put(log, event("Torn"), event("Torn")))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                appended(await put(log, event()))
            stored = await everything(log)
            assert [e.position for e in stored] == list(range(1, len(stored) + 1))
            assert [e.type for e in stored].count("Torn") % 2 == 0

    async def test_what_is_appended_outlives_the_log_object(self) -> None:
        """A durable log that is opened again has its identity, its events and its next position."""
        async with self.new_log() as log:
            await put(log, event("Moved", "a:1"), key="k", content=b"c")
            identity, before = log.identity, await everything(log)
            await log.close()
            again = await self.reopen(log)
            if again is None:
                return
            try:
                assert again.identity == identity
                assert await everything(again) == before
                assert refused(await put(again, event(), conditions=(only("a:1"),))).position == 1
                assert appended(await put(again, event(), key="k", content=b"c")).replayed
                assert await put(again, event()) == Appended(2, 2)
            finally:
                await again.close()

    async def test_identities_differ(self) -> None:
        """Every log has an identity of its own."""
        async with self.new_log() as one, self.new_log() as other:
            assert one.identity
            assert one.identity != other.identity

    async def test_a_closed_log_refuses(self) -> None:
        """A closed log raises ``Closed`` for everything but ``close``."""
        log = await self.make_log()
        await put(log, event())
        await log.close()
        await log.close()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: put(log, event()),
            lambda: log.read(),
            lambda: log.head(),
            lambda: log.wait(0),
            lambda: log.recall(["k"]),
        ]
        for call in calls:
            try:
                await call()
            except Closed:
                continue
            raise AssertionError("a closed log went on working")


async def _is_invalid(call: object) -> None:
    try:
        await call  # type: ignore[misc]
    except Invalid:
        return
    raise AssertionError("it was not refused as invalid")
