"""How the store of a SQLite file writes rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diptych import Key, View
from diptych.read.port import Kept, definition_of
from diptych.read.stores.sqlite import SqliteViews
from diptych.read.stores.sqlite.rows import Rows
from diptych.sql.sqlite import Database


class Stay(View, table="stays", indexes=(("nights",),)):
    nights: int
    guest: Key[str]
    room: Key[int]


def test_rows_are_written_in_the_order_of_their_keys() -> None:
    """Those that share a page of the table follow each other, wherever the key stands in a row."""
    rows = Rows(definition_of(Stay))
    given = [Stay(1, "bob", 7), Stay(2, "ann", 10), Stay(3, "bob", 2), Stay(0, "ann", 9)]
    assert rows.in_order(given) == [0, "ann", 9, 2, "ann", 10, 3, "bob", 2, 1, "bob", 7]


async def test_indexes_are_sorted_in_files_so_that_memory_does_not_grow_with_the_rows(
    tmp_path: Path,
) -> None:
    """While indexes are made, and no longer than that, SQLite may spill what it sorts."""
    store = SqliteViews(Database(tmp_path / "views.db", durable=False))
    kept = Kept((Stay,), indexed=False)
    await store.open("log", {"stays": kept})
    said: list[str] = []

    def listen(connection: Any) -> None:
        connection.set_trace_callback(said.append)

    await store.database.write(listen)
    await store.index(kept)
    await store.close()
    (made,) = (place for place, text in enumerate(said) if text.startswith("CREATE INDEX"))
    places = [(place, text) for place, text in enumerate(said) if "temp_store" in text]
    assert [text for _, text in places] == [
        "PRAGMA temp_store = FILE",
        "PRAGMA temp_store = MEMORY",
    ]
    assert places[0][0] < said.index("BEGIN IMMEDIATE") < made < places[1][0]
