"""Statements of SQLAlchemy Core, compiled once per shape and run with few steps."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, create_engine
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from diptych.read import statements
from diptych.read.port import Definition
from diptych.read.statements import Renaming, Shape, Tables, not_run
from diptych.read.stores.sqlite.rows import SQL, as_json, positions_of
from diptych.sql.brief import Habit
from diptych.sql.sqlite import is_faulty, patiently

_decode = msgspec.json.Decoder(list[tuple[Any, ...]]).decode


class Compiler(Renaming, SQLiteCompiler):
    """Writes statements."""


def dialect_of(tables: Tables) -> Any:
    """Return the dialect that knows in which tables the views are."""
    dialect: Any = SQLiteDialect_pysqlite(paramstyle="qmark")
    return _taught(dialect, tables)


def _taught(dialect: Any, tables: Tables) -> Any:
    dialect.statement_compiler = Compiler
    dialect.tables = tables
    return dialect


class Plan:
    """What is known of one shape of statement: what it reads and, if it is plain, its SQL."""

    def __init__(self, statement: Any, cache_key: Any, dialect: Any) -> None:
        self.shape = Shape(statement, dialect.tables)
        self.sql: str | None = None
        self.with_positions = ""
        self.habit = Habit()
        compiled = statement.compile(dialect=dialect, cache_key=cache_key)
        # A list in IN (...) is written out at each execution: SQLAlchemy does that.
        if cache_key is None or compiled.post_compile_params or compiled.literal_execute_params:
            return
        self._compiled = compiled
        self._binds: list[tuple[str, Callable[[Any], Any] | None]] = [
            (name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in compiled.positiontup or ()
        ]
        self.sql = compiled.string
        definition = self.shape.definition
        if definition is not None and as_json(definition):
            columns = ", ".join(f'"{name}"' for name in definition.names)
            self.with_positions = (
                f"SELECT ({SQL['positions']}), "
                f"(SELECT json_group_array(json_array({columns})) FROM ({self.sql}))"
            )

    def values(self, cache_key: Any) -> list[Any] | None:
        """Return the statement's parameters as the database takes them."""
        if self.sql is None:
            return None
        given = self._compiled.construct_params(
            extracted_parameters=cache_key.bindparams, escape_names=False
        )
        return [
            given[name] if process is None else process(given[name])
            for name, process in self._binds
        ]

    @staticmethod
    def view_rows_in(row: Any, definition: Definition) -> tuple[list[Any], dict[str, int]]:
        """Return what the only row of ``with_positions`` holds: rows, and all positions."""
        return definition.on("sqlite").from_rows(_decode(row[1])), positions_of(row[0])


Planned: TypeAlias = statements.Planned[Plan]


class Plans(statements.Plans[Plan]):
    """The plans of the statements seen, by shape."""

    def __init__(self, tables: Tables) -> None:
        dialect = dialect_of(tables)
        super().__init__(tables, lambda statement, cache_key: Plan(statement, cache_key, dialect))


# --- running --------------------------------------------------------------------------------------


class Runner:
    """Runs plans on one connection, in that connection's thread."""

    def __init__(self) -> None:
        # One for each set of tables: SQLAlchemy keeps what it has compiled.
        self._alchemy: dict[tuple[Any, ...], Connection] = {}

    def alchemy(self, connection: sqlite3.Connection, tables: Tables) -> Connection:
        """Return SQLAlchemy's connection over ours; it never begins nor ends a transaction."""
        key = tuple(tables.items())
        if key not in self._alchemy:
            engine = create_engine(
                "sqlite://",
                creator=lambda: connection,
                poolclass=StaticPool,
                isolation_level="AUTOCOMMIT",
                pool_reset_on_return=None,
            )
            _taught(engine.dialect, tables)
            self._alchemy[key] = engine.connect()
        return self._alchemy[key]

    def _run(self, connection: sqlite3.Connection, planned: Planned) -> Any:
        alchemy = self.alchemy(connection, planned.plan.shape.tables)
        return alchemy.execute(planned.statement)

    def view_rows(self, connection: sqlite3.Connection, planned: Planned) -> list[Any]:
        """Return rows of the view that a statement selects."""
        definition = planned.definition
        with refused_statements(planned.statement):
            if planned.values is None:
                found = self._run(connection, planned).fetchall()
                return [definition.view(*row) for row in found]
            assert planned.plan.sql is not None
            rows = connection.execute(planned.plan.sql, planned.values).fetchall()
        return definition.on("sqlite").from_rows(rows)

    def tuples(self, connection: sqlite3.Connection, planned: Planned) -> list[tuple[Any, ...]]:
        """Return the rows of any statement that gives some."""
        with refused_statements(planned.statement):
            found = self._run(connection, planned).fetchall()
        return [tuple(row) for row in found]

    def count(self, connection: sqlite3.Connection, planned: Planned) -> int:
        """Run an insert, update or delete; return how many rows it touched."""
        with refused_statements(planned.statement):
            count: int = self._run(connection, planned).rowcount
        return count

    def view_rows_and_positions(
        self, connection: sqlite3.Connection, planned: Planned
    ) -> tuple[list[Any], dict[str, int]]:
        """Return rows of a view and all projections' positions, of one snapshot."""
        plan = planned.plan
        if planned.values is not None and plan.with_positions:
            try:
                row = connection.execute(plan.with_positions, planned.values).fetchone()
            except sqlite3.Error as error:
                raise refusal(error, planned.statement) from error
            return plan.view_rows_in(row, planned.definition)
        return self._in_snapshot(connection, self.view_rows, planned)

    def tuples_and_positions(
        self, connection: sqlite3.Connection, planned: Planned
    ) -> tuple[list[Any], dict[str, int]]:
        """Return the rows of any select and all projections' positions, of one snapshot."""
        return self._in_snapshot(connection, self.tuples, planned)

    def begin(self, connection: sqlite3.Connection, tables: Tables, how: str = "BEGIN") -> None:
        """Begin a transaction, after SQLAlchemy has connected: it rolls back when it does."""
        self.alchemy(connection, tables)
        patiently(lambda: connection.execute(how))

    def _in_snapshot(
        self,
        connection: sqlite3.Connection,
        run: Callable[[sqlite3.Connection, Planned], list[Any]],
        planned: Planned,
    ) -> tuple[list[Any], dict[str, int]]:
        self.begin(connection, planned.plan.shape.tables)
        try:
            positions = positions_of(connection.execute(SQL["positions"]).fetchone()[0])
            return run(connection, planned), positions
        except sqlite3.OperationalError as error:
            # The connection that reads says so of every statement that writes.
            if error.sqlite_errorcode == sqlite3.SQLITE_READONLY:
                raise not_run("SQLite", planned.statement, error) from error
            raise
        finally:
            connection.execute("ROLLBACK")


@contextmanager
def refused_statements(statement: Any) -> Generator[None]:
    """Turn what SQLite, or SQLAlchemy before it, says of a statement into ``Invalid``."""
    try:
        yield
    except (sqlite3.Error, SQLAlchemyError) as error:
        raise refusal(error, statement) from error


def refusal(error: Exception, statement: Any) -> Exception:
    """Return ``Invalid`` for a statement that is at fault, else the database's own error."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    if isinstance(cause, sqlite3.DatabaseError) and not is_faulty(cause):
        return cause
    return not_run("SQLite", statement, cause)
