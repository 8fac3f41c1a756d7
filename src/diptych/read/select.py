"""``select``, typed for views; at run time it is SQLAlchemy's.

On the class a view's field looks to type checkers like its value, so a comparison looks like a
bool: this is the facade under which they agree.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from diptych.read.views import View, definition_of, is_view

if TYPE_CHECKING:
    from typing import Self

    from sqlalchemy import ColumnElement, FromClause, Select

T = TypeVar("T")
V_co = TypeVar("V_co", bound=View, covariant=True)
V = TypeVar("V", bound=View)


class SelectOf(Protocol[V_co]):
    """A select of rows of one view. Every method gives a new statement."""

    def where(self, *conditions: bool | ColumnElement[bool]) -> Self:
        """Keep the rows for which all conditions hold."""
        ...

    def order_by(self, *columns: Any) -> Self:
        """Sort by columns; ``column(View.field).desc()`` for descending."""
        ...

    def limit(self, limit: int) -> Self:
        """Return at most so many rows."""
        ...

    def offset(self, offset: int) -> Self:
        """Pass over so many rows."""
        ...

    def distinct(self) -> Self:
        """Return equal rows once."""
        ...

    def join(self, target: Any, onclause: bool | ColumnElement[bool] | None = None) -> Self:
        """Join another view (only to filter by it: the rows stay those of this view)."""
        ...

    def __view_of__(self) -> V_co:
        """Tell type checkers what the rows are; there is no such method at run time."""
        ...


if TYPE_CHECKING:
    from typing import overload

    @overload
    def select(view: type[V], /) -> SelectOf[V]: ...
    @overload
    def select(one: ColumnElement[Any] | FromClause, /) -> Select[*tuple[Any, ...]]: ...
    @overload
    def select(one: Any, two: Any, /, *more: Any) -> Select[*tuple[Any, ...]]: ...
    def select(*columns: Any) -> Any:
        """Return a statement."""

    def column(field: T, /) -> ColumnElement[T]:
        """Return a column."""
        ...

else:

    @cache
    def _build() -> Any:
        """SQLAlchemy is slow to load: it is imported when the first statement is written."""
        from sqlalchemy import select as build

        return build

    def select(*columns: Any) -> Any:
        """Return SQLAlchemy's select of a view's rows, or of columns."""
        # It finds the table of a class by itself, in five times the time.
        tables = [definition_of(one).table if is_view(one) else one for one in columns]
        return _build()(*tables)

    def column(field: Any, /) -> Any:
        """Return a view's field as the SQLAlchemy column that it is: ``column(V.total).desc()``."""
        return field
