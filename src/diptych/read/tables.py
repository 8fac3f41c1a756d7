"""Views as SQLAlchemy tables. Imported when first needed: SQLAlchemy is slow to load."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BIGINT,
    BOOLEAN,
    DATE,
    DOUBLE_PRECISION,
    INTEGER,
    NUMERIC,
    REAL,
    TEXT,
    TIMESTAMP,
    UUID,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Index,
    MetaData,
    Numeric,
    Table,
    TypeDecorator,
    Uuid,
    cast,
    type_coerce,
)
from sqlalchemy.sql.type_api import TypeEngine
from sqlalchemy.types import NullType, UserDefinedType

from diptych.read.kinds import DECIMAL_COLLATION, Kind
from diptych.read.kinds import Dialect as DialectName

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from diptych.read.views import Definition


class Json(UserDefinedType[Any]):
    """PostgreSQL's json, selected as text: so rows of it can be DISTINCT."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name."""
        return "JSON"

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return what is selected in a column's place."""
        return type_coerce(cast(colexpr, TEXT()), colexpr.type)


_STORED: dict[str, TypeEngine[Any]] = {
    "TEXT": TEXT(),
    "INTEGER": INTEGER(),
    "REAL": REAL(),
    "text": TEXT(collation="C"),  # the order of code points, as in SQLite
    "bigint": BIGINT(),
    "double precision": DOUBLE_PRECISION(),
    "boolean": BOOLEAN(),
    "numeric": NUMERIC(),
    "timestamp with time zone": TIMESTAMP(timezone=True),
    "date": DATE(),
    "uuid": UUID(),
    "json": Json(),
}
"""The SQL types of storages, by name."""

_SEEN: dict[str, TypeEngine[Any]] = {
    "bool": Boolean(),
    "decimal": Numeric(),
    "datetime": DateTime(timezone=True),
    "date": Date(),
    "uuid": Uuid(),
}
"""What expressions take a column for, by its kind; all others are what SQLite has them in."""


class Stored(TypeDecorator[Any]):
    """A column's type whose values are kept as their kind says."""

    impl: Any = TEXT
    cache_ok = True

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        self.impl = _SEEN.get(kind.name) or _STORED[kind.sqlite.sql]

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the storage type."""
        if dialect.name == "duckdb" and self.kind.name in _SEEN:
            return dialect.type_descriptor(NullType())  # the driver takes and gives what they are
        if dialect.name == "postgresql":
            return dialect.type_descriptor(_STORED[self.kind.postgresql.sql])
        if self.kind.name == "decimal":
            return dialect.type_descriptor(TEXT(collation=DECIMAL_COLLATION))
        return dialect.type_descriptor(_STORED[self.kind.sqlite.sql])

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Return a value as the database keeps it."""
        if value is None:
            return None
        if self.kind.name == "decimal" and not isinstance(value, Decimal):
            value = Decimal(str(value))
        storage = self.kind.on(_named(dialect))
        return storage.to_column((value,))[0]

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return a value as the field's type says."""
        storage = self.kind.on(_named(dialect))
        return value if value is None or storage.read is None else storage.read(value)


def _named(dialect: Dialect) -> DialectName:
    name: Any = dialect.name
    return name if name in ("postgresql", "duckdb") else "sqlite"


def type_of(kind: Kind) -> TypeEngine[Any]:
    """Return the SQLAlchemy type of a kind."""
    if kind.name in ("str", "int", "float", "literal"):  # kept as they are, everywhere
        other = _STORED[kind.postgresql.sql]
        return _STORED[kind.sqlite.sql].with_variant(other, "postgresql")
    return Stored(kind)


def table_of(definition: Definition, name: str = "") -> Table:
    """Return the table of a view, its key as primary key; of another name, where one is given."""
    columns = [
        Column(
            f.name,
            type_of(f.kind),
            primary_key=f.key,
            nullable=f.kind.optional,
            autoincrement=False,
        )
        for f in definition.fields
    ]
    name = name or definition.table_name
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
