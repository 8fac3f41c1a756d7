"""The port of row stores: databases that keep rows by key, and no checkpoints.

Such a store needs no transactions. What makes each effect happen once is that every row carries its
position, and that only a higher one replaces it: see `RowsBeside`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from msgspec import Struct

from diptych.read.kinds import Kind
from diptych.read.port import (
    Definition,
    Layout,
    Storage,
    View,
    damaged_row,
    definition_of,
    key_text,
)

if TYPE_CHECKING:
    from diptych.read.statements import Planned


class RowTable(Struct, frozen=True):
    """A table of a row store: its name there, and the view whose rows it has."""

    name: str
    view: type[View]

    @property
    def definition(self) -> Definition:
        """What is known of the view."""
        return definition_of(self.view)


class Placed(NamedTuple):
    """A row, or None where it is deleted, as of the last event that was folded for its key."""

    row: Any
    position: int


class Loaded(dict[Any, Any]):
    """Rows by key, of a store whose rows may stand beyond their checkpoint.

    ``positions`` says, for each key whose row was ever written, also of one that is deleted, up to
    which event it is folded: earlier ones are not folded again.
    """

    def __init__(self, rows: Mapping[Any, Any], positions: Mapping[Any, int]) -> None:
        super().__init__(rows)
        self.positions = positions


class Made(NamedTuple):
    """A table that is there: of which log, and a mark that another one of its name has not."""

    log: str
    mark: str


class RowStore(Protocol):
    """What an adapter offers. All of it raises ``Unavailable`` when the database is away."""

    async def tables(self, names: Iterable[str]) -> dict[str, Made]:
        """Return which of these tables there are."""
        ...

    async def make(self, log: str, table: RowTable) -> None:
        """Make a table, unless it is there. ``DefinitionError`` for one of other columns."""
        ...

    async def drop(self, name: str, mark: str = "") -> None:
        """Drop a table with all its rows, if it is there; with a mark, only if it is that one."""
        ...

    def check(self, table: RowTable, rows: Sequence[View]) -> None:
        """Raise ``Invalid`` for a row that the store cannot hold. Nothing is read or written."""
        ...

    async def load(self, table: RowTable, keys: Sequence[Any]) -> dict[Any, Placed]:
        """Return what was ever written for these keys, deleted rows too; other keys are left out.

        A key that no row can have is no error.
        """
        ...

    async def write(self, table: RowTable, rows: Mapping[Any, Placed]) -> bool:
        """Put rows, or mark them as deleted (row None), by key.

        False, and nothing done, where the table was made anew since this object first made it or
        read from it: what is to be written rests on rows that are no more. The next call goes by
        the new one.

        Guarded, key by key and atomically: what is there with the same or a higher position stays.
        All rows are checked before the first is written; it may fail half-way. Raises ``Invalid``
        (`check`), and ``Unavailable`` where the table is not there.
        """
        ...

    def scan(self, table: RowTable) -> AsyncIterator[Any]:
        """Iterate over the rows there are, in any order; one may come twice.

        In place of one that somebody has changed, so that it cannot be read, may stand the
        ``DamagedRow`` that says so.
        """
        ...

    def values(
        self, table: RowTable, columns: Sequence[str], keys: Sequence[Any] | None = None
    ) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
        """Iterate over the keys of the rows there are, and what is stored in some columns.

        Of all rows, or of those with these keys. The table may be another version's: of its columns
        only these need be those of the view, and its key. One row may come twice.
        """
        ...

    async def close(self) -> None:
        """Release everything. May be called twice."""
        ...


@runtime_checkable
class AsksRows(Protocol):
    """What a row store offers besides, if it runs SQL. Views go by the names of their tables."""

    async def select(self, planned: Planned[Any]) -> list[Any]:
        """Run a select of one view; return rows of it."""
        ...

    async def select_any(self, planned: Planned[Any]) -> list[tuple[Any, ...]]:
        """Run any select."""
        ...


__all__ = [
    "AsksRows",
    "Definition",
    "Kind",
    "Layout",
    "Loaded",
    "Made",
    "Placed",
    "RowStore",
    "RowTable",
    "Storage",
    "View",
    "damaged_row",
    "definition_of",
    "key_text",
]
