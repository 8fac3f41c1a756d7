"""What a judge has accepted, as the arrays that the append function takes, and as stored events."""

from __future__ import annotations

from typing import Any

from msgspec import Raw
from msgspec.json import Encoder

from diptych.log import StoredEvent
from diptych.sql.judge import Judge

_json = Encoder()


def arrays_of(judge: Judge) -> tuple[list[Any], ...]:
    """Return the thirteen arrays of events, tags and keys; places count from 1, 0 is none."""
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
    keys, base = judge.keys, judge.begun_at
    return (
        *(ids, types, tags, data, metadata, tag, tag_type, tag_event),
        [kept.key for kept in keys],
        [kept.content for kept in keys],
        [kept.first - base if kept.first else 0 for kept in keys],
        [kept.last - base for kept in keys],
        [kept.rejection for kept in keys],
    )


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
