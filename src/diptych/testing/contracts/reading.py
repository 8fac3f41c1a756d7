"""What every log does when it is read."""

from __future__ import annotations

import asyncio

from diptych.errors import Invalid
from diptych.log import EVERY_EVENT, Append, EventQuery, Log
from diptych.testing.contracts.making import (
    LogMaker,
    any_of,
    event,
    everything,
    fill,
    only,
    positions,
    put,
)


class ReadContract(LogMaker):
    """Pages are complete up to where they say, in order, and hold what matches and nothing else."""

    async def test_what_no_event_can_have_is_not_found(self) -> None:
        """A query for texts that cannot be stored finds nothing, and no other reader suffers."""
        async with self.new_log() as log:
            await fill(log, 3, "Moved", "a:1")
            for text in ("nul:\0", "half:\ud800", "x" * 5000):
                for query in (
                    EventQuery.of(["Moved"], [text]),
                    EventQuery.of([text], ["a:1"]),
                    EventQuery.of([text]),
                    EventQuery.of([], [text, "a:1"]),
                ):
                    page, other = await asyncio.gather(
                        log.read(query), log.read(EventQuery.of(["Moved", text], ["a:1"]))
                    )
                    assert (page.events, page.upto) == ([], 3)
                    assert len(other.events) == 3

    async def test_a_page_holds_what_matches(self) -> None:
        """For any query, bounds and limit, a page is what a linear look at the log would give."""
        async with self.new_log() as log:
            await _mixed(log)
            stored = await everything(log)
            for query in QUERIES:
                matching = [e.position for e in stored if query.matches(e.type, e.tags)]
                for after in (0, 1, 30, 59, 60, 99):
                    for until in (None, 0, 31, 60, 99):
                        for limit in (1, 7, 1000):
                            page = await log.read(query, after=after, until=until, limit=limit)
                            end = 60 if until is None else min(until, 60)
                            wanted = [p for p in matching if after < p <= end][:limit]
                            assert [e.position for e in page.events] == wanted
                            upto = wanted[-1] if len(wanted) == limit else max(after, end)
                            assert page.upto == upto, (query, after, until, limit)

    async def test_pages_join_without_a_hole(self) -> None:
        """Reading on from ``upto`` gives every match once, in order, whatever the limit."""
        async with self.new_log() as log:
            await _mixed(log)
            stored = await everything(log)
            for query in QUERIES:
                matching = [e.position for e in stored if query.matches(e.type, e.tags)]
                for limit in (1, 2, 13, 60, 61):
                    assert await positions(log, query, limit=limit) == matching

    async def test_many_reads_at_once_get_each_its_own_answer(self) -> None:
        """Reads that wait at the same time, of all kinds, are answered each by itself."""
        async with self.new_log() as log:
            await _mixed(log)
            stored = await everything(log)

            async def look(query: EventQuery, after: int, limit: int) -> None:
                page = await log.read(query, after=after, limit=limit)
                wanted = [e for e in stored if e.position > after and query.matches(e.type, e.tags)]
                assert page.events == wanted[:limit]
                assert page.upto == (page.events[-1].position if len(wanted) >= limit else 60)

            for limit in (1, 3, 1000):
                await asyncio.gather(*(look(q, a, limit) for q in QUERIES * 3 for a in (0, 17, 59)))
            bounds = zip(QUERIES * 3, range(60), (1, 2, 1000, 5) * 15, strict=False)
            await asyncio.gather(*(look(*each) for each in bounds))

    async def test_an_item_that_matches_twice_gives_an_event_once(self) -> None:
        """An event that several items match is in the page once."""
        async with self.new_log() as log:
            await put(log, event("Moved", "a:1", "b:1"), event("Noted", "b:1"))
            for query in (
                any_of(([], ["a:1"]), ([], ["b:1"]), (["Moved"], [])),
                any_of((["Moved"], ["a:1"]), (["Moved", "Noted"], ["b:1"])),
            ):
                assert await positions(log, query) == [1, 2]
                pages = await asyncio.gather(*(log.read(query, limit=2) for _ in range(3)))
                assert all([e.position for e in page.events] == [1, 2] for page in pages)

    async def test_an_empty_page_moves_on(self) -> None:
        """A query that matches nothing is complete up to the head: no reader stands still."""
        async with self.new_log() as log:
            await fill(log, 5)
            for query in (
                only("z:1").query,
                EventQuery.of(["Unheard"]),
                EventQuery.of(["U"], ["z:1"]),
            ):
                assert (await log.read(query)).upto == 5
                assert (await log.read(query, after=2, until=4)).upto == 4
                assert (await log.read(query, after=9)).upto == 9

    async def test_a_reader_beside_writers_misses_nothing(self) -> None:
        """Readers that follow while others append see every match, in order, without a hole."""
        async with self.new_log() as log:
            total = 240

            async def write(name: str) -> None:
                for n in range(total // 8):
                    await put(log, event(f"T{n % 3}", f"by:{name}"))
                    await asyncio.sleep(0)  # a log that never suspends lets others in here

            async def follow(query: EventQuery, limit: int) -> None:
                seen: list[int] = []
                upto = 0
                while upto < total:
                    page = await log.read(query, after=upto, limit=limit)
                    seen += [e.position for e in page.events]
                    upto = page.upto
                    await asyncio.sleep(0)
                assert seen == await positions(log, query)

            queries = (EVERY_EVENT, EventQuery.of(["T1", "T2"]), only("by:3").query, POINT)
            readers = [follow(query, limit) for query in queries for limit in (3, 1000)]
            await asyncio.gather(*(write(str(n)) for n in range(8)), *readers)

    async def test_what_was_answered_is_read(self) -> None:
        """A read that begins after an append was answered sees its events."""
        async with self.new_log() as log:
            for n in range(20):
                await put(log, event("Moved", f"a:{n}"))
                assert await log.head() == n + 1
                assert [e.position for e in (await log.read(only(f"a:{n}").query)).events] == [
                    n + 1
                ]

    async def test_large_events_and_pages_are_read(self) -> None:
        """Events of a megabyte, and pages of thousands of events, are read like others."""
        async with self.new_log() as log:
            large = b'{"text":"' + b"x" * 1_000_000 + b'"}'
            await put(log, event("Large", "a:1", data=large), event("Large", "a:2", data=large))
            assert [bytes(e.data) for e in await everything(log)] == [large, large]
            await log.append([Append((event("Small", f"a:{n}"),)) for n in range(5000)])
            assert len((await log.read(after=2, limit=10_000)).events) == 5000

    async def test_a_limit_is_at_least_one(self) -> None:
        """A page of no events cannot be asked for: it raises ``Invalid``."""
        async with self.new_log() as log:
            for limit in (0, -1):
                try:
                    await log.read(limit=limit)
                except Invalid:
                    continue
                raise AssertionError("it was not refused as invalid")


POINT = EventQuery.of(["T0", "T2"], ["by:5"])

QUERIES = (
    EVERY_EVENT,
    EventQuery.of(["Moved"]),
    EventQuery.of(["Moved", "Noted", "Unheard"]),
    EventQuery.of([], ["a:1"]),
    EventQuery.of(["Moved"], ["a:1"]),
    EventQuery.of(["Noted", "Moved"], ["a:0"]),
    EventQuery.of(["Unheard"], ["a:0"]),
    EventQuery.of([], ["a:1", "b:1"]),
    EventQuery.of(["Opened"], ["b:1", "a:1"]),
    any_of((["Moved"], ["a:1"]), (["Noted"], ["b:2"])),
    any_of((["Moved"], ["a:1"]), (["Moved"], ["b:2"])),
    any_of((["Noted"], []), ([], ["a:2", "b:3"])),
    any_of(([], ["a:2"]), ([], ["b:3"]), (["Opened"], [])),
    any_of(([], ["z:1"]), (["Moved"], ["b:1"])),
)


async def _mixed(log: Log) -> None:
    """Append sixty events of three types, with two tags or one or none."""
    types = ("Opened", "Moved", "Noted")
    tags = [(f"a:{n % 3}", f"b:{n % 5}")[: (n * 7) % 4] for n in range(60)]
    await log.append([Append((event(types[n * n % 7 % 3], *tags[n]),)) for n in range(60)])
