"""The statements of ``statements.sql`` for one schema, and SQL for a query of any shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

from asyncpg import Record
from msgspec import Raw
from msgspec.json import Decoder

from diptych.log import StoredEvent
from diptych.sql.named import named_statements
from diptych.sql.ranges import Leg

MARKS_OF_ONE: Final = 4
"""How many tags an event may have that is appended by a statement of its own."""

_LEGS_AT_ONCE = 200
_NAMED = named_statements("diptych.logs.postgres")

Row: TypeAlias = "Record"


class Statements:
    """The statements of one schema; those that append wait ``lock`` seconds for a lock."""

    def __init__(self, schema: str, lock: float = 10.0) -> None:
        self.schema = schema
        limit = f"{max(round(lock * 1000), 1)}ms"
        named = {
            name: text.replace("{schema}", schema).replace("{lock}", limit)
            for name, text in _NAMED.items()
        }
        self.within = named["within"]
        self.lock_within = named["lock_within"]
        self.head = named["head"]
        self.lock_head = named["lock_head"]
        self.holder = named["holder"]
        self.append = named["append"]
        self.append_locked = named["append_locked"]
        self.append_next = named["append_next"]
        self.append_one = [
            named["append_one"].replace("{marks}", ", ".join(f"(${7 + n})" for n in range(marks)))
            for marks in range(1, MARKS_OF_ONE + 1)
        ]
        self.appended_since = named["appended_since"]
        self.stored_since = named["stored_since"]
        self.id_at = named["id_at"]
        self.recall = named["recall"]
        self.notify = named["notify"]
        self.types_of_tag = named["types_of_tag"]
        self.first_matches = named["first_matches"]
        self.match_any = named["match_any"]
        self.read_all = named["read_all"]
        self.read_points = named["read_points"]

    def over_legs(
        self, statement: str, legs: Sequence[Leg], after: int, until: int, limit: int
    ) -> Iterator[tuple[str, list[Any]]]:
        """Yield the statements, with parameters, that together read these ranges."""
        for start in range(0, len(legs), _LEGS_AT_ONCE):
            some = legs[start : start + _LEGS_AT_ONCE]
            parameters: list[Any] = [after, until, limit]
            for tag, name, others in some:
                parameters += (tag, name, *others) if tag else (name,)
            # Legs that differ in nothing but the type never meet, so nothing is found twice.
            apart = len({(tag, others) for tag, _, others in some}) == 1
            shape = tuple(len(others) if tag else -1 for tag, _, others in some)
            yield _legs_sql(self.schema, statement, shape, apart=apart), parameters


@lru_cache(maxsize=1024)
def _legs_sql(schema: str, statement: str, shape: tuple[int, ...], *, apart: bool) -> str:
    number = 4  # after the three bounds
    texts: list[str] = []
    for others in shape:
        if others < 0:
            texts.append(_NAMED["leg_of_type"].replace("{type}", f"${number}"))
            number += 1
            continue
        also = " ".join(
            _NAMED["leg_also"].replace("{tag}", f"${number + 2 + n}") for n in range(others)
        )
        leg = _NAMED["leg"].replace("{tag}", f"${number}").replace("{type}", f"${number + 1}")
        texts.append(leg.replace("{also}", also))
        number += 2 + others
    joined = ("\nUNION ALL\n" if apart else "\nUNION\n").join(texts)
    return _NAMED[statement].replace("{legs}", joined).replace("{schema}", schema)


def events_of(rows: Sequence[Row]) -> list[StoredEvent]:
    """Return events from rows of (position, id, type, tags, data, metadata)."""
    return [
        StoredEvent(position, id_, type_, _tags(tags), Raw(data), Raw(metadata))
        for position, id_, type_, tags, data, metadata in rows
    ]


_tags = Decoder(tuple[str, ...]).decode
