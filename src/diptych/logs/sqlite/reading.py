"""Pages of events. Everything here runs on the database's reading thread.

A page and the head it is complete up to come from one statement, and so from one snapshot.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

from msgspec import DecodeError, Raw, Struct
from msgspec.json import Decoder
from msgspec.structs import replace

from diptych.errors import UndecodableEvent
from diptych.log import EVERY_EVENT, EventQuery, Page, StoredEvent
from diptych.logs.sqlite.statements import POINTS_AT_ONCE, SQL, over_legs, over_points, types_of
from diptych.sql.ranges import is_everything, is_point, legs_of


class Request(Struct, frozen=True):
    """A call of ``read``."""

    query: EventQuery
    after: int
    until: int
    limit: int


def read_pages(connection: sqlite3.Connection, requests: Sequence[Request]) -> list[Page]:
    """Answer requests that wait at the same time: the points among them by few statements."""
    pages: dict[int, Page] = {}
    points = [index for index, request in enumerate(requests) if is_point(request.query)]
    for start in range(0, len(points) if len(points) > 1 else 0, POINTS_AT_ONCE):
        some = points[start : start + POINTS_AT_ONCE]
        answers = _read_points(connection, [requests[index] for index in some])
        pages.update(zip(some, answers, strict=True))
    return [
        pages[index] if index in pages else read_page(connection, request)
        for index, request in enumerate(requests)
    ]


def read_inside(connection: sqlite3.Connection, after: int, until: int) -> list[StoredEvent]:
    """Return the events in (after, until], as the open transaction sees them."""
    return read_page(connection, Request(EVERY_EVENT, after, until, until - after)).events


def read_page(connection: sqlite3.Connection, request: Request) -> Page:
    """Answer one request by statements of its own."""
    try:
        return _read_page(connection, request)
    except sqlite3.DataError:  # the page is longer than SQLite lets a value be
        if request.limit == 1:
            raise
        return read_page(connection, replace(request, limit=request.limit // 2))


def _read_page(connection: sqlite3.Connection, request: Request) -> Page:
    after, until, limit = request.after, request.until, request.limit
    if is_everything(request.query):
        bounds = (after, min(until, after + limit))
        head, found = connection.execute(_READ_ALL, bounds).fetchone()
        try:
            listed = _events.decode(found)
        except DecodeError:
            listed = _apart(connection, _READ_ALL_APART, bounds)
        # No further than was looked: somebody may have deleted events.
        return _page(request, min(head, bounds[1]), listed)

    def types_at_the_start(tag: str) -> Iterable[str]:
        # A type that occurs for the first time after this look is not read: nor is its position.
        nonlocal until
        head, types = types_of(connection, tag)
        until = min(until, head)
        return types

    legs = legs_of(request.query.items, types_at_the_start)
    if not legs:
        return _page(request, until, [])
    upto = until
    events: dict[int, StoredEvent] = {}
    for n, statement in enumerate(over_legs("read_legs", legs, after, until, limit)):
        head, found = connection.execute(*statement).fetchone()
        try:
            some = _events.decode(found)
        except DecodeError:
            some = _apart(
                connection, *[*over_legs("read_legs_apart", legs, after, until, limit)][n]
            )
        upto = min(upto, head)
        events.update((event.position, event) for event in some)
    return _page(request, upto, list(events.values()))


def _read_points(connection: sqlite3.Connection, requests: Sequence[Request]) -> list[Page]:
    legs = [
        (number, tag, name, request.after, request.until)
        for number, request in enumerate(requests)
        for item in request.query.items
        for tag in item.tags
        for name in item.types
    ]
    limit = max(request.limit for request in requests)
    try:
        head, found = connection.execute(*over_points("read_points", legs, limit)).fetchone()
    except sqlite3.DataError:  # together they are too long; each alone is perhaps not
        return [read_page(connection, request) for request in requests]
    try:
        listed = _legs.decode(found)
    except DecodeError:
        return [read_page(connection, request) for request in requests]
    events: list[dict[int, StoredEvent]] = [{} for _ in requests]
    for number, some in listed:
        events[number].update((event.position, event) for event in some)
    return [
        _page(request, min(head, request.until), list(own.values()))
        for request, own in zip(requests, events, strict=True)
    ]


def _page(request: Request, upto: int, events: list[StoredEvent]) -> Page:
    """Return the page of these events, which are all there are up to ``upto`` or ``limit`` more."""
    events.sort(key=_position)  # whatever plan SQLite chose
    while events and events[-1].position > upto:
        events.pop()  # a later statement saw more than an earlier one
    if len(events) >= request.limit:
        events = events[: request.limit]
        upto = events[-1].position
    return Page(events, upto=max(request.after, upto))


def _apart(
    connection: sqlite3.Connection, statement: str, parameters: Sequence[Any]
) -> list[StoredEvent]:
    """Return events row by row: what is damaged is for those who decode it, at its position."""
    found: list[StoredEvent] = []
    for position, id_, type_, tags, data, metadata in connection.execute(statement, parameters):
        try:
            marks = _tags.decode(tags)
        except (DecodeError, TypeError) as error:
            raise UndecodableEvent(
                "A stored event's tags are no list of texts: the log is damaged",
                type=type_,
                position=position,
                why=error,
            ) from error
        found.append(
            StoredEvent(position, id_, type_, marks, Raw(data or b""), Raw(metadata or b""))
        )
    return found


_READ_ALL = SQL["read_all"].format(event=SQL["event"])
_READ_ALL_APART = SQL["read_all_apart"].format(event=SQL["event_apart"])
_tags: Decoder[tuple[str, ...]] = Decoder(tuple[str, ...])

_position = attrgetter("position")
_events: Decoder[list[StoredEvent]] = Decoder(list[StoredEvent])
_legs: Decoder[list[tuple[int, list[StoredEvent]]]] = Decoder(list[tuple[int, list[StoredEvent]]])
