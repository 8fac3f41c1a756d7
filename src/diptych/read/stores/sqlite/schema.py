"""Tables and indexes of views."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from diptych.errors import DefinitionError
from diptych.read.port import Definition
from diptych.read.statements import table_of
from diptych.read.stores.sqlite.rows import quoted

_dialect: Any = SQLiteDialect_pysqlite(paramstyle="qmark")


def make_table(
    connection: sqlite3.Connection, definition: Definition, name: str, *, indexed: bool = True
) -> None:
    """Make a view's table and indexes unless they exist; refuse a table of other columns."""
    table = table_of(definition, name)
    create = CreateTable(table, if_not_exists=True)
    connection.execute(str(create.compile(dialect=_dialect)))
    require_columns(connection, definition, name)
    for index in sorted(table.indexes, key=lambda i: str(i.name)) if indexed else ():
        connection.execute(str(CreateIndex(index, if_not_exists=True).compile(dialect=_dialect)))


def require_columns(connection: sqlite3.Connection, definition: Definition, table: str) -> None:
    """Raise ``DefinitionError`` when a view's table has other columns than the view."""
    info = connection.execute(f"PRAGMA table_info({quoted(table)})").fetchall()
    there = {row[1]: (row[2], bool(row[3]), bool(row[5])) for row in info}
    asked = {f.name: (f.kind.sqlite.sql, not f.kind.optional, f.key) for f in definition.fields}
    if there != asked:
        changed = sorted(n for n in there.keys() | asked.keys() if there.get(n) != asked.get(n))
        raise DefinitionError(
            "The view's table exists with other columns: the view has changed since. Give the view "
            "another table=..., where its projection begins anew with the first event; or change "
            "the table's columns yourself (ALTER TABLE)",
            at=definition.at,
            table=table,
            changed=", ".join(changed),
        )


__all__ = ["make_table", "require_columns"]
