"""Views as SQLAlchemy tables. Imported when first needed: SQLAlchemy is slow to load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    INTEGER,
    REAL,
    TEXT,
    Column,
    Dialect,
    Index,
    MetaData,
    Table,
    TypeDecorator,
)
from sqlalchemy.sql.type_api import TypeEngine

from diptych.read.kinds import DECIMAL_COLLATION, Kind

if TYPE_CHECKING:
    from diptych.read.views import Definition

_STORAGE: dict[str, TypeEngine[Any]] = {
    "TEXT": TEXT(),
    "INTEGER": INTEGER(),
    "REAL": REAL(),
}


class Stored(TypeDecorator[Any]):
    """A column's type whose values are kept as their kind says."""

    impl = TEXT
    cache_ok = True

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the storage type."""
        if self.kind.name == "decimal":
            return dialect.type_descriptor(TEXT(collation=DECIMAL_COLLATION))
        return dialect.type_descriptor(_STORAGE[self.kind.storage])

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Return a value as the database keeps it."""
        return value if value is None or self.kind.write is None else self.kind.write(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return a value as the field's type says."""
        return value if value is None or self.kind.read is None else self.kind.read(value)


def type_of(kind: Kind) -> TypeEngine[Any]:
    """Return the SQLAlchemy type of a kind."""
    if kind.write is None and kind.read is None:
        return _STORAGE[kind.storage]
    return Stored(kind)


def table_of(definition: Definition) -> Table:
    """Return the table of a view, its key as primary key."""
    columns = [
        Column(f.name, type_of(f.kind), primary_key=f.key, nullable=f.kind.optional)
        for f in definition.fields
    ]
    name = definition.table_name
    # A metadata for each: views of the same name may live in different applications.
    table = Table(
        name,
        MetaData(),
        *columns,
        info={"view": definition.view},
        sqlite_with_rowid=False,
    )
    for index in definition.indexes:
        Index(f"{name}_by_{'_'.join(index)}", *[table.c[field] for field in index])
    return table
