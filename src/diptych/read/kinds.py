"""How a field's value is kept in a column: typed, readable in a shell, sorted right, exact.

Converters work on whole columns, since a call for each value would be the engine's largest cost.
"""

from __future__ import annotations

import enum
import math
import typing
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec import Struct

from diptych.codec import flaw_finder
from diptych.errors import DefinitionError, Invalid
from diptych.messages import without_none

Convert = Callable[[Any], Any]
Storage = Literal["TEXT", "INTEGER", "REAL"]

DECIMAL_COLLATION: Final = "diptych_decimal"
"""The collation that compares decimals by their value; our connections know it."""

INT64: Final = range(-(2**63), 2**63)

_json = msgspec.json.Encoder().encode


class Kind:
    """How values of one type are stored; ``write`` and ``read`` are None where nothing changes."""

    __slots__ = ("check", "name", "optional", "read", "storage", "write")

    def __init__(
        self,
        name: str,
        storage: Storage,
        write: Convert | None = None,
        read: Convert | None = None,
        check: Callable[[Iterable[Any]], None] | None = None,
        *,
        optional: bool = False,
    ) -> None:
        self.name = name
        self.storage = storage
        self.write = write
        self.read = read
        self.check = check
        self.optional = optional

    def to_column(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return the values as the database keeps them."""
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
        name, storage, write, read, check = simple
        return Kind(name, storage, write, read, check, optional=optional)
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


def _write_decimal(value: Decimal) -> str:
    text = str(value)
    if text[-1] in "yNn":  # Infinity, NaN
        raise Invalid("A row is not valid", field="Decimal", rule="a number, finite", got=text)
    return text


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


def _check_ints(values: Iterable[Any]) -> None:
    listed = values if isinstance(values, (list, tuple)) else list(values)
    if listed and (min(listed) not in INT64 or max(listed) not in INT64):
        raise Invalid(
            "A row is not valid: SQL integers have 64 bits; declare the field as Decimal or str",
            field="int",
            rule="-2^63 <= value < 2^63",
            got=next(v for v in listed if v not in INT64),
        )


def _check_floats(values: Iterable[Any]) -> None:
    if any(math.isnan(v) for v in values):
        raise Invalid("A row is not valid", field="float", rule="a number, not NaN")


_Simple = tuple[
    str, Storage, Convert | None, Convert | None, Callable[[Iterable[Any]], None] | None
]
_SIMPLE: dict[type, _Simple] = {
    str: ("str", "TEXT", None, None, None),
    int: ("int", "INTEGER", None, None, _check_ints),
    float: ("float", "REAL", None, None, _check_floats),
    bool: ("bool", "INTEGER", int, bool, None),
    Decimal: ("decimal", "TEXT", _write_decimal, _read_decimal, None),
    datetime: ("datetime", "TEXT", _write_datetime, datetime.fromisoformat, None),
    date: ("date", "TEXT", date.isoformat, date.fromisoformat, None),
    UUID: ("uuid", "TEXT", str, UUID, None),
}


# --- kinds made from a type -----------------------------------------------------------------------


def _stored_like(values: Sequence[Any], at: str, field: str) -> Storage:
    if values and all(type(v) is int for v in values):
        return "INTEGER"
    if values and all(isinstance(v, str) for v in values):
        return "TEXT"
    raise DefinitionError("The values of an enum are all str, or all int", at=at, field=field)


def _literal(values: Sequence[Any], optional: bool, at: str, field: str) -> Kind:
    return Kind("literal", _stored_like(values, at, field), optional=optional)


def _enum(cls: type[enum.Enum], optional: bool, at: str, field: str) -> Kind:
    storage = _stored_like([m.value for m in cls], at, field)
    check = _check_ints if storage == "INTEGER" else None

    def write(value: Any) -> Any:
        return value.value

    return Kind("enum", storage, write, cls, _enum_ints if check else None, optional=optional)


def _enum_ints(values: Iterable[Any]) -> None:
    _check_ints([v.value for v in values])


def _nested(hint: Any, optional: bool, at: str, field: str) -> Kind:
    try:
        decode = msgspec.json.Decoder(hint).decode
        holder = msgspec.defstruct("Holder", [("value", hint)])
        find_flaw = flaw_finder(holder)
    except (TypeError, NameError) as error:
        raise DefinitionError(
            "A nested field has a type that cannot be kept as JSON", at=at, field=field, why=error
        ) from error

    def write(value: Any) -> str:
        if find_flaw is not None and (flaw := find_flaw(holder(value))) is not None:
            path, rule = flaw
            raise Invalid("A row is not valid", field=field + path.removeprefix("value"), rule=rule)
        return _json(value).decode()

    return Kind("json", "TEXT", write, decode, optional=optional)


def compare_decimals(left: str, right: str) -> int:
    """Order two decimals in text by their value (1.0 equals 1.00)."""
    try:
        a, b = Decimal(left), Decimal(right)
    except ArithmeticError:
        return (left > right) - (left < right)
    return (a > b) - (a < b)
