"""The log, decoded: for queries, and for programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from diptych.codec import Codec
from diptych.log import EventQuery, Log
from diptych.messages import Event, Recorded


class Events:
    """The log, for queries: events as they were recorded."""

    def __init__(self, log: Log, codec: Codec) -> None:
        self._log = log
        self._codec = codec

    async def read(
        self,
        types: Iterable[type[Event]] = (),
        tags: Iterable[str] = (),
        *,
        after: int = 0,
        until: int | None = None,
        limit: int = 1000,
    ) -> list[Recorded]:
        """Return the next events of these types that bear all these tags, at most ``limit``."""
        page = await self._log.read(self._query(types, tags), after=after, until=until, limit=limit)
        return [self._codec.recorded(stored) for stored in page.events]

    async def all(
        self,
        types: Iterable[type[Event]] = (),
        tags: Iterable[str] = (),
        *,
        after: int = 0,
        until: int | None = None,
    ) -> AsyncIterator[Recorded]:
        """Iterate over all such events up to ``until`` (default: the head now), page by page."""
        query = self._query(types, tags)
        head = await self._log.head()
        until = head if until is None else min(until, head)  # beyond it there is no end to reach
        while after < until:
            page = await self._log.read(query, after=after, until=until)
            for stored in page.events:
                yield self._codec.recorded(stored)
            after = page.upto

    def _query(self, types: Iterable[type[Event]], tags: Iterable[str]) -> EventQuery:
        return EventQuery.of([self._codec.of(t).name for t in types], list(tags))
