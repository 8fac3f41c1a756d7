"""SQLAlchemy's SQL for PostgreSQL, changed where the same statement would not mean what it means
in SQLite: NULLs sort before all else, and a backslash in LIKE is a backslash.

``IN`` over a list is ``= ANY`` over an array, so a statement has one text however long the list.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import Column, String, TypeDecorator, nulls_first, nulls_last
from sqlalchemy.dialects.postgresql.asyncpg import PGCompiler_asyncpg, PGDialect_asyncpg
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import ClauseList, TextClause
from sqlalchemy.types import NullType, TupleType, TypeEngine, UserDefinedType

from diptych.read.statements import Renaming, Tables

_Base: Any = PGCompiler_asyncpg  # it is not typed


class ListOf(UserDefinedType[Any]):
    """The type of an array parameter whose elements are of another type."""

    cache_ok = True
    render_bind_cast = True

    def __init__(self, item: TypeEngine[Any], spec: str) -> None:
        self.item = item
        self.spec = spec

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name."""
        return f"{self.spec}[]"

    def bind_processor(self, dialect: Any) -> Any:
        """Return the function that makes the elements what the driver takes."""
        process = self.item.dialect_impl(dialect).bind_processor(dialect)

        def listed(values: Any) -> list[Any]:
            return list(values) if process is None else [process(v) for v in values]

        return listed


class Compiler(Renaming, PGCompiler_asyncpg):
    """Writes statements."""

    def visit_in_op_binary(self, binary: Any, operator: Any, **kw: Any) -> str:
        """Write IN."""
        listed = self._listed(binary.right, **kw)
        if listed is None:
            return str(self._generate_generic_binary(binary, " IN ", **kw))
        return f"{self.process(binary.left, **kw)} = ANY ({listed})"

    def visit_not_in_op_binary(self, binary: Any, operator: Any, **kw: Any) -> str:
        """Write NOT IN."""
        listed = self._listed(binary.right, **kw)
        if listed is None:
            return str(_Base.visit_not_in_op_binary(self, binary, operator, **kw))
        return f"({self.process(binary.left, **kw)} <> ALL ({listed}))"

    def _listed(self, right: Any, **kw: Any) -> str | None:
        """Return a list as an array parameter; None where it must be written out."""
        if right.__visit_name__ != "bindparam" or not right.expanding or right.literal_execute:
            return None
        impl = right.type.dialect_impl(self.dialect)
        inner = impl.impl_instance if isinstance(impl, TypeDecorator) else impl
        if isinstance(inner, (NullType, TupleType)):
            return None
        spec = "text" if isinstance(inner, String) else self.dialect.type_compiler.process(inner)
        array = right._clone(maintain_key=True)
        array.expanding = False
        array.type = ListOf(right.type, spec)
        return str(self.process(array, **kw))

    def visit_like_op_binary(self, binary: Any, operator: Any, **kw: Any) -> str:
        """Write LIKE."""
        return self._without_escape(
            _Base.visit_like_op_binary(self, binary, operator, **kw), binary
        )

    def visit_not_like_op_binary(self, binary: Any, operator: Any, **kw: Any) -> str:
        """Write NOT LIKE."""
        text = _Base.visit_not_like_op_binary(self, binary, operator, **kw)
        return self._without_escape(text, binary)

    def _without_escape(self, text: str, binary: Any) -> str:
        return text if binary.modifiers.get("escape") is not None else f"{text} ESCAPE ''"

    def order_by_clause(self, select: Any, **kw: Any) -> str:
        """Write ORDER BY."""
        never = _never_null(select)
        parts = [
            f"{one._compiler_dispatch(self, **kw)}{_nulls(one, never)}"
            for one in select._order_by_clauses
        ]
        return f" ORDER BY {', '.join(parts)}" if parts else ""

    def visit_over(self, over: Any, **kw: Any) -> str:
        """Write a window."""
        if over.order_by is not None:
            over = over._clone()
            over.order_by = ClauseList(*[_with_nulls(one) for one in over.order_by])
        return str(_Base.visit_over(self, over, **kw))


class Dialect(PGDialect_asyncpg):
    """PostgreSQL, by asyncpg, as it is written here."""

    statement_compiler = Compiler
    supports_statement_cache = True
    tables: ClassVar[Tables] = {}


def _never_null(select: Any) -> bool:
    """Whether columns that refuse NULL are never NULL in a select: there is no outer join."""
    sources: list[Any] = getattr(select, "get_final_froms", list)()
    parts: list[Any] = [part for source in sources for part in visitors.iterate(source)]
    return not any(p.__visit_name__ == "join" and (p.isouter or p.full) for p in parts)


def _bare(clause: Any) -> tuple[Any, bool, bool]:
    """Return what is sorted by, whether downwards, and whether it says where NULLs go."""
    downwards = False
    while True:
        modifier = getattr(clause, "modifier", None)
        if modifier in (operators.nulls_first_op, operators.nulls_last_op):
            return clause, downwards, True
        if modifier is not None:
            downwards |= modifier is operators.desc_op
        elif clause.__visit_name__ not in ("label_reference", "label", "grouping"):
            return clause, downwards, isinstance(clause, TextClause)
        clause = clause.element


def _nulls(clause: Any, never_null: bool) -> str:
    inner, downwards, said = _bare(clause)
    if said or (never_null and isinstance(inner, Column) and not inner.nullable):
        return ""
    return " NULLS LAST" if downwards else " NULLS FIRST"


def _with_nulls(clause: Any) -> Any:
    _, downwards, said = _bare(clause)
    if said:
        return clause
    return nulls_last(clause) if downwards else nulls_first(clause)
