"""Statements of SQLAlchemy Core, looked at once per shape. Shared by the SQL stores.

Imports SQLAlchemy, so it is imported when the first statement comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar, cast

from sqlalchemy import Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql import visitors

from diptych.errors import Invalid
from diptych.read.kinds import is_int64
from diptych.read.tables import Stored, table_of
from diptych.read.views import Definition, View, definition_of

MOST_PLANS = 500

Tables = Mapping[type[View], str]
"""The tables of views that are not in the plain ones."""


class Shape:
    """What every plan knows of a statement: the views it names, and the one whose rows it gives."""

    def __init__(self, statement: Any, tables: Tables) -> None:
        self.tables = tables
        self.views = tuple(_views_of(statement))
        self.definition = _view_of(statement)


class ShapeOnly:
    """A plan without SQL: of a statement that is only looked at."""

    def __init__(self, statement: Any, tables: Tables) -> None:
        self.shape = Shape(statement, tables)

    def values(self, cache_key: Any) -> list[Any] | None:
        """Return None: there is no SQL."""
        del cache_key
        return None


class Plan(Protocol):
    """A statement's shape, as a store prepared it."""

    @property
    def shape(self) -> Shape:
        """What the statement is about."""
        ...

    def values(self, cache_key: Any) -> list[Any] | None:
        """Return a statement's parameters as the driver takes them; None: the plan has no SQL."""
        ...


P = TypeVar("P", bound=Plan)


class Planned(Generic[P]):
    """A statement with its plan and, where that is all one needs, its parameters."""

    __slots__ = ("plan", "statement", "values")

    def __init__(self, statement: Any, plan: P, values: list[Any] | None) -> None:
        self.statement = statement
        self.plan = plan
        self.values = values

    @property
    def views(self) -> tuple[type[View], ...]:
        """The views whose tables the statement names."""
        return self.plan.shape.views

    @property
    def definition(self) -> Definition:
        """The view that the statement selects; ``Invalid`` when it selects something else."""
        found = self.plan.shape.definition
        if found is None:
            raise Invalid(
                "Only the rows of one view come back as that view; use rows() for anything else",
                field="statement",
                rule="select(View)",
                got=self.statement,
            )
        return found


class Plans(Generic[P]):
    """The plans of the statements seen, by shape. ``make(statement, cache key)`` makes one."""

    def __init__(self, tables: Tables, make: Callable[[Any, Any], P]) -> None:
        self.tables = tables
        self._make = make
        self._plans: dict[Any, P] = {}

    def of(self, statement: Any) -> Planned[P]:
        """Return the plan of a statement, and its parameters."""
        if isinstance(statement, Planned):
            known = cast("Planned[P]", statement)
            if known.plan.shape.tables is self.tables:
                return known
            statement = known.statement  # its views have moved to other tables since
        try:
            cache_key = statement._generate_cache_key()
        except AttributeError:
            raise Invalid(
                "That is no statement; write select(View) or another of SQLAlchemy Core",
                field="statement",
                rule="a SQLAlchemy Core statement",
                got=type(statement).__qualname__,
            ) from None
        if cache_key is not None:
            _require_ints(cache_key.bindparams)
        plan = None if cache_key is None else self._plans.get(cache_key.key)
        if plan is None:
            try:
                plan = self._make(statement, cache_key)
            except SQLAlchemyError as error:
                raise not_run("SQLAlchemy", statement, error) from error
            if cache_key is not None:
                if len(self._plans) >= MOST_PLANS:
                    self._plans.clear()
                self._plans[cache_key.key] = plan
        try:
            return Planned(statement, plan, plan.values(cache_key))
        except SQLAlchemyError as error:
            raise not_run("SQLAlchemy", statement, error) from error


def _require_ints(binds: Iterable[Any]) -> None:
    """Raise ``Invalid`` for an int that no SQL integer can be; a Decimal's column has no bounds."""
    for bind in binds:
        given = bind.effective_value
        several = issubclass(type(given), (list, tuple))
        values: Iterable[Any] = given if several else (given,)
        for value in values:
            if (
                isinstance(value, int)
                and not is_int64(value)
                and not (isinstance(bind.type, Stored) and bind.type.kind.name == "decimal")
            ):
                raise Invalid(
                    "SQL integers have 64 bits, in a limit, an offset and a condition too",
                    field="statement",
                    rule="-2^63 <= value < 2^63",
                    got=f"an int of {value.bit_length()} bits",
                )


def not_run(who: str, statement: Any, why: BaseException, hint: str = "") -> Invalid:
    """Return the error for a statement that is at fault itself; ``who`` says so."""
    return Invalid(
        f"{who} does not run this statement{hint}",
        field="statement",
        rule=f"what {who} takes",
        got=statement,
        why=f"{type(why).__name__}: {why}",
    )


class Renaming:
    """For compilers: a view's table is called by its own name, wherever it is in the database.

    The dialect knows the ``tables``.
    """

    dialect: Any
    preparer: Any

    def visit_table(self, table: Any, *args: Any, **kw: Any) -> str:
        """Write a table where it is read from or written to."""
        base: Any = super()
        text: str = base.visit_table(table, *args, **kw)
        name = self._name(table)
        if name is None or not text:
            return text
        alias = kw.get("enclosing_alias")
        inside = alias is not None and alias.element is table
        return name if inside or not kw.get("asfrom") else f"{name} AS {self._own(table)}"

    def visit_column(self, column: Any, *args: Any, **kw: Any) -> str:
        """Write a column, of the table as it is called here."""
        base: Any = super()
        text: str = base.visit_column(column, *args, **kw)
        if self._name(column.table) is None:
            return text
        return text.removeprefix(self._schema(column.table))

    def visit_insert(self, insert_stmt: Any, *args: Any, **kw: Any) -> str:
        """Write an insert."""
        base: Any = super()
        text: str = base.visit_insert(insert_stmt, *args, **kw)
        table = insert_stmt.table
        name = self._name(table)
        if name is None:
            return text
        before = f"INTO {self.preparer.format_table(table)}"
        return text.replace(before, f"INTO {name} AS {self._own(table)}", 1)

    def _name(self, table: Any) -> str | None:
        given: Any = table
        view: Any = given.info.get("view") if isinstance(table, Table) else None
        name = self.dialect.tables.get(view)
        return None if name is None else self._schema(table) + self.preparer.quote(name)

    def _own(self, table: Any) -> str:
        name: str = self.preparer.quote(table.name)
        return name

    def _schema(self, table: Any) -> str:
        schema = self.preparer.schema_for_object(table)
        return f"{self.preparer.quote_schema(schema)}." if schema else ""


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


__all__ = [
    "Plan",
    "Planned",
    "Plans",
    "Renaming",
    "Shape",
    "ShapeOnly",
    "Stored",
    "Tables",
    "not_run",
    "table_of",
]
