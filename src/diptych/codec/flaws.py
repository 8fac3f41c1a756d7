"""What the types of fields cannot say: which times, numbers and texts no database would keep."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, TypeAlias, Union, cast, get_args, get_origin

from msgspec import Struct

from diptych.messages import type_hints

DIGITS: Final = 2000
"""How many digits a Decimal has at most before its point, and as many after it.

Every database keeps so many, in an index too; and none can be made to calculate for hours.
"""

LARGEST: Final = 2**63 - 1
"""The largest int of a message; the smallest is ``-LARGEST - 1``. Columns hold no others."""

Flaw: TypeAlias = tuple[str, str]
"""The path to what is unfit, and the rule that it breaks."""

Check: TypeAlias = Callable[[Any], Flaw | None]


def flaw_finder(cls: type, *, bounded: bool = False) -> Check | None:
    """Return the function that finds an unfit datetime or Decimal in a struct.

    With ``bounded`` an int beyond 64 bits, too. It returns the path to it and the rule; None where
    there is none. None instead of a function: the struct holds no such type.
    """
    return _struct_check(cls, _BOUNDED if bounded else _PLAIN, {})


def _struct_check(cls: type, unfit: Unfit, known: dict[type, Check]) -> Check | None:
    if cls in known:  # a struct within itself
        return lambda value: known[cls](value)
    checks: list[tuple[str, Check]] = []

    def check(value: Any) -> Flaw | None:
        if isinstance(value, cls):
            for name, part in checks:
                if (flaw := part(getattr(value, name))) is not None:
                    return _below(name, flaw)
        return None

    known[cls] = check
    for name, hint in type_hints(cls).items():
        if (part := _check_of(hint, unfit, known)) is not None:
            checks.append((name, part))
    return check if checks else None


def _check_of(hint: Any, unfit: Unfit, known: dict[type, Check]) -> Check | None:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _check_of(args[0], unfit, known)
    if hint in unfit:
        return unfit[hint]
    if isinstance(hint, type) and issubclass(hint, Struct):
        return _struct_check(hint, unfit, known)
    parts = [part for arg in args if (part := _check_of(arg, unfit, known)) is not None]
    if not parts:
        return None
    if origin in (Union, types.UnionType):
        return parts[0] if len(parts) == 1 else _any_of(parts)
    return _each(parts)


def _unfit_time(value: Any) -> Flaw | None:
    if not isinstance(value, datetime):
        return None
    if value.tzinfo is None:
        return "", "a datetime must carry its time zone"
    if value.year in (MINYEAR, MAXYEAR):
        try:
            value.astimezone(UTC)
        except OverflowError:
            return "", f"a time of the years {MINYEAR} to {MAXYEAR} in UTC"
    return None


def _unfit_int(value: Any) -> Flaw | None:
    if type(value) is int and not -LARGEST - 1 <= value <= LARGEST:
        return "", "an int of 64 bits; a Decimal or a str holds longer ones"
    return None


def _unfit_decimal(value: Any) -> Flaw | None:
    if isinstance(value, Decimal) and (rule := decimal_flaw(value)):
        return "", rule
    return None


Unfit: TypeAlias = dict[Any, Check]

_PLAIN: Final[Unfit] = {datetime: _unfit_time, Decimal: _unfit_decimal}
_BOUNDED: Final[Unfit] = {**_PLAIN, int: _unfit_int}


def decimal_flaw(value: Decimal) -> str:
    """Return the rule that a decimal breaks; nothing when it is finite, and not too long."""
    if not value.is_finite():
        return "a finite number"
    text = str(value)
    if len(text) > DIGITS or "E" in text:  # else there is nothing to count
        exponent = value.as_tuple().exponent
        assert isinstance(exponent, int)
        if value.adjusted() >= DIGITS or exponent < -DIGITS:
            return f"at most {DIGITS} digits before the point, and as many after it"
    return ""


def _any_of(parts: list[Check]) -> Check:
    return lambda value: next((f for part in parts if (f := part(value)) is not None), None)


def _each(parts: list[Check]) -> Check:
    """Check the items of a list, or the keys and values of a dict."""

    def check(value: Any) -> Flaw | None:
        items: list[tuple[Any, Any]] = []
        if issubclass(type(value), dict):
            for key, item in value.items():
                items += [(key, key), (key, item)]
        elif issubclass(type(value), (list, tuple, set, frozenset)):
            for item in value:
                items.append((len(items), item))
        for index, item in items:
            for part in parts:
                if (flaw := part(item)) is not None:
                    return _below(f"[{index}]", flaw)
        return None

    return check


def _below(name: str, flaw: Flaw) -> Flaw:
    path, rule = flaw
    return (f"{name}.{path}" if path and path[0] != "[" else name + path), rule


def decimal_remedy(error: Exception) -> str:
    """Return how a Decimal is bounded, where msgspec refused to do it; else nothing."""
    text = str(error)
    if "decimal.Decimal" not in text or "numeric type" not in text:
        return ""
    return "; Meta bounds no Decimal: raise ValueError in the command's __post_init__"


def place_of_nul(given: Any, path: str = "") -> str | None:
    """Return the path to a text with the character U+0000 in decoded JSON; None: there is none."""
    if isinstance(given, str):
        return path if "\0" in given else None
    items: list[tuple[str, Any]] = []
    if isinstance(given, dict):
        fields = cast("dict[str, Any]", given)
        if any("\0" in name for name in fields):
            return path
        items = [(f"{path}.{name}" if path else name, value) for name, value in fields.items()]
    elif isinstance(given, list):
        listed = cast("Sequence[Any]", given)
        items = [(f"{path}[{index}]", value) for index, value in enumerate(listed)]
    return next((f for at, one in items if (f := place_of_nul(one, at)) is not None), None)
