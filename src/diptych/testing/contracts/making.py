"""How the contract's tests come by a log, and short words for what they append."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from diptych.log import (
    EVERY_EVENT,
    Append,
    Appended,
    Condition,
    EventQuery,
    Log,
    NewEvent,
    Outcome,
    QueryItem,
    Refused,
    StoredEvent,
)
from diptych.messages import new_id

METADATA = b'{"time":"2013-01-01T00:00:00Z"}'


class LogMaker:
    """To be subclassed: says how to make a log, and how to open it again if it is durable."""

    async def make_log(self) -> Log:
        """Return a new, empty log."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to make a log")

    async def reopen(self, log: Log) -> Log | None:
        """Open anew what a closed log has left; None when it leaves nothing."""
        del log
        return None

    @asynccontextmanager
    async def new_log(self) -> AsyncGenerator[Log, None]:
        """Make a log, and close it in the end."""
        log = await self.make_log()
        try:
            yield log
        finally:
            await log.close()


def event(type_name: str = "Moved", *tags: str, data: bytes = b"{}") -> NewEvent:
    """Return a new event."""
    return NewEvent(new_id(), type_name, tags, data, METADATA)


def only(*tags: str, types: Sequence[str] = (), after: int = 0) -> Condition:
    """Return the condition that nothing with these tags and types lies after a position."""
    return Condition(EventQuery.of(types, tags), after)


def any_of(*items: tuple[Sequence[str], Sequence[str]]) -> EventQuery:
    """Return the query of several items, each given as types and tags."""
    return EventQuery(tuple(QueryItem(frozenset(types), frozenset(tags)) for types, tags in items))


async def put(log: Log, *events: NewEvent, **options: object) -> Outcome:
    """Append once."""
    (outcome,) = await log.append([Append(events, **options)])  # type: ignore[arg-type]
    return outcome


async def fill(log: Log, count: int, type_name: str = "Moved", *tags: str) -> None:
    """Append events of a kind, and make sure that they are."""
    outcomes = await log.append([Append((event(type_name, *tags),)) for _ in range(count)])
    assert all(isinstance(outcome, Appended) for outcome in outcomes)


async def everything(
    log: Log, query: EventQuery = EVERY_EVENT, *, limit: int = 1000
) -> list[StoredEvent]:
    """Read all that matches, page by page."""
    events: list[StoredEvent] = []
    upto, head = 0, await log.head()
    while upto < head:
        page = await log.read(query, after=upto, limit=limit)
        assert page.upto > upto, f"a page after {upto} that ends at {page.upto}, head {head}"
        assert all(upto < e.position <= page.upto for e in page.events)
        assert len(page.events) <= limit
        events += page.events
        upto = page.upto
    return events


async def positions(log: Log, query: EventQuery = EVERY_EVENT, *, limit: int = 1000) -> list[int]:
    """Return the positions of all that matches."""
    return [stored.position for stored in await everything(log, query, limit=limit)]


def appended(outcome: Outcome) -> Appended:
    """Return the outcome, which must be that of an append that took place."""
    assert isinstance(outcome, Appended), f"refused: {outcome}"
    return outcome


def refused(outcome: Outcome) -> Refused:
    """Return the outcome, which must be that of an append that did not take place."""
    assert isinstance(outcome, Refused), f"appended: {outcome}"
    return outcome
