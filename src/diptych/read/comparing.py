"""Two tables of a row store, compared row by row: for databases that do not compare by themselves.

Only so many rows are held at a time: the keys are taken in parts, by their hash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from diptych.errors import Invalid
from diptych.read.port import Difference
from diptych.read.proving.proof import hash_key
from diptych.read.rowstore import RowStore, RowTable

MOST_ROWS: Final = 100_000
"""Rows of each table that are held at a time, about."""

LOOKS: Final = 5
"""How often a row that differs is looked at again, while projections go on."""

PAUSE_SECONDS: Final = 0.02
AT_ONCE: Final = 500

_Rows = dict[Any, dict[str, Any]]


async def compared(
    store: RowStore,
    first: RowTable,
    second: RowTable,
    columns: Sequence[str],
    most: int,
    positions: Mapping[str, int],
) -> Difference:
    """Compare two tables in some columns, with at most so many examples, by key.

    ``Invalid`` where they have other keys.
    """
    keys = [field.name for field in first.definition.key_fields]
    if lacking := [name for name in keys if name not in columns]:
        raise Invalid(
            "Rows are compared key by key, and the versions have other keys",
            field="key",
            rule="versions of one key",
            got=", ".join(lacking),
            tables=f"{first.name}, {second.name}",
        )
    names = [name for name in columns if name not in keys]
    rows = len({key async for key, _ in store.values(second, ())})
    parts = max(1, -(-rows // MOST_ROWS))
    left: _Rows = {}
    right: _Rows = {}
    for part in range(parts):
        ours, theirs = [
            {
                key: values
                async for key, values in store.values(table, names)
                if hash_key(key) % parts == part
            }
            for table in (first, second)
        ]
        differing = [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]
        for key in differing:
            left |= {key: ours[key]} if key in ours else {}
            right |= {key: theirs[key]} if key in theirs else {}
    left, right = await _settled(store, (first, second), names, left, right)
    return _told(second, rows, names, left, right, most, positions)


async def _settled(
    store: RowStore, tables: tuple[RowTable, RowTable], names: Sequence[str], a: _Rows, b: _Rows
) -> tuple[_Rows, _Rows]:
    """Look again at what differs: it may have been read at two times."""
    for _ in range(LOOKS):
        keys = list(a.keys() | b.keys())
        if not keys:
            break
        await asyncio.sleep(PAUSE_SECONDS)
        a, b = [
            {
                key: values
                for start in range(0, len(keys), AT_ONCE)
                async for key, values in store.values(table, names, keys[start : start + AT_ONCE])
            }
            for table in tables
        ]
        same = [key for key in a.keys() & b.keys() if a[key] == b[key]]
        for key in same:
            del a[key], b[key]
    return a, b


def _told(
    table: RowTable,
    rows: int,
    names: Sequence[str],
    a: _Rows,
    b: _Rows,
    most: int,
    positions: Mapping[str, int],
) -> Difference:
    both, only_a, only_b = a.keys() & b.keys(), a.keys() - b.keys(), b.keys() - a.keys()
    columns = {name: sum(a[key][name] != b[key][name] for key in both) for name in names}
    shown = [key for some in (both, only_a, only_b) for key in sorted(some, key=repr)][:most]
    return Difference(
        table.definition.table_name,
        *(rows, len(only_a), len(only_b), len(both)),
        {name: number for name, number in columns.items() if number},
        [(key, a.get(key), b.get(key)) for key in shown],
        dict(positions),
    )


__all__ = ["compared"]
