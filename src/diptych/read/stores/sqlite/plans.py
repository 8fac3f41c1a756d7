"""Statements of SQLAlchemy Core, compiled once per shape and run with few steps."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec
from sqlalchemy import Connection, Table, create_engine
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql import visitors

from diptych.errors import Invalid
from diptych.read.port import Definition, View, definition_of
from diptych.read.stores.sqlite.rows import SQL, positions_of
from diptych.sql.sqlite import patiently

_dialect = SQLiteDialect_pysqlite(paramstyle="qmark")
_decode = msgspec.json.Decoder(list[tuple[Any, ...]]).decode

MOST_PLANS = 500


class Plan:
    """What is known of one shape of statement: what it reads and, if it is plain, its SQL."""

    def __init__(self, statement: Any, cache_key: Any) -> None:
        self.views = tuple(_views_of(statement))
        self.definition = _view_of(statement)
        self.sql: str | None = None
        self.with_positions = ""
        self.as_json = False
        compiled = statement.compile(dialect=_dialect, cache_key=cache_key)
        # A list in IN (...) is written out at each execution: SQLAlchemy does that.
        if cache_key is None or compiled.post_compile_params or compiled.literal_execute_params:
            return
        self._compiled = compiled
        self._binds: list[tuple[str, Callable[[Any], Any] | None]] = [
            (name, compiled.binds[name].type.dialect_impl(_dialect).bind_processor(_dialect))
            for name in compiled.positiontup or ()
        ]
        self.sql = compiled.string
        if self.definition is not None:
            self.as_json = not any(k.storage == "REAL" for k in self.definition.kinds)
        if self.as_json:
            assert self.definition is not None
            columns = ", ".join(f'"{name}"' for name in self.definition.names)
            self.with_positions = (
                f"SELECT ({SQL['positions']}), "
                f"(SELECT json_group_array(json_array({columns})) FROM ({self.sql}))"
            )

    def values(self, cache_key: Any) -> list[Any]:
        """Return the statement's parameters as the database takes them."""
        given = self._compiled.construct_params(
            extracted_parameters=cache_key.bindparams, escape_names=False
        )
        return [
            given[name] if process is None else process(given[name])
            for name, process in self._binds
        ]


class Planned:
    """A statement with its plan and, if it is plain, its parameters."""

    __slots__ = ("plan", "statement", "values")

    def __init__(self, statement: Any, plan: Plan, values: list[Any] | None) -> None:
        self.statement = statement
        self.plan = plan
        self.values = values


class Plans:
    """The plans of the statements seen, by shape."""

    def __init__(self) -> None:
        self._plans: dict[Any, Plan] = {}

    def of(self, statement: Any) -> Planned:
        """Return the plan of a statement, and its parameters."""
        if isinstance(statement, Planned):
            return statement
        try:
            cache_key = statement._generate_cache_key()
        except AttributeError:
            raise Invalid(
                "That is no statement; write select(View) or another of SQLAlchemy Core",
                field="statement",
                rule="a SQLAlchemy Core statement",
                got=type(statement).__qualname__,
            ) from None
        plan = None if cache_key is None else self._plans.get(cache_key.key)
        if plan is None:
            plan = Plan(statement, cache_key)
            if cache_key is not None:
                if len(self._plans) >= MOST_PLANS:
                    self._plans.clear()
                self._plans[cache_key.key] = plan
        return Planned(statement, plan, plan.values(cache_key) if plan.sql is not None else None)


def _tables_of(statement: Any) -> Iterator[Table]:
    for element in visitors.iterate(statement):
        for table in (element, getattr(element, "table", None)):
            if isinstance(table, Table):
                yield cast(Any, table)


def _views_of(statement: Any) -> dict[type[View], None]:
    return {t.info["view"]: None for t in _tables_of(statement) if "view" in t.info}


def _view_of(statement: Any) -> Definition | None:
    """Return the view whose columns, all and in order, are what a select returns."""
    columns = list(getattr(statement, "selected_columns", ()))
    view = getattr(getattr(columns[0], "table", None), "info", {}).get("view") if columns else None
    if view is None:
        return None
    return definition_of(view) if columns == list(definition_of(view).table.c) else None


# --- running --------------------------------------------------------------------------------------


class Runner:
    """Runs plans on one connection, in that connection's thread."""

    def __init__(self) -> None:
        self._alchemy: Connection | None = None

    def alchemy(self, connection: sqlite3.Connection) -> Connection:
        """Return SQLAlchemy's connection over ours; it never begins nor ends a transaction."""
        if self._alchemy is None:
            engine = create_engine(
                "sqlite://",
                creator=lambda: connection,
                poolclass=StaticPool,
                isolation_level="AUTOCOMMIT",
                pool_reset_on_return=None,
            )
            self._alchemy = engine.connect()
        return self._alchemy

    def view_rows(self, connection: sqlite3.Connection, planned: Planned) -> list[Any]:
        """Return rows of the view that a statement selects."""
        definition = view_selected(planned)
        if planned.values is None:
            rows = self.alchemy(connection).execute(planned.statement).fetchall()
            return [definition.view(*row) for row in rows]
        assert planned.plan.sql is not None
        rows = connection.execute(planned.plan.sql, planned.values).fetchall()
        return definition.from_rows(rows)

    def tuples(self, connection: sqlite3.Connection, planned: Planned) -> list[tuple[Any, ...]]:
        """Return the rows of any statement that gives some."""
        return [tuple(r) for r in self.alchemy(connection).execute(planned.statement).fetchall()]

    def view_rows_and_positions(
        self, connection: sqlite3.Connection, planned: Planned
    ) -> tuple[list[Any], dict[str, int]]:
        """Return rows of a view and all projections' positions, of one snapshot."""
        plan = planned.plan
        if planned.values is not None and plan.as_json:
            row = connection.execute(plan.with_positions, planned.values).fetchone()
            rows = view_selected(planned).from_rows(_decode(row[1]))
            return rows, positions_of(row[0])
        return self._in_snapshot(connection, self.view_rows, planned)

    def tuples_and_positions(
        self, connection: sqlite3.Connection, planned: Planned
    ) -> tuple[list[Any], dict[str, int]]:
        """Return the rows of any select and all projections' positions, of one snapshot."""
        return self._in_snapshot(connection, self.tuples, planned)

    def begin(self, connection: sqlite3.Connection, how: str = "BEGIN") -> None:
        """Begin a transaction, after SQLAlchemy has connected: it rolls back when it does."""
        self.alchemy(connection)
        patiently(lambda: connection.execute(how))

    def _in_snapshot(
        self,
        connection: sqlite3.Connection,
        run: Callable[[sqlite3.Connection, Planned], list[Any]],
        planned: Planned,
    ) -> tuple[list[Any], dict[str, int]]:
        self.begin(connection)
        try:
            positions = positions_of(connection.execute(SQL["positions"]).fetchone()[0])
            return run(connection, planned), positions
        finally:
            connection.execute("ROLLBACK")


def view_selected(planned: Planned) -> Definition:
    """Return the view that a statement selects; ``Invalid`` when it selects something else."""
    if planned.plan.definition is None:
        raise Invalid(
            "Only the rows of one view come back as that view; use rows() for anything else",
            field="statement",
            rule="select(View)",
            got=planned.statement,
        )
    return planned.plan.definition
