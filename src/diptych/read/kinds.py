"""How a field's value is kept in a column: typed, readable in a shell, sorted right, exact.

Converters work on whole columns, since a call for each value would be the engine's largest cost.
"""

from __future__ import annotations

import enum
import math
import typing
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec import Struct

from diptych.codec import decimal_flaw, decimal_remedy, flaw_finder
from diptych.errors import DefinitionError, Invalid
from diptych.messages import without_none

Convert = Callable[[Any], Any]
Check = Callable[[Sequence[Any]], None]
Dialect = Literal["sqlite", "postgresql", "duckdb"]
"""The databases that we keep views in, by SQLAlchemy's names for them."""

DECIMAL_COLLATION: Final = "diptych_decimal"
"""The collation that compares decimals by their value; our SQLite connections know it."""

INT64: Final = range(-(2**63), 2**63)
LONGEST_SHOWN: Final = 60
"""How many digits of a decimal an error shows."""

_json = msgspec.json.Encoder().encode


class Storage(Struct, frozen=True):
    """How values of one type are kept in one database, in a column of the type ``sql``.

    ``write`` and ``read`` are None where the driver takes and gives the values as they are;
    ``check`` raises ``Invalid`` for what the column cannot hold. ``sent`` is the SQL type in which
    values are sent to be cast, where the driver is not exact or slow with that of the column.
    """

    sql: str
    write: Convert | None = None
    read: Convert | None = None
    check: Check | None = None
    optional: bool = False
    sent: str = ""

    def to_column(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return the values as the database takes them."""
        if self.check is not None:
            self.check([v for v in values if v is not None] if self.optional else values)
        write = self.write
        if write is None:
            return values
        if self.optional:
            return [None if v is None else write(v) for v in values]
        return [write(v) for v in values]

    def from_column(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return values that the database gave as the field's type says."""
        read = self.read
        if read is None:
            return values
        if self.optional:
            return [None if v is None else read(v) for v in values]
        return [read(v) for v in values]


class Kind:
    """A type that a view's field may have, and how it is stored in each database.

    ``types`` are the classes of its values; none where writing them looks at them itself.
    """

    __slots__ = ("name", "optional", "postgresql", "sqlite", "types")

    def __init__(
        self,
        name: str,
        sqlite: Storage,
        postgresql: Storage,
        *types: type,
        optional: bool = False,
    ) -> None:
        self.name = name
        self.optional = optional
        self.types = frozenset((*types, type(None)) if types and optional else types)
        self.sqlite = msgspec.structs.replace(sqlite, optional=optional)
        self.postgresql = msgspec.structs.replace(postgresql, optional=optional)

    def require(self, field: str, values: Iterable[Any]) -> None:
        """Raise ``Invalid`` for a value of another type: nothing checks what a fold returns."""
        if not self.types or self.types.issuperset(map(type, values)):
            return
        for value in values:
            # A datetime is a date to Python, but not to anybody who reads the column.
            other = isinstance(value, datetime) and datetime not in self.types
            if other or not isinstance(value, tuple(self.types)):
                raise Invalid(
                    "A row is not valid",
                    field=field,
                    rule=" or ".join(sorted(cls.__name__ for cls in self.types)),
                    got=f"{value!r}, which is of type {type(value).__name__}",
                )

    def on(self, dialect: Dialect) -> Storage:
        """Return how it is stored in a database."""
        if dialect == "duckdb":
            found = _DUCKDB.get(self.name, self.sqlite)
            sql = {"INTEGER": "BIGINT", "REAL": "DOUBLE"}.get(found.sql, found.sql)
            return msgspec.structs.replace(found, sql=sql, optional=self.optional)
        return self.postgresql if dialect == "postgresql" else self.sqlite


def bare(hint: Any) -> Any:
    """Return a type without its annotations and new names."""
    while True:
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        else:
            return hint


def kind_of(hint: Any, at: str, field: str) -> Kind:
    """Return how a field of this type is stored; ``DefinitionError`` when it cannot be."""
    inner, optional = without_none(bare(hint))
    inner = bare(inner)
    simple = _SIMPLE.get(inner) if isinstance(inner, type) else None
    if simple is not None:
        kinds = (float, int) if inner is float else (inner,)
        return Kind(*simple, *kinds, optional=optional)
    if get_origin(inner) is Literal:
        return _literal(get_args(inner), optional, at, field)
    if isinstance(inner, type) and issubclass(inner, enum.Enum):
        return _enum(inner, optional, at, field)
    if get_origin(inner) in (list, tuple) or (
        isinstance(inner, type) and issubclass(inner, (Struct, list, tuple))
    ):
        return _nested(inner, optional, at, field)
    raise DefinitionError(
        "A view's field is a str, int, float, bool, Decimal, datetime, date, UUID, enum, struct, "
        "a list of these, or one of them or None",
        at=at,
        field=field,
        type=hint,
    )


# --- simple kinds ---------------------------------------------------------------------------------


def _write_datetime(value: datetime) -> str:
    if value.tzinfo is not UTC:
        if value.tzinfo is None:
            raise Invalid(
                "A row is not valid", field="datetime", rule="a datetime must carry its time zone"
            )
        value = value.astimezone(UTC)
    return value.isoformat(timespec="microseconds")[:26] + "Z"


def _read_decimal(value: Any) -> Decimal:
    if not isinstance(value, str):
        raise Invalid(
            "SQLite has calculated with a Decimal as a binary fraction, which is not exact; "
            "select the values and calculate in Python, or keep the sum in a view",
            field="Decimal",
            rule="exact",
            got=value,
        )
    return Decimal(value)


def is_int64(value: int) -> bool:
    """Whether an int has 64 bits. (``in INT64`` would count up to a member of an IntEnum.)"""
    return INT64.start <= value < INT64.stop


def _check_ints(values: Sequence[Any]) -> None:
    if values and not (is_int64(min(values)) and is_int64(max(values))):
        raise Invalid(
            "A row is not valid: SQL integers have 64 bits; declare the field as Decimal or str",
            field="int",
            rule="-2^63 <= value < 2^63",
            got=next(v for v in values if not is_int64(v)),
        )


def _check_decimals(values: Sequence[Any]) -> None:
    for value in values:
        if rule := decimal_flaw(value):
            got = str(value)
            got = got if len(got) <= LONGEST_SHOWN else f"{got[:LONGEST_SHOWN]}…"
            raise Invalid("A row is not valid", field="Decimal", rule=rule, got=got)


def _check_floats(values: Sequence[Any]) -> None:
    if any(map(math.isnan, values)):
        raise Invalid("A row is not valid", field="float", rule="a number, not NaN")


# What PostgreSQL cannot hold, or would take for something else; each looks at a column at once.


def _check_texts(values: Sequence[Any]) -> None:
    if "\0" in "".join(values):
        raise Invalid(
            "A row is not valid: PostgreSQL keeps no NUL character in a text",
            field="str",
            rule="no character U+0000",
            got=next(v for v in values if "\0" in v),
        )


def _check_zones(values: Sequence[Any]) -> None:
    if None in map(_zone, values):
        raise Invalid(
            "A row is not valid", field="datetime", rule="a datetime must carry its time zone"
        )


def plain_decimal(value: Decimal) -> Decimal:
    """Return a decimal without a positive exponent: asyncpg gives 1E+4 for 10000."""
    return Decimal(f"{value:f}") if "E+" in str(value) else value


def _plain_uuid(value: Any) -> UUID:
    """Return what asyncpg gives, which is of a class of its own, as a plain UUID."""
    return UUID(int=value.int)


_zone = attrgetter("tzinfo")
_SIMPLE: dict[type, tuple[str, Storage, Storage]] = {
    str: ("str", Storage("TEXT"), Storage("text", check=_check_texts)),
    int: ("int", Storage("INTEGER", check=_check_ints), Storage("bigint", check=_check_ints)),
    float: (
        "float",
        Storage("REAL", check=_check_floats),
        Storage("double precision", check=_check_floats),
    ),
    bool: ("bool", Storage("INTEGER", int, bool), Storage("boolean")),
    Decimal: (
        "decimal",
        Storage("TEXT", str, _read_decimal, _check_decimals),
        Storage("numeric", str, plain_decimal, _check_decimals, sent="text"),
    ),
    datetime: (
        "datetime",
        Storage("TEXT", _write_datetime, datetime.fromisoformat),
        Storage("timestamp with time zone", check=_check_zones),
    ),
    date: ("date", Storage("TEXT", date.isoformat, date.fromisoformat), Storage("date")),
    UUID: ("uuid", Storage("TEXT", str, UUID), Storage("uuid", None, _plain_uuid)),
}


# --- DuckDB: what can be calculated with is kept as what it is; all else as in SQLite -------------

_DUCKDB_DIGITS: Final = Decimal("1e28")
_DUCKDB_STEP: Final = Decimal("1e-10")
_WIDE: Final = Context(prec=60)


def _check_duckdb_decimals(values: Sequence[Decimal]) -> None:
    _check_decimals(values)
    for value in values:
        # (copy_abs does not calculate: no context has a word in it.)
        if (
            value.copy_abs() >= _DUCKDB_DIGITS
            or value.quantize(_DUCKDB_STEP, context=_WIDE) != value
        ):
            raise Invalid(
                "A row is not valid: DuckDB keeps decimals as DECIMAL(38,10)",
                field="Decimal",
                rule="28 digits before the point and 10 after it",
                got=value,
            )


def _read_duckdb_decimal(value: Any) -> Decimal:
    """Return a decimal without the zeros that every value of a column is filled up with."""
    return Decimal(f"{value.normalize(_WIDE):f}")


def _write_duckdb_datetime(value: datetime) -> datetime:
    return value.astimezone(UTC).replace(tzinfo=None)


def _read_duckdb_datetime(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC)


_DUCKDB: dict[str, Storage] = {
    "bool": Storage("BOOLEAN"),
    "decimal": Storage("DECIMAL(38,10)", None, _read_duckdb_decimal, _check_duckdb_decimals),
    "datetime": Storage("TIMESTAMP", _write_duckdb_datetime, _read_duckdb_datetime, _check_zones),
    "date": Storage("DATE"),
    "uuid": Storage("UUID"),
}


# --- kinds made from a type -----------------------------------------------------------------------


def _of_values(
    name: str,
    values: Sequence[Any],
    write: Convert | None = None,
    read: Convert | None = None,
    check: Check | None = None,
) -> tuple[str, Storage, Storage] | None:
    columns = ("INTEGER", "bigint")
    if not values or not all(type(v) is int and v in INT64 for v in values):
        columns = ("TEXT", "text")
        if not values or not all(isinstance(v, str) for v in values):
            return None
    sqlite, postgresql = (Storage(sql, write, read, check) for sql in columns)
    return name, sqlite, postgresql


def _literal(values: Sequence[Any], optional: bool, at: str, field: str) -> Kind:
    known = frozenset(values)

    def check(column: Sequence[Any]) -> None:
        if not known.issuperset(column):
            bad = next(value for value in column if value not in known)
            raise Invalid(
                "A row is not valid",
                field="Literal",
                rule="one of " + ", ".join(map(repr, values)),
                got=repr(bad),
            )

    found = _of_values("literal", values, check=check)
    types: set[type] = {type(value) for value in values}
    return _made(found, optional, at, field, *types)


def _enum(cls: type[enum.Enum], optional: bool, at: str, field: str) -> Kind:
    found = _of_values("enum", [m.value for m in cls], attrgetter("value"), cls)
    return _made(found, optional, at, field, cls)


def _made(
    found: tuple[str, Storage, Storage] | None, optional: bool, at: str, field: str, *types: type
) -> Kind:
    if found is None:
        raise DefinitionError(
            "The values of an enum are all str, or all int (of 64 bits)", at=at, field=field
        )
    return Kind(*found, *types, optional=optional)


def _nested(hint: Any, optional: bool, at: str, field: str) -> Kind:
    try:
        decode = msgspec.json.Decoder(hint).decode
        holder = msgspec.defstruct("Holder", [("value", hint)])
        find_flaw = flaw_finder(holder)
    except (TypeError, NameError) as error:
        raise DefinitionError(
            "A nested field has a type that cannot be kept as JSON" + decimal_remedy(error),
            at=at,
            field=field,
            why=error,
        ) from error

    def write(value: Any) -> str:
        if find_flaw is not None and (flaw := find_flaw(holder(value))) is not None:
            path, rule = flaw
            raise Invalid("A row is not valid", field=field + path.removeprefix("value"), rule=rule)
        try:
            text = _json(value)
            decode(text)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Invalid("A row is not valid", field=field, rule=str(error), got=value) from error
        return text.decode()

    # Not jsonb: that would reorder keys, and write 1e16 as an int.
    return Kind(
        "json",
        Storage("TEXT", write, decode),
        Storage("json", write, decode),
        optional=optional,
    )


def compare_decimals(left: str, right: str) -> int:
    """Order two decimals in text by their value (1.0 equals 1.00)."""
    try:
        a, b = Decimal(left), Decimal(right)
    except ArithmeticError:
        return (left > right) - (left < right)
    return (a > b) - (a < b)
