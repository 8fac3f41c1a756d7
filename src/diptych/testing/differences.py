"""What was expected and what came, side by side: one style for events, rows, answers, rejections.

Lines with ``-`` were expected and did not come, lines with ``+`` came and were not expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Final, TypeAlias

from msgspec import Struct

WIDTH: Final = 96
"""Characters in a line that shows an equal value; what is longer is cut."""

RUN: Final = 3
"""Equal neighbours shown; of more, only how many there are."""

HINTS: Final = 5

Line: TypeAlias = tuple[str, int, str]
"""A mark (" ", "-" or "+"), the depth, the text."""

LEGEND: Final = "(- expected, + actual)"


class ScenarioFailed(AssertionError):
    """A scenario did not end as expected. The text shows how, and guesses why."""


def failure(title: str, lines: Iterable[str] = (), hints: Iterable[str] = ()) -> ScenarioFailed:
    """Return the error: a title, a picture, and hints below it."""
    parts = [title]
    if body := [f"  {line}".rstrip() for line in lines]:
        parts.append("\n".join(body))
    told = list(dict.fromkeys(hints))
    if len(told) > HINTS:
        told[HINTS:] = [f"… and {len(told) - HINTS} more like these"]
    if told:
        parts.append("\n".join(f"  hint: {hint}" for hint in told))
    return ScenarioFailed("\n\n".join(parts) + ("\n" if len(parts) > 1 else ""))


def named(kind: type) -> str:
    """Return the name of a class. (What a view's class has is unknown to type checkers.)"""
    return kind.__name__


def short(value: Any, width: int = WIDTH) -> str:
    """Return a value in one line, cut to ``width`` characters."""
    text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def difference(expected: Any, actual: Any) -> list[str]:
    """Return the difference of two values, structs and sequences taken apart."""
    return _drawn(_compare(expected, actual, 0, "", ""))


def sequences(expected: Sequence[Any], actual: Sequence[Any]) -> list[str]:
    """Return the difference of two sequences of messages, in order."""
    return _drawn(_items(expected, actual, 0, ""))


def rows(expected: Sequence[Any], actual: Sequence[Any], key_of: Callable[[Any], Any]) -> list[str]:
    """Return the difference of two sets of rows, paired by their keys."""
    return _drawn(_paired(_by_key(expected, key_of), _by_key(actual, key_of)))


def _drawn(lines: Iterable[Line]) -> list[str]:
    return [LEGEND, *(f"{mark} {'  ' * depth}{text}".rstrip() for mark, depth, text in lines)]


def _by_key(found: Sequence[Any], key_of: Callable[[Any], Any]) -> dict[str, list[Any]]:
    keyed: dict[str, list[Any]] = {}
    for row in found:
        keyed.setdefault(repr(key_of(row)), []).append(row)
    return keyed


def _paired(expected: Mapping[str, list[Any]], actual: Mapping[str, list[Any]]) -> Iterator[Line]:
    equal: list[Any] = []
    for key in sorted({*expected, *actual}):
        wanted, got = expected.get(key, []), actual.get(key, [])
        if wanted == got:
            equal += got
            continue
        yield from _equal(equal, 0, "")
        equal = []
        yield from _items(wanted, got, 0, "")
    yield from _equal(equal, 0, "")


# --- values ---------------------------------------------------------------------------------------


def _compare(expected: Any, actual: Any, depth: int, before: str, after: str) -> Iterator[Line]:
    shape = _shape(expected, actual)
    if _same(expected, actual):
        yield " ", depth, f"{before}{short(actual)}{after}"
    elif shape == "struct":
        yield " ", depth, f"{before}{type(actual).__name__}("
        for field in expected.__struct_fields__:
            yield from _compare(
                getattr(expected, field), getattr(actual, field), depth + 1, f"{field}=", ","
            )
        yield " ", depth, f"){after}"
    elif shape:
        yield " ", depth, f"{before}{shape[0]}"
        inside = _entries if shape == "{}" else _items
        yield from inside(expected, actual, depth + 1, ",")
        yield " ", depth, f"{shape[1]}{after}"
    else:
        plain = repr(expected) != repr(actual)
        yield from _whole("-", expected, depth, before, after if plain else _typed(expected, after))
        yield from _whole("+", actual, depth, before, after if plain else _typed(actual, after))


def _shape(expected: object, actual: object) -> str:
    """Return how to take both apart; "" when they cannot be."""
    cls = type(expected)
    if cls is not type(actual):
        return ""
    shapes = {Struct: "struct", list: "[]", tuple: "()", dict: "{}"}
    return next((shape for kind, shape in shapes.items() if issubclass(cls, kind)), "")


def _same(expected: Any, actual: Any) -> bool:
    return bool(expected == actual)


def _typed(value: Any, after: str) -> str:
    return f"{after}  # {type(value).__module__}.{type(value).__qualname__}"


def _entries(
    expected: Mapping[Any, Any], actual: Mapping[Any, Any], depth: int, after: str
) -> Iterator[Line]:
    for key in dict.fromkeys([*expected, *actual]):
        if key not in actual:
            yield from _whole("-", expected[key], depth, f"{key!r}: ", after)
        elif key not in expected:
            yield from _whole("+", actual[key], depth, f"{key!r}: ", after)
        else:
            yield from _compare(expected[key], actual[key], depth, f"{key!r}: ", after)


def _whole(mark: str, value: Any, depth: int, before: str, after: str) -> Iterator[Line]:
    """Show all of a value under one mark; a struct that is too long for a line, field by field."""
    text = repr(value)
    if isinstance(value, Struct) and len(text) + 2 * depth + len(before) > WIDTH:
        yield mark, depth, f"{before}{type(value).__name__}("
        for field in value.__struct_fields__:
            yield from _whole(mark, getattr(value, field), depth + 1, f"{field}=", ",")
        yield mark, depth, f"){after}"
    else:
        yield mark, depth, f"{before}{text}{after}"


def _equal(found: Sequence[Any], depth: int, after: str) -> Iterator[Line]:
    shown = found if len(found) <= RUN else found[: RUN - 1]
    for value in shown:
        yield " ", depth, f"{short(value)}{after}"
    if len(shown) < len(found):
        yield " ", depth, f"… and {len(found) - len(shown)} more, as expected"


# --- sequences ------------------------------------------------------------------------------------


def _items(
    expected: Sequence[Any], actual: Sequence[Any], depth: int, after: str
) -> Iterator[Line]:
    """Align two sequences: first what is equal, then, between that, what is of one type."""
    numbers = _Numbers()
    left, right = numbers.of(expected), numbers.of(actual)
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            yield from _equal(actual[j1:j2], depth, after)
        else:
            yield from _alike(expected[i1:i2], actual[j1:j2], depth, after)


def _alike(
    expected: Sequence[Any], actual: Sequence[Any], depth: int, after: str
) -> Iterator[Line]:
    left: list[type] = [type(v) for v in expected]
    right: list[type] = [type(v) for v in actual]
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            for wanted, got in zip(expected[i1:i2], actual[j1:j2], strict=True):
                yield from _compare(wanted, got, depth, "", after)
            continue
        for wanted in expected[i1:i2]:
            yield from _whole("-", wanted, depth, "", after)
        for got in actual[j1:j2]:
            yield from _whole("+", got, depth, "", after)


class _Numbers:
    """Gives equal values the same number: not every value can be hashed."""

    def __init__(self) -> None:
        self._known: list[Any] = []

    def of(self, values: Sequence[Any]) -> list[int]:
        """Return the number of each value."""
        return [self._number(value) for value in values]

    def _number(self, value: Any) -> int:
        for number, known in enumerate(self._known):
            if _same(known, value):
                return number
        self._known.append(value)
        return len(self._known) - 1
