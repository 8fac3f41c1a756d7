"""How the store of a SQLite file writes rows."""

from __future__ import annotations

from diptych import Key, View
from diptych.read.port import definition_of
from diptych.read.stores.sqlite.rows import Rows


class Stay(View, table="stays"):
    nights: int
    guest: Key[str]
    room: Key[int]


def test_rows_are_written_in_the_order_of_their_keys() -> None:
    """Those that share a page of the table follow each other, wherever the key stands in a row."""
    rows = Rows(definition_of(Stay))
    given = [Stay(1, "bob", 7), Stay(2, "ann", 10), Stay(3, "bob", 2), Stay(0, "ann", 9)]
    assert rows.in_order(given) == [0, "ann", 9, 2, "ann", 10, 3, "bob", 2, 1, "bob", 7]
