"""Statements of SQLAlchemy Core: compiled by SQLAlchemy once per shape, run by asyncpg."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, TypeAlias

import asyncpg
from sqlalchemy import Integer

from diptych.read import statements
from diptych.read.port import plain_decimal
from diptych.read.statements import Shape, Stored, Tables, not_run
from diptych.read.stores.postgres.dialect import Dialect
from diptych.read.stores.postgres.rows import beside_positions
from diptych.sql.postgres import Connection

Convert = Callable[[Any], Any]

_make_dialect: Any = Dialect
_dialect = _make_dialect()
"""For what does not depend on where the views are."""

_NUMERIC = 1700
"""The number of PostgreSQL's type: what SQLAlchemy makes floats of where it promises some."""

_NOT_SET_UP = (
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.InsufficientPrivilegeError,
)


class Plan:
    """What is known of one shape of statement: what it reads, its SQL, how values are converted.

    ``sql`` and ``with_positions`` are None where the SQL depends on the values.
    """

    def __init__(self, statement: Any, cache_key: Any, schema: str, dialect: Any) -> None:
        self.shape = Shape(statement, dialect.tables)
        self.schema = schema
        self._dialect = dialect
        compiled = self._compile(statement, cache_key=cache_key)
        self.sql: str | None = None
        self._readers = [_reader(column[3]) for column in compiled._result_columns]
        if cache_key is None or compiled.post_compile_params or compiled.literal_execute_params:
            return
        self._compiled = compiled
        self._binds = _binds(compiled)
        self.sql = compiled.string
        self.with_positions = beside_positions(compiled.string, schema)

    def _compile(self, statement: Any, **options: Any) -> Any:
        return statement.compile(
            dialect=self._dialect,
            schema_translate_map={None: self.schema},
            render_schema_translate=True,
            **options,
        )

    def values(self, cache_key: Any) -> list[Any] | None:
        """Return the statement's parameters as the driver takes them."""
        if self.sql is None:
            return None
        given = self._compiled.construct_params(
            extracted_parameters=cache_key.bindparams, escape_names=False
        )
        return _bound(self._binds, given)

    def written_out(self, statement: Any) -> tuple[str, list[Any]]:
        """Return the SQL and the parameters of a statement by itself."""
        compiled = self._compile(statement, compile_kwargs={"render_postcompile": True})
        return compiled.string, _bound(_binds(compiled), compiled.construct_params())

    def tuples(self, rows: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return rows of any select, values as the columns' types say."""
        if len(self._readers) != (len(rows[0]) if rows else 0):
            return [tuple(row) for row in rows]
        columns = [
            column if read is None else [None if v is None else read(v) for v in column]
            for read, column in zip(self._readers, zip(*rows, strict=True), strict=True)
        ]
        return list(zip(*columns, strict=True))


Planned: TypeAlias = statements.Planned[Plan]


class Plans(statements.Plans[Plan]):
    """The plans of the statements seen, by shape."""

    def __init__(self, schema: str, tables: Tables) -> None:
        dialect = _make_dialect()
        dialect.tables = tables
        super().__init__(tables, lambda statement, key: Plan(statement, key, schema, dialect))


def _binds(compiled: Any) -> list[tuple[str, Convert | None]]:
    return [
        (name, compiled.binds[name].type.dialect_impl(_dialect).bind_processor(_dialect))
        for name in compiled.positiontup or ()
    ]


def _bound(binds: Sequence[tuple[str, Convert | None]], given: dict[str, Any]) -> list[Any]:
    return [given[name] if process is None else process(given[name]) for name, process in binds]


def _reader(type_: Any) -> Convert | None:
    """Return what makes a value of a result what the column's type says."""
    if isinstance(type_, Stored):
        return type_.kind.postgresql.read
    if isinstance(type_, Integer):
        return int  # the sum of ints is numeric
    impl = type_.dialect_impl(_dialect)
    read: Convert | None = impl.result_processor(_dialect, _NUMERIC)
    return read or _plain


def _plain(value: Any) -> Any:
    return plain_decimal(value) if isinstance(value, Decimal) else value


# --- running --------------------------------------------------------------------------------------


async def rows_of(connection: Connection, planned: Planned) -> list[Any]:
    """Return the rows that a statement gives, as the driver gives them."""
    sql, values = planned.plan.sql, planned.values
    if sql is None or values is None:
        sql, values = planned.plan.written_out(planned.statement)
    with refused_statements(planned):
        return await connection.fetch(sql, *values)


async def rows_and_positions(connection: Connection, planned: Planned) -> tuple[list[Any], str]:
    """Return a select's rows, and all projections' positions, of one snapshot."""
    plan, values = planned.plan, planned.values
    if plan.sql is None or values is None:
        sql, values = plan.written_out(planned.statement)
        sql = beside_positions(sql, plan.schema)
    else:
        sql = plan.with_positions
    with refused_statements(planned):
        rows = await connection.fetch(sql, *values)
    positions: str = rows[0][0]
    return ([] if rows[0][1] is None else [row[2:] for row in rows]), positions


async def count_of(connection: Connection, planned: Planned) -> int:
    """Run an insert, update or delete; return how many rows it touched."""
    sql, values = planned.plan.sql, planned.values
    if sql is None or values is None:
        sql, values = planned.plan.written_out(planned.statement)
    with refused_statements(planned):
        status = await connection.execute(sql, *values)
    count = status.rpartition(" ")[2]
    return int(count) if count.isdigit() else -1


@contextmanager
def refused_statements(planned: Planned) -> Generator[None]:
    """Turn what PostgreSQL says of a statement or its values into ``Invalid``."""
    try:
        yield
    except _NOT_SET_UP as error:
        if planned.views or isinstance(error, asyncpg.InsufficientPrivilegeError):
            raise
        hint = f"; in text(), a table is written with its schema: {planned.plan.schema}.name"
        raise not_run("PostgreSQL", planned.statement, error, hint) from error
    except (asyncpg.DataError, asyncpg.SyntaxOrAccessError) as error:
        raise not_run("PostgreSQL", planned.statement, error) from error
