"""Several writers of one log, in rounds, and what must be true of all their answers afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import count

from diptych.log import Append, Appended, Condition, EventQuery, Log, Outcome, Refused
from diptych.messages import new_id
from diptych.testing.contracts.making import everything
from tests.logs.on_postgres import (
    LONG,
    connected,
    locked,
    marked,
    unless,
    waiting_for_the_lock,
)

KINDS = ("seat", "seat of old", "seat of any type", "key", "key of nothing", "any")


class Rivals:
    """Writers that race for seats, use keys together and append beside each other.

    Each log stands for a process. Every answer is kept, and `check` holds it against the log.
    """

    def __init__(self, logs: Sequence[Log]) -> None:
        self.logs = logs
        self.name = new_id()
        self.answers: list[tuple[Append, Outcome]] = []
        self._numbers = count()

    async def rounds(self, number: int, url: str = "") -> None:
        """Race so many times for each kind of append; an error of any writer is raised.

        Given the database's URL, it holds the log's lock until a call of every log waits for it.
        """
        async with asyncio.timeout(LONG):
            for _ in range(number):
                for kind in KINDS:
                    if not url:
                        await asyncio.gather(*await self._race(kind))
                        continue
                    async with connected(url) as admin:
                        async with locked(url):
                            calls = await self._race(kind)
                            with suppress(TimeoutError):  # without a lock nobody waits
                                async with asyncio.timeout(1.0):
                                    await waiting_for_the_lock(admin, len(self.logs))
                        await asyncio.gather(*calls)

    async def _race(self, kind: str) -> list[asyncio.Task[None]]:
        mark = f"{self.name}:{kind}:{next(self._numbers)}"
        head = await self.logs[0].head()
        return [
            asyncio.create_task(self._append(log, self._made(kind, mark, which, head), delay))
            for which, log in enumerate(self.logs)
            for delay in (0, 20)
        ]

    def _made(self, kind: str, mark: str, which: int, head: int) -> Append:
        new = marked("race", mark, f"of:{which}", type_name="Taken")
        if kind == "seat":
            return Append((new,), (unless(mark, "Taken", after=head),))
        if kind == "seat of old":  # further back than is remembered
            return Append((new,), (unless(mark, "Taken"),))
        if kind == "seat of any type":  # no range of the index
            return Append((new,), (Condition(EventQuery.of([], [mark]), head),))
        if kind == "key":
            return Append((new,), key=mark, content=b"c")
        if kind == "key of nothing":
            return Append((), key=mark, content=b"c", rejection=b'{"code":"no"}')
        return Append((marked("race"),))

    async def _append(self, log: Log, append: Append, delay: int) -> None:
        for _ in range(delay):
            await asyncio.sleep(0)  # staggered: some come when a batch is under way
        [outcome] = await log.append([append])
        self.answers.append((append, outcome))

    async def violations(self) -> list[str]:
        """Return what is wrong with the log, and with the answers."""
        stored = await everything(self.logs[0])
        found: list[str] = []
        if [event.position for event in stored] != list(range(1, len(stored) + 1)):
            found.append("positions have holes, or are used twice")
        if await self.logs[-1].head() != len(stored):
            found.append("the head is not the number of events")
        ids = Counter(event.id for event in stored)
        places = {event.id: event.position for event in stored}
        first = {tag: event.position for event in reversed(stored) for tag in event.tags}
        for tag, times in Counter(tag for event in stored for tag in event.tags).items():
            if times > 1 and tag.startswith(self.name):
                found.append(f"{tag} was taken {times} times")
        for append, outcome in self.answers:
            if isinstance(outcome, Refused):
                [tag] = next(iter(append.conditions[0].query.items)).tags
                if outcome.reason != "conflict" or outcome.position != first.get(tag):
                    found.append(f"{tag} refused without a reason: {outcome}")
            for place, event in enumerate(append.events):
                expected = int(isinstance(outcome, Appended) and not outcome.replayed)
                if ids[event.id] != expected:
                    found.append(f"stored {ids[event.id]} times: {outcome}")
                elif expected and places[event.id] != getattr(outcome, "first", 0) + place:
                    found.append(f"stored at {places[event.id]}: {outcome}")
        for key in {append.key for append, _ in self.answers if append.key}:
            answers = [outcome for append, outcome in self.answers if append.key == key]
            lasts = {outcome.last for outcome in answers if isinstance(outcome, Appended)}
            news = [o for o in answers if isinstance(o, Appended) and not o.replayed]
            if len(lasts) != 1 or len(news) != 1:
                found.append(f"key {key} was answered in several ways")
        return found
