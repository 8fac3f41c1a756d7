"""Pages of events. A page and the head it is complete up to are of one snapshot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from diptych.log import EVERY_EVENT, EventQuery, Page, StoredEvent
from diptych.logs.postgres.checking import types_of
from diptych.logs.postgres.statements import Statements, events_of
from diptych.sql.postgres import Connection
from diptych.sql.ranges import FOREVER, findable, is_everything, legs_of


class Request(Struct, frozen=True):
    """A call of ``read``."""

    query: EventQuery
    after: int
    until: int
    limit: int

    @staticmethod
    def of(query: EventQuery, after: int, until: int | None, limit: int) -> Request:
        """Return a request that can be put to the database."""
        last = FOREVER if until is None else min(until, FOREVER)
        return Request(findable(query), min(after, FOREVER), last, limit)


async def read_page(connection: Connection, sql: Statements, request: Request) -> Page:
    """Answer one request by statements of its own."""
    after, until, limit = request.after, request.until, request.limit
    if is_everything(request.query):
        bound = min(until, after + limit)
        events = events_of(await connection.fetch(sql.read_all, after, bound))
        upto = after
        if not events and after < bound and (head := await connection.fetchval(sql.head)) > after:
            # Some have come since, or somebody has deleted events.
            events = events_of(await connection.fetch(sql.read_all, after, bound))
            upto = min(head, bound)
        return Page(events, upto=events[-1].position if events else upto)
    types: dict[str, list[str]] = {}
    for item in request.query.items:
        if not item.types:
            # A type that occurs for the first time after this look is not read: nor is its
            # position.
            tag = min(item.tags)
            head, types[tag] = await types_of(connection, sql, tag)
            until = min(until, head)
    legs = legs_of(request.query.items, types.__getitem__)
    if not legs:
        return Page([], upto=max(after, until))
    upto = until
    events_by: dict[int, StoredEvent] = {}
    for text, parameters in sql.over_legs("read_legs", legs, after, until, limit):
        rows = await connection.fetch(text, *parameters)
        upto = min(upto, rows[0][0])
        for event in events_of([row[1:] for row in rows if row[1] is not None]):
            events_by[event.position] = event
    return _page(request, upto, list(events_by.values()))


async def read_points(
    connection: Connection, sql: Statements, requests: Sequence[Request]
) -> list[Page]:
    """Answer many small requests by one statement."""
    numbers: list[int] = []
    tags: list[str] = []
    types: list[str] = []
    afters: list[int] = []
    untils: list[int] = []
    for number, request in enumerate(requests):
        for item in request.query.items:
            (tag,) = item.tags
            for name in item.types:
                numbers.append(number)
                tags.append(tag)
                types.append(name)
                afters.append(request.after)
                untils.append(request.until)
    limit = max(request.limit for request in requests)
    rows = await connection.fetch(sql.read_points, numbers, tags, types, afters, untils, limit)
    head = rows[0][0]
    found: list[dict[int, StoredEvent]] = [{} for _ in requests]
    hits = [row for row in rows if row[1] is not None]
    for row, event in zip(hits, events_of([row[2:] for row in hits]), strict=True):
        found[row[1]][event.position] = event
    return [
        _page(request, min(head, request.until), list(own.values()))
        for request, own in zip(requests, found, strict=True)
    ]


def reader_inside(schema: str) -> Callable[[Connection, int, int], Awaitable[list[StoredEvent]]]:
    """Return the function that gives the events in (after, until], as an open transaction sees."""
    sql = Statements(schema)

    async def read_inside(connection: Connection, after: int, until: int) -> list[StoredEvent]:
        request = Request(EVERY_EVENT, after, until, until - after)
        return (await read_page(connection, sql, request)).events

    return read_inside


def _page(request: Request, upto: int, events: list[StoredEvent]) -> Page:
    """Return the page of these events, which are all there are up to ``upto`` or ``limit`` more."""
    events = sorted((e for e in events if e.position <= upto), key=_position)
    if len(events) >= request.limit:
        events = events[: request.limit]
        upto = events[-1].position
    return Page(events, upto=max(request.after, upto))


def _position(event: StoredEvent) -> int:
    return event.position
