"""The log in memory: the executable specification of the port, written to be read.

Nothing here awaits between looking and changing, so every append is atomic in its event loop.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import groupby, islice
from uuid import uuid4

from msgspec import Raw

from diptych.errors import Closed
from diptych.log import (
    EVERY_EVENT,
    Append,
    Appended,
    Condition,
    EventQuery,
    Outcome,
    Page,
    QueryItem,
    Refused,
    StoredEvent,
    is_new,
    require_limit,
    require_sound,
)


class MemoryLog:
    """A log that lives as long as its process. For tests, and to learn what a log does."""

    def __init__(self) -> None:
        self._identity = str(uuid4())
        self._events: list[StoredEvent] = []  # the event at position p is at index p - 1
        self._positions_by_tag: defaultdict[str, list[int]] = defaultdict(list)
        self._positions_by_type: defaultdict[str, list[int]] = defaultdict(list)
        self._kept: dict[str, tuple[bytes, Appended]] = {}  # content and first answer, by key
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False

    @property
    def identity(self) -> str:
        """The log's own id, made when it was created and never changed."""
        return self._identity

    async def append(self, batch: Sequence[Append]) -> list[Outcome]:
        """Append a batch; answer each append by itself, in order."""
        self._require_open()
        require_sound(batch)
        outcomes: list[Outcome] = []
        for append in batch:
            outcomes.append(self._answer(append, outcomes))
        self._wake()
        return outcomes

    def _answer(self, append: Append, earlier: list[Outcome]) -> Outcome:
        """Answer one append: its key comes first, then its conditions, then its events."""
        if append.key in self._kept:
            content, first_answer = self._kept[append.key]
            if content != append.content:
                return Refused("key-reused", position=first_answer.last)
            return first_answer
        for index, condition in enumerate(append.conditions):
            refused = self._check(condition, index, earlier)
            if refused:
                return refused
        first = len(self._events) + 1 if append.events else 0
        self._store(append)
        appended = Appended(first, last=len(self._events), rejection=append.rejection)
        if append.key is not None:
            replay = Appended(first, appended.last, replayed=True, rejection=append.rejection)
            self._kept[append.key] = (append.content, replay)
        return appended

    def _check(self, condition: Condition, index: int, earlier: list[Outcome]) -> Refused | None:
        """Say why a condition does not hold; None when it does."""
        after, known = condition.after, set(condition.known)
        if condition.since is not None:
            base = earlier[condition.since]
            if not is_new(base):
                return Refused("unfounded", condition=index)
            after = base.last
        for seen in condition.seen:
            base = earlier[seen]
            if not is_new(base):
                return Refused("unfounded", condition=index)
            if base.first:
                known.update(range(base.first, base.last + 1))
        for position in self._matching(condition.query, after):
            if position not in known:
                return Refused("conflict", position, condition=index)
        return None

    def _store(self, append: Append) -> None:
        for event in append.events:
            position = len(self._events) + 1
            data, metadata = Raw(event.data), Raw(event.metadata)
            self._events.append(
                StoredEvent(position, event.id, event.type, event.tags, data, metadata)
            )
            self._positions_by_type[event.type].append(position)
            for tag in set(event.tags):
                self._positions_by_tag[tag].append(position)

    def _matching(self, query: EventQuery, after: int) -> Iterator[int]:
        """Yield the positions after one whose events match any item, in order, each once."""
        found = merge(*(self._matching_item(item, after) for item in query.items or (QueryItem(),)))
        return (position for position, _ in groupby(found))

    def _matching_item(self, item: QueryItem, after: int) -> Iterator[int]:
        candidates: Sequence[int] = range(1, len(self._events) + 1)
        if item.tags:
            candidates = min((self._positions_by_tag.get(tag, []) for tag in item.tags), key=len)
        elif item.types:
            lists = (self._positions_by_type.get(name, []) for name in item.types)
            yield from merge(*(islice(p, bisect_right(p, after), None) for p in lists))
            return
        for index in range(bisect_right(candidates, after), len(candidates)):
            event = self._events[candidates[index] - 1]
            if item.matches(event.type, event.tags):
                yield event.position

    async def read(
        self,
        query: EventQuery = EVERY_EVENT,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int = 1000,
    ) -> Page:
        """Return the next matching events after a position, at most ``limit``, up to ``until``."""
        self._require_open()
        require_limit(limit)
        end = len(self._events) if until is None else min(until, len(self._events))
        events: list[StoredEvent] = []
        for position in self._matching(query, after):
            if position > end:
                break
            events.append(self._events[position - 1])
            if len(events) == limit:
                return Page(events, upto=position)
        return Page(events, upto=max(after, end))

    async def head(self) -> int:
        """Return the position of the last event; 0 when there is none."""
        self._require_open()
        return len(self._events)

    async def wait(self, after: int, timeout: float | None = None) -> int:
        """Wait until the head lies after a position, at most ``timeout`` s; return the head."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            self._require_open()
            left = None if deadline is None else deadline - loop.time()
            if len(self._events) > after or (left is not None and left <= 0):
                return len(self._events)
            waiter = loop.create_future()
            self._waiters.add(waiter)
            try:
                await asyncio.wait({waiter}, timeout=left)
            finally:
                self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def recall(self, keys: Sequence[str]) -> dict[str, Appended]:
        """Return the first answers kept under these idempotency keys."""
        self._require_open()
        return {key: self._kept[key][1] for key in keys if key in self._kept}

    async def close(self) -> None:
        """Wake those who wait, with ``Closed``. May be called twice."""
        self._closed = True
        self._wake()

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("The log has been closed", log=self._identity)
