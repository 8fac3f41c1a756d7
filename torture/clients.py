"""Random clients of a log: they append in every way the port knows, retry, give up, read, wait."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from diptych.errors import DiptychError, Unavailable
from diptych.log import Append, Condition, EventQuery, NewEvent, QueryItem
from diptych.messages import new_id
from diptych.testing.recording import Recorder

TYPES = ("Opened", "Moved", "Closed")
TAGS = ("a:1", "a:2", "b:1", "b:2", "c:1")
DATA = (b"{}", b'{"n":1}', '{"text":"é\\n\U0001f6eb \\u0041"}'.encode(), b'{ "spaced" : [1, 2] }')
METADATA = b'{"time":"2013-01-01T00:00:00Z"}'


def event(rng: random.Random, *tags: str) -> NewEvent:
    """Return a new event."""
    chosen = tags or tuple(rng.sample(TAGS, rng.choice((0, 1, 1, 2))))
    return NewEvent(new_id(), rng.choice(TYPES), chosen, rng.choice(DATA), METADATA)


def events(rng: random.Random) -> tuple[NewEvent, ...]:
    """Return one to three new events."""
    return tuple([event(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))])


def query(rng: random.Random) -> EventQuery:
    """Return a query of one or two items, rarely of none."""
    if rng.random() < 0.05:
        return EventQuery()
    items: list[QueryItem] = []
    for _ in range(rng.choice((1, 1, 2))):
        types = frozenset(rng.sample(TYPES, rng.choice((0, 0, 1, 2))))
        tags = frozenset(rng.sample(TAGS, rng.choice((0, 1, 1, 1, 2))))
        items.append(QueryItem(types, tags))
    return EventQuery(tuple(items))


async def pause(rng: random.Random) -> None:
    """Let others go on, once or several times."""
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        await asyncio.sleep(0)


class Client:
    """One client: it makes random calls, one after the other."""

    def __init__(self, log: Recorder, rng: random.Random, keys: list[str]) -> None:
        self.log = log
        self.rng = rng
        self.keys = keys
        self.sent: list[list[Append]] = []

    async def work(self, calls: int) -> None:
        """Make calls. What a call raises is in the history; it ends no client."""
        rng = self.rng
        ways: list[tuple[Callable[[], Coroutine[Any, Any, object]], int]] = [
            (self.plain, 3),
            (self.decide, 6),
            (self.batch, 3),
            (self.keyed, 4),
            (self.again, 3),
            (self.give_up, 2),
            (self.unsound, 1),
            (self.look, 3),
        ]
        for _ in range(calls):
            way = rng.choices([w for w, _ in ways], [weight for _, weight in ways])[0]
            with suppress(DiptychError):
                await way()
            await pause(rng)

    async def send(self, batch: list[Append]) -> None:
        """Append, and remember what was sent."""
        self.sent.append(batch)
        await self.log.append(batch)

    async def plain(self) -> None:
        """Append without a condition."""
        await self.send([Append(events(self.rng))])

    async def boundary(self) -> tuple[EventQuery, int, tuple[int, ...]]:
        """Read a boundary; return its query, up to where it was read, and the positions found."""
        wanted = query(self.rng)
        found: list[int] = []
        upto = self.rng.choice((0, max(0, await self.log.head() - 5)))
        while True:
            page = await self.log.read(wanted, after=upto, limit=self.rng.choice((2, 10, 1000)))
            found += [stored.position for stored in page.events]
            if page.upto <= upto:
                return wanted, upto, tuple(found)
            upto = page.upto

    async def condition(self) -> Condition:
        """Return a condition on what was just read, or on what was known a while ago."""
        wanted, upto, found = await self.boundary()
        await pause(self.rng)
        match self.rng.randrange(4):
            case 0:
                return Condition(wanted, max(0, upto - self.rng.randrange(4)))
            case 1 if found:
                return Condition(wanted, found[0] - 1, found)
            case 2 if found:
                return Condition(wanted, 0, found[-2:])
            case _:
                return Condition(wanted, upto)

    async def decide(self) -> None:
        """Read a boundary and append on condition that it has not changed."""
        conditions = [await self.condition() for _ in range(self.rng.choice((1, 1, 2)))]
        new = events(self.rng) if self.rng.random() < 0.9 else ()
        await self.send([Append(new, tuple(conditions))])

    async def batch(self) -> None:
        """Append several at once, which build on each other."""
        wanted, upto, _ = await self.boundary()
        batch: list[Append] = []
        for index in range(self.rng.randint(2, 4)):
            conditions: tuple[Condition, ...] = ()
            if self.rng.random() < 0.6:
                since = self.rng.randrange(index) if index and self.rng.random() < 0.4 else None
                seen = tuple(range(index)) if self.rng.random() < 0.6 else ()
                conditions = (Condition(wanted, upto, (), since, seen),)
            elif self.rng.random() < 0.3:
                conditions = (await self.condition(),)
            batch.append(Append(events(self.rng), conditions))
        await self.send(batch)

    async def keyed(self) -> None:
        """Append with a key that others use too, with the same content or another."""
        rng = self.rng
        key = rng.choice(self.keys)
        content = key.encode() if rng.random() < 0.8 else b"another"
        conditions = (await self.condition(),) if rng.random() < 0.5 else ()
        if rng.random() < 0.3:
            rejection = b'{"code":"no"}'
            await self.send([Append((), conditions, key, content, rejection)])
        else:
            await self.send([Append(events(rng), conditions, key, content)])

    async def again(self) -> None:
        """Send again what bore a key; make up a new key for something else."""
        known = [batch for batch in self.sent if all(append.key for append in batch)]
        if known:
            await self.log.append(self.rng.choice(known))
        else:
            append = Append(events(self.rng), (await self.condition(),))
            await self.send([replace(append, key=new_id(), content=b"c")])

    async def give_up(self) -> None:
        """Cancel an append that is under way, so that its outcome is unknown."""
        key = new_id() if self.rng.random() < 0.5 else None
        batch = [Append(events(self.rng), key=key) for _ in range(self.rng.choice((1, 2)))]
        batch[1:] = [replace(append, key=None) for append in batch[1:]]
        task = asyncio.ensure_future(self.send(batch))
        await pause(self.rng)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def unsound(self) -> None:
        """Send what no log can store."""
        bad = replace(event(self.rng), data=b"{} {}")
        await self.log.append([Append(events(self.rng)), Append((bad,))])

    async def look(self) -> None:
        """Ask what is there."""
        match self.rng.randrange(3):
            case 0:
                await self.log.recall(self.rng.sample(self.keys, 2))
            case 1:
                await self.log.wait(await self.log.head(), timeout=0.002)
            case _:
                await self.boundary()


async def follow(
    log: Recorder, name: str, rng: random.Random, done: asyncio.Event, *, patient: bool = False
) -> None:
    """Follow a log (or what matches a query) until ``done``, and to its end.

    ``patient``: as long as the log is away, try again.
    """
    wanted = query(rng) if rng.random() < 0.5 else EventQuery()
    upto, last = 0, False
    while not last:
        last = done.is_set()
        try:
            head = await log.wait(upto, timeout=0.005)
            while upto < head:
                page = await log.read(wanted, after=upto, limit=rng.choice((1, 3, 7, 1000)))
                log.history.saw(name, page.events, after=upto, upto=page.upto, query=wanted)
                if page.upto <= upto:
                    break
                upto = page.upto
        except Unavailable:
            if not patient:
                raise
