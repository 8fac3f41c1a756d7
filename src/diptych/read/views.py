"""Views: one row of a read model, declared as a frozen struct; the library owns the table.

``OrderSummary.customer`` on the class is the SQLAlchemy column, on a row the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import starmap
from operator import attrgetter
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
)

from msgspec import Struct, StructMeta, field

from diptych.errors import DamagedRow, DefinitionError, Invalid, place, said
from diptych.messages import type_hints
from diptych.read.kinds import Dialect, Storage, bare, kind_of

if TYPE_CHECKING:
    from sqlalchemy import Column, Table

T = TypeVar("T")
V = TypeVar("V", bound="View")


class _KeyMark:
    def __repr__(self) -> str:
        return "KEY"


MAIN = "main"
"""The read database of views that name no other."""

KEY = _KeyMark()
Key = Annotated[T, KEY]
"""Marks a field that is (part of) the key of a row: ``order: Key[str]``."""


class ViewField(Struct, frozen=True):
    """A field of a view: its name, its type apart from marks, and how it is stored."""

    name: str
    type: Any
    kind: Any
    key: bool


class Definition:
    """What the class statement of a view says, read once; made when first needed."""

    def __init__(
        self, view: type[View], table: str, store: str, indexes: tuple[tuple[str, ...], ...]
    ) -> None:
        self.view = view
        self.store = store
        self.table_name = table
        self.indexes = indexes
        self.at = place(view)
        self.names: tuple[str, ...] = view.__struct_fields__
        self._fields: tuple[ViewField, ...] | None = None
        self._table: Table | None = None
        self._key_of: Callable[[Any], Any] | None = None
        self._layouts: dict[Dialect, Layout] = {}

    @property
    def fields(self) -> tuple[ViewField, ...]:
        """The fields, checked; ``DefinitionError`` names what cannot be stored."""
        if self._fields is None:
            self._fields = self._read()
        return self._fields

    @property
    def key_fields(self) -> tuple[ViewField, ...]:
        """The fields that make the key."""
        return tuple(f for f in self.fields if f.key)

    @property
    def table(self) -> Table:
        """The SQLAlchemy table."""
        if self._table is None:
            from diptych.read.tables import table_of

            self._table = table_of(self)
        return self._table

    def column(self, name: str) -> Column[Any]:
        """Return the SQLAlchemy column of a field."""
        return self.table.c[name]

    @property
    def key_of(self) -> Callable[[Any], Any]:
        """The function from a row (or anything with such fields) to its key.

        A key of one field is its value; a key of several is a tuple.
        """
        if self._key_of is None:
            self._key_of = attrgetter(*[f.name for f in self.key_fields])
        return self._key_of

    def on(self, dialect: Dialect) -> Layout:
        """Return how the rows are laid out in a database."""
        if dialect not in self._layouts:
            self._layouts[dialect] = Layout(self, dialect)
        return self._layouts[dialect]

    # --- reading the class ------------------------------------------------------------------------

    def _read(self) -> tuple[ViewField, ...]:
        found: list[ViewField] = []
        for name, hint in type_hints(self.view).items():
            key = get_origin(hint) is Annotated and KEY in get_args(hint)[1:]
            kind = kind_of(hint, self.at, name)
            if name.startswith("_"):
                raise DefinitionError(
                    "A view's field does not begin with '_'", at=self.at, field=name
                )
            if key and (kind.optional or kind.name in ("float", "json")):
                raise DefinitionError(
                    "A key field is not a float, not optional, and not nested",
                    at=self.at,
                    field=name,
                )
            found.append(ViewField(name, bare(hint), kind, key))
        if not any(f.key for f in found):
            raise DefinitionError(
                "A view needs a key; mark one or more fields, as in `order: Key[str]`", at=self.at
            )
        for index in self.indexes:
            for name in index:
                if name not in self.names:
                    raise DefinitionError(
                        "An index names fields of its view", at=self.at, index=index, field=name
                    )
        return tuple(found)


class Layout:
    """A view's rows in one kind of database: as values that its driver takes and gives."""

    def __init__(self, definition: Definition, dialect: Dialect) -> None:
        self._view = definition.view
        self._names = definition.names
        self._kinds = {f.name: f.kind for f in definition.fields}
        self.columns: dict[str, Storage] = {f.name: f.kind.on(dialect) for f in definition.fields}
        self.keys: dict[str, Storage] = {
            f.name: self.columns[f.name] for f in definition.key_fields
        }
        first, *others = self.keys
        as_it_is = self.keys[first].write is None and self.keys[first].check is None
        self._plain = self._kinds[first] if as_it_is and not others else None
        self._reads = any(storage.read is not None for storage in self.columns.values())

    def to_columns(self, rows: Sequence[View]) -> list[Sequence[Any]]:
        """Return the rows' SQL values, a sequence for each column."""
        names = self._names
        if len(names) == 1:
            return self._written(self.columns, [[getattr(row, names[0]) for row in rows]])
        return self._written(self.columns, zip(*map(attrgetter(*names), rows), strict=True))

    def require_storable(self, rows: Sequence[View]) -> None:
        """Raise ``Invalid`` for a row that cannot be stored, as far as is known without trying."""
        for name, column in zip(self.columns, self.to_columns(rows), strict=True):
            try:
                "".join([value for value in column if type(value) is str]).encode()
            except UnicodeEncodeError as error:
                raise Invalid(
                    "A row is not valid: half a character cannot be stored",
                    field=name,
                    rule="no lone surrogates",
                    view=self._view.__name__,
                ) from error

    def keys_to_columns(self, keys: Sequence[Any]) -> list[Sequence[Any]]:
        """Return the SQL values of keys, a sequence for each key field."""
        columns = [keys] if len(self.keys) == 1 else zip(*keys, strict=True)
        return self._written(self.keys, columns)

    def _written(
        self, storages: dict[str, Storage], columns: Iterable[Sequence[Any]]
    ) -> list[Sequence[Any]]:
        written: list[Sequence[Any]] = []
        for (name, storage), column in zip(storages.items(), columns, strict=True):
            try:
                self._kinds[name].require(name, column)
                written.append(storage.to_column(column))
            except Invalid as error:
                # It names a path below the column, or the type; a reader wants the column.
                path = error.field if error.field.startswith(name) else name
                facts = {**error.facts, "field": path, "view": self._view.__name__}
                raise Invalid(error.message, **facts) from error
        return written

    def findable(self, keys: Sequence[Any]) -> list[Sequence[Any]]:
        """Return the SQL values of keys to look for; those that no row can have are left out.

        Where none is left, there are no columns.
        """
        try:
            return self.keys_to_columns(keys)
        except Invalid:
            kept = [key for key in keys if len(keys) > 1 and self.findable([key])]
            return self.keys_to_columns(kept) if kept else []

    def key_values(self, key: Any) -> list[Any]:
        """Return the SQL values of one key; ``Invalid`` when it is not as wide as the view's."""
        fields: Any = key
        if (len(fields) if isinstance(key, tuple) else 1) != len(self.keys):
            raise Invalid(
                f"That is no key of {self._view.__name__}",
                field="key",
                rule="a tuple of " + ", ".join(self.keys) if len(self.keys) > 1 else "one value",
                got=key,
            )
        if self._plain is not None and type(fields) in self._plain.types:  # the usual one, often
            return [key]
        return [column[0] for column in self.keys_to_columns([key])]

    def from_rows(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Return rows of the view from rows of SQL values."""
        if not rows:
            return []
        if self._reads:
            columns = zip(self.columns.values(), zip(*rows, strict=True), strict=True)
            try:
                rows = list(zip(*[s.from_column(c) for s, c in columns], strict=True))
            except Exception as error:
                raise self._damaged(rows, error) from error
        return list(starmap(self._view, rows))

    def _damaged(self, rows: Iterable[Sequence[Any]], failure: Exception) -> Exception:
        """Return the error of the first row that cannot be read: its key, column and value."""
        for row in rows:
            read: dict[str, Any] = {}
            wrong: dict[str, Exception] = {}
            for (name, storage), value in zip(self.columns.items(), row, strict=True):
                try:
                    (read[name],) = storage.from_column([value])
                except Exception as error:
                    read[name], wrong[name] = value, error
            for name, why in wrong.items():
                key = [read[field] for field in self.keys]
                only = key[0] if len(key) == 1 else tuple(key)
                return damaged_row(self._view, only, name, read[name], why)
        return failure


def damaged_row(view: Any, key: Any, column: str, got: Any, why: Exception) -> DamagedRow:
    """Return the error of a stored row that cannot be read."""
    return DamagedRow(
        "A stored row cannot be read: somebody has changed it. `diptych projections rewind` has "
        "the rows of its projection made anew from the log",
        view=view.__name__,
        key=key,
        column=column,
        got=got,
        why=said(why),
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


_TAKEN = frozenset({"log", "events", "event_tags", "idempotency_keys"})
_STORE = re.compile(r"[a-z][a-z0-9_-]*\Z")
_TABLE = re.compile(r"[a-z_][a-z0-9_]*\Z")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class ViewMeta(StructMeta):
    """Frozen structs whose fields are, on the class, SQLAlchemy columns."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        table: str | None = None,
        store: str = MAIN,
        indexes: Iterable[Iterable[str]] = (),
    ) -> Any:
        cls: Any = super().__new__(mcls, name, bases, namespace, frozen=True, gc=False)
        cls.__view__ = None
        if bases and bases != (Struct,):
            called = table or _snake(name)
            if (
                not _TABLE.match(called)
                or called.startswith(("diptych_", "sqlite_"))
                or called in _TAKEN
            ):
                raise DefinitionError(
                    "A table's name is made of a-z, 0-9 and '_'; names in diptych_ and sqlite_ "
                    "and those of the log's tables are taken",
                    at=place(cls),
                    table=called,
                )
            if not _STORE.match(store):
                raise DefinitionError(
                    "A read database's name is a word of a-z, 0-9, '_' and '-'",
                    at=place(cls),
                    store=store,
                )
            listed = tuple(tuple(index) for index in indexes)
            cls.__view__ = Definition(cls, called, store, listed)
        return cls

    def __getattribute__(cls, name: str) -> Any:
        # Only names of fields are columns: everything else goes the usual way.
        if name[:1] != "_":
            definition = type.__getattribute__(cls, "__view__")
            if definition is not None and name in definition.names:
                return definition.column(name)
        return type.__getattribute__(cls, name)

    if not TYPE_CHECKING:

        def __clause_element__(cls) -> Any:
            """Let SQLAlchemy take the class for its table."""
            return cls.__view__.table


class View(Struct, metaclass=ViewMeta):
    """One row of a read model.

    Class keywords: ``table`` (default: the class's name in snake_case); ``indexes``, tuples of
    field names: ``indexes=(("customer",), ("status", "total"))``; ``store``, the name of the read
    database it is kept in, where there are several.
    """

    __view__: ClassVar[Any]


def definition_of(view: type[View]) -> Definition:
    """Return what is known of a view."""
    found: Definition | None = getattr(view, "__view__", None)
    if found is None:
        raise DefinitionError("A view is a subclass of View", at=place(view))
    return found


def is_view(thing: Any) -> bool:
    """Whether this is a class of views."""
    return isinstance(thing, ViewMeta) and thing is not View


__all__ = ["KEY", "Definition", "Key", "Layout", "View", "ViewField", "definition_of", "is_view"]
