"""What a judge has accepted, as arrays or texts for the server, and as stored events."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw
from msgspec.json import Encoder

from diptych.log import StoredEvent
from diptych.logs.postgres.checking import Legs
from diptych.logs.postgres.statements import MARKS_OF_ONE, Statements
from diptych.sql.judge import Judge

SEPARATOR: Final = "\x1f"

_json = Encoder()


def arrays_of(judge: Judge) -> tuple[list[Any], ...]:
    """Return the thirteen arrays of events, tags and keys; places count from 1, 0 is none."""
    keys, base = judge.keys, judge.begun_at
    return (
        *_columns(judge),
        [kept.key for kept in keys],
        [kept.content for kept in keys],
        [kept.first - base if kept.first else 0 for kept in keys],
        [kept.last - base for kept in keys],
        [kept.rejection for kept in keys],
    )


def next_of(sql: Statements, judge: Judge, legs: Legs) -> tuple[str, tuple[Any, ...]] | None:
    """Return the statement, with its parameters, that appends at a known head, if one can."""
    if len(judge.new) == 1 and len(judge.new[0].events) == 1 and not legs.tags:
        (event,) = judge.new[0].events
        marks = event.tags if len(event.tags) < 2 else set(event.tags)
        if 0 < len(marks) <= MARKS_OF_ONE:
            tags = _json.encode(event.tags).decode()
            values = (event.id, event.type, tags, event.data, event.metadata, *marks)
            return sql.append_one[len(marks) - 1], (judge.begun_at, *values)
    texts = texts_of(judge, legs)
    return None if texts is None else (sql.append_next, (judge.begun_at, *texts))


def texts_of(judge: Judge, legs: Legs) -> tuple[int | str, ...] | None:
    """Return the number of events, and their, their tags' and the legs' columns, each as a text.

    None where a tag holds the character that separates them; nothing else can, be it JSON or name.
    """
    ids, types, tags, data, metadata, tag, tag_type, tag_event = _columns(judge)
    marks, separator = SEPARATOR.join(tag), SEPARATOR.encode()
    leg_tags, leg_types = SEPARATOR.join(legs.tags), SEPARATOR.join(legs.types)
    for text, parts in ((marks, tag), (leg_tags, legs.tags), (leg_types, legs.types)):
        if text.count(SEPARATOR) >= max(len(parts), 1):
            return None
    return (
        len(ids),
        SEPARATOR.join(ids),
        SEPARATOR.join(types),
        SEPARATOR.join(tags),
        separator.join(data).decode(),
        separator.join(metadata).decode(),
        marks,
        SEPARATOR.join(tag_type),
        SEPARATOR.join(map(str, tag_event)),
        leg_tags,
        leg_types,
        SEPARATOR.join(map(str, legs.afters)),
    )


def _columns(judge: Judge) -> tuple[list[Any], ...]:
    ids: list[str] = []
    types: list[str] = []
    tags: list[str] = []
    data: list[bytes] = []
    metadata: list[bytes] = []
    tag: list[str] = []
    tag_type: list[str] = []
    tag_event: list[int] = []
    place = 0
    for append in judge.new:
        for event in append.events:
            place += 1
            name, marks = event.type, event.tags
            ids.append(event.id)
            types.append(name)
            tags.append(_json.encode(marks).decode())
            data.append(event.data)
            metadata.append(event.metadata)
            for mark in marks if len(marks) < 2 else set(marks):
                tag.append(mark)
                tag_type.append(name)
                tag_event.append(place)
    return ids, types, tags, data, metadata, tag, tag_type, tag_event


def stored_events(judge: Judge) -> list[StoredEvent]:
    """Return the accepted events as they are stored."""
    position = judge.begun_at
    stored: list[StoredEvent] = []
    for append in judge.new:
        for event in append.events:
            position += 1
            data, metadata = Raw(event.data), Raw(event.metadata)
            stored.append(StoredEvent(position, event.id, event.type, event.tags, data, metadata))
    return stored
