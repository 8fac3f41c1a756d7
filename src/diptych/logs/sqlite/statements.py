"""The statements of ``statements.sql`` by name, and the SQL text for a query of any shape."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from msgspec.json import Decoder, Encoder

from diptych.log import Appended
from diptych.sql.named import named_statements
from diptych.sql.ranges import Leg

POINTS_AT_ONCE = 128
"""Queries of few ranges each that are put as one statement."""

_LEGS_AT_ONCE = 400  # SQLite joins at most 500 SELECTs to one statement
_ROWS_AT_ONCE = 256


def schema() -> str:
    """Return the script that makes a file a log."""
    return files("diptych.logs.sqlite").joinpath("schema.sql").read_text(encoding="utf-8")


SQL = named_statements("diptych.logs.sqlite")


def over_legs(
    statement: str, legs: Sequence[Leg], after: int, until: int, limit: int
) -> Iterator[tuple[str, list[Any]]]:
    """Yield the statements, with parameters, that together read these ranges."""
    for start in range(0, len(legs), _LEGS_AT_ONCE):
        some = legs[start : start + _LEGS_AT_ONCE]
        parameters: list[Any] = []
        for tag, name, others in some:
            parameters += (tag, name, after, until, *others)
        parameters.append(limit)
        # Legs that differ in nothing but the type never meet, so nothing is found twice.
        apart = len({(tag, others) for tag, _, others in some}) == 1
        shape = tuple(len(others) for _, _, others in some)
        yield _legs_sql(statement, shape, "UNION ALL" if apart else "UNION"), parameters


@lru_cache(maxsize=1024)
def _legs_sql(statement: str, shape: tuple[int, ...], union: str) -> str:
    # Not numbered: Python 3.12 takes numbers for names, which a list of values does not have.
    texts = [SQL["leg"].format(also=" ".join([SQL["leg_also"]] * others)) for others in shape]
    event = SQL["event_apart" if statement.endswith("_apart") else "event"]
    return SQL[statement].format(legs=f"\n{union} ".join(texts), event=event)


def inserts(statement: str, width: int, values: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield few INSERT statements for many rows, in sizes that SQLite has compiled before."""
    start, rows = 0, len(values) // width
    while rows:
        count = min(_ROWS_AT_ONCE, 1 << (rows.bit_length() - 1))
        yield _insert_sql(statement, width, count), values[start : start + count * width]
        start += count * width
        rows -= count


@lru_cache(maxsize=64)
def _insert_sql(statement: str, width: int, count: int) -> str:
    return SQL[statement].format(rows=_rows(width, count))


def over_points(statement: str, legs: list[tuple[Any, ...]], last: int) -> tuple[str, list[Any]]:
    """Return the statement, with parameters, that looks at these legs at once.

    A leg is a tuple of its number, tag, type, and numbers. Their number is rounded up with legs
    that find nothing, so that few statements are ever compiled.
    """
    width, rows = len(legs[0]), 1 << (len(legs) - 1).bit_length()
    parameters = [value for leg in legs for value in leg]
    parameters += (0, "", "", *(0,) * (width - 3)) * (rows - len(legs))
    parameters.append(last)
    return _points_sql(statement, width, rows), parameters


@lru_cache(maxsize=32)
def _points_sql(statement: str, width: int, ranges: int) -> str:
    return SQL[statement].format(rows=_rows(width, ranges), event=SQL["event"])


def _rows(width: int, count: int) -> str:
    return ",".join(["(" + ",".join("?" * width) + ")"] * count)


def recall(
    connection: sqlite3.Connection, keys: Sequence[str]
) -> dict[str, tuple[bytes, Appended]]:
    """Return content and first answer of those keys that were used."""
    (found,) = connection.execute(SQL["recall"], (_json.encode(keys).decode(),)).fetchone()
    return {
        key: (
            bytes.fromhex(content),
            Appended(first, last, True, None if rejection is None else rejection.encode()),
        )
        for key, content, first, last, rejection in _kept.decode(found)
    }


def types_of(connection: sqlite3.Connection, tag: str) -> tuple[int, list[str]]:
    """Return the head, and the types that occur with a tag."""
    head, found = connection.execute(SQL["types_of_tag"], (tag, tag)).fetchone()
    return head, _names.decode(found)


_kept: Decoder[list[tuple[str, str, int, int, str | None]]] = Decoder(
    list[tuple[str, str, int, int, str | None]]
)
_names: Decoder[list[str]] = Decoder(list[str])
_json = Encoder()
