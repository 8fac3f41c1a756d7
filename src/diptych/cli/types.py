"""Types and fields as words: what a message or view asks for."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta

from diptych.messages import Tag, type_hints
from diptych.read.views import KEY

Data: TypeAlias = dict[str, Any]

_EMPTY: frozenset[Any] = frozenset((list, dict, set, tuple, frozenset))

_RULES = (
    ("gt", ">"),
    ("ge", ">="),
    ("lt", "<"),
    ("le", "<="),
    ("multiple_of", "multiple of"),
    ("pattern", "like"),
    ("min_length", "length >="),
    ("max_length", "length <="),
)


def type_text(hint: Any) -> str:
    """Return a type as one writes it: ``list[Decimal]``, ``"a" | "b"``, ``int >= 1``."""
    origin: Any = get_origin(hint)
    args = get_args(hint)
    if hint is None or hint is type(None):
        return "None"
    if origin is Annotated:
        rules = [r for mark in args[1:] if isinstance(mark, Meta) for r in _rules(mark)]
        return " ".join([type_text(args[0]), *rules])
    if origin in (Union, types.UnionType):
        return " | ".join(map(type_text, args))
    if origin is Literal:
        return " | ".join(map(repr, args))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return " | ".join(repr(member.value) for member in hint)
    if origin is not None:
        inner = ", ".join("…" if arg is ... else type_text(arg) for arg in args)
        return f"{_name(origin)}[{inner}]"
    return _name(hint)


def _name(thing: Any) -> str:
    name: str = getattr(thing, "__name__", "") or str(thing)
    return name


def fields_of(cls: type) -> list[Data]:
    """Return the fields of a message or view: name, type, tags, whether required, the default."""
    hints = type_hints(cls)
    return [_field(one, hints[one.name]) for one in msgspec.structs.fields(cls)]


def _field(one: msgspec.structs.FieldInfo, hint: Any) -> Data:
    found: Data = {"name": one.name, "type": type_text(hint), "required": one.required}
    default: Any = one.default
    factory: Any = one.default_factory
    if factory in _EMPTY:
        default = factory()
    if default is not NODEFAULT:
        found["default"] = msgspec.to_builtins(default, enc_hook=str)
    marks = list(_marks(hint))
    if tags := [mark.key for mark in marks if isinstance(mark, Tag)]:
        found["tags"] = tags
    if KEY in marks:
        found["key"] = True
    return found


def _marks(hint: Any) -> Iterable[Any]:
    """Return what annotates a type, within an optional one too."""
    if get_origin(hint) is Annotated:
        yield from hint.__metadata__
    for arg in get_args(hint):
        if get_origin(hint) in (Annotated, Union, types.UnionType):
            yield from _marks(arg)


def _rules(mark: Meta) -> Sequence[str]:
    return [
        f"{sign} {value}" for name, sign in _RULES if (value := getattr(mark, name)) is not None
    ]


def first_line(thing: Any) -> str:
    """Return the first sentence of what is documented; structs' own docstrings say nothing."""
    text = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
    return (text or "").strip().partition("\n\n")[0].replace("\n", " ").strip()


__all__ = ["Data", "fields_of", "first_line", "type_text"]
