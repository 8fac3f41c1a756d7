"""Hypothesis strategies from message types: any value that the type allows.

Fields that tag a message, or are the key of a view, get their values from a pool of three: so the
events of a history meet, instead of each being about something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec.inspect as inspect
from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from msgspec import Struct

from diptych.errors import DefinitionError, place
from diptych.messages import Command, Event, Message, tag_fields, type_hints
from diptych.read.projections import Keyed
from diptych.testing.worlds import Compiled, Composed

T = TypeVar("T", bound=Struct)

Using = Mapping[type, SearchStrategy[Any]]
"""Strategies of your own, by type: of a message, of a nested struct, of ``Decimal`` ..."""

LARGE: Final = 10**9
"""Numbers lie between minus and plus this, unless the type says more: their sums still fit."""

ITEMS: Final = 3
POOL: Final = 3

_TEXT = st.characters(codec="utf-8", exclude_characters="\x00")
_ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])


def _decimal(digits: int, places: int) -> Decimal:
    return Decimal(digits).scaleb(-places)


_PLAIN: dict[type, tuple[type, SearchStrategy[Any]]] = {
    inspect.BoolType: (bool, st.booleans()),
    inspect.NoneType: (type(None), st.none()),
    inspect.DateTimeType: (
        datetime,
        st.datetimes(datetime(1900, 1, 1), datetime(2199, 12, 31), timezones=_ZONES),
    ),
    inspect.DateType: (date, st.dates(date(1900, 1, 1), date(2199, 12, 31))),
    inspect.TimeType: (time, st.times()),
    inspect.TimeDeltaType: (timedelta, st.timedeltas(timedelta(-999), timedelta(999))),
    inspect.UUIDType: (UUID, st.uuids()),
    inspect.DecimalType: (
        Decimal,
        st.builds(_decimal, st.integers(-LARGE, LARGE), st.integers(0, 6)),
    ),
}


def strategy(cls: type[T], /, **fields: SearchStrategy[Any]) -> SearchStrategy[T]:
    """Return a strategy of a struct's values: of a message, a view or a nested struct.

    Keywords give strategies of your own for some fields. Raises ``DefinitionError`` for a field
    whose type says nothing about its values.
    """
    made: SearchStrategy[T] = Maker().struct(cls, fields)
    return made


def events_of(
    app: Composed, *types: type[Event], max_size: int = 20, using: Using | None = None
) -> SearchStrategy[list[Event]]:
    """Return a strategy of histories: lists of a module's events (or only of these types)."""
    definitions = app.compile()
    known = tuple(registered.cls for registered in definitions.codec.events.values())
    return st.lists(Maker(definitions, using).one_of(types or known), max_size=max_size)


def commands_of(
    app: Composed, *types: type[Command], using: Using | None = None
) -> SearchStrategy[Command]:
    """Return a strategy of a module's commands (or only of these types)."""
    definitions = app.compile()
    return Maker(definitions, using).one_of(types or tuple(definitions.write.decisions))


class Maker:
    """Makes strategies, one for each type."""

    def __init__(
        self,
        definitions: Compiled | None = None,
        using: Using | None = None,
        *,
        pools: bool = True,
    ) -> None:
        self._using = dict(using or {})
        self._pooling = pools
        self._made: dict[type, SearchStrategy[Any]] = {}
        self._keys = {} if definitions is None else _key_fields(definitions)

    def one_of(self, types: tuple[type[Any], ...]) -> SearchStrategy[Any]:
        """Return a strategy of values of any of the types."""
        if not types:
            return st.nothing()
        return st.one_of([self.of(cls) for cls in types])

    def of(self, cls: type[Any]) -> SearchStrategy[Any]:
        """Return the strategy of a struct's values."""
        if cls in self._using:
            return self._using[cls]
        if cls not in self._made:
            # A struct may hold others of its own type.
            self._made[cls] = st.deferred(lambda: self.struct(cls, {}))
        return self._made[cls]

    def struct(
        self, cls: type[Any], given: Mapping[str, SearchStrategy[Any]]
    ) -> SearchStrategy[Any]:
        """Return a strategy of a struct's values, some fields given."""
        if unknown := set(given) - set(cls.__struct_fields__):
            raise DefinitionError(
                "There are no such fields",
                at=place(cls),
                fields=", ".join(sorted(unknown)),
                known=", ".join(cls.__struct_fields__),
            )
        pools = self._pools(cls)
        info = inspect.type_info(cls)
        assert isinstance(info, inspect.StructType)
        fields: dict[str, SearchStrategy[Any]] = {}
        for field in info.fields:
            found = given.get(field.name)
            if found is None:
                found = self._value(field.type, cls, field.name)
                if field.name in pools:
                    found = self._pooled(found, field.type, pools[field.name])
            fields[field.name] = found
        return st.fixed_dictionaries(fields).map(lambda values: _build(cls, values))

    def _pools(self, cls: type[Any]) -> dict[str, str]:
        """Return for a message's fields that say what it is about the name of their pool."""
        if not (self._pooling and issubclass(cls, Message)):
            return {}
        hints = type_hints(cls)
        pools = {name: f"{name} {hints[name]}" for name in self._keys.get(cls, ())}
        pools |= {f.field: f"{f.key}: {f.kind} {f.optional}" for f in tag_fields(cls)}
        return pools

    def _pooled(
        self, values: SearchStrategy[Any], info: inspect.Type, name: str
    ) -> SearchStrategy[Any]:
        for plain, few in _FEW.items():
            if info == plain() and type(few[0]) not in self._using:
                return st.sampled_from(few)
        pool = st.lists(values, min_size=1, max_size=POOL)
        return st.shared(pool, key=f"diptych {name}").flatmap(st.sampled_from)

    # --- by the type of a value -------------------------------------------------------------------

    def _value(self, info: inspect.Type, cls: type, field: str) -> SearchStrategy[Any]:
        plain = _PLAIN.get(type(info))
        if plain is not None:
            return self._using.get(plain[0], plain[1])
        match info:
            case inspect.Metadata():
                return self._value(info.type, cls, field)
            case inspect.IntType():
                return self._using[int] if int in self._using else _integers(info)
            case inspect.FloatType():
                return self._using[float] if float in self._using else _floats(info)
            case inspect.StrType():
                return self._using[str] if str in self._using else _texts(info)
            case inspect.EnumType():
                return self._using.get(info.cls, st.sampled_from(list(info.cls)))
            case inspect.LiteralType():
                return st.sampled_from(list(info.values))
            case inspect.StructType():
                return self.of(info.cls)
            case inspect.UnionType():
                return st.one_of([self._value(one, cls, field) for one in info.types])
            case inspect.TupleType():
                return st.tuples(*[self._value(one, cls, field) for one in info.item_types])
            case inspect.DictType():
                return st.dictionaries(
                    self._value(info.key_type, cls, field),
                    self._value(info.value_type, cls, field),
                    max_size=_most(info.min_length, info.max_length),
                    min_size=info.min_length or 0,
                )
            case _:
                return self._items(info, cls, field)

    def _items(self, info: inspect.Type, cls: type, field: str) -> SearchStrategy[Any]:
        kinds: dict[type, Any] = {
            inspect.ListType: list,
            inspect.VarTupleType: tuple,
            inspect.SetType: set,
            inspect.FrozenSetType: frozenset,
        }
        kind = kinds.get(type(info))
        if kind is None:
            raise DefinitionError(
                "No strategy can be derived from this type; give one for the field",
                at=place(cls),
                field=field,
                type=type(info).__name__.removesuffix("Type"),
            )
        held: Any = info
        items = st.lists(
            self._value(held.item_type, cls, field),
            min_size=held.min_length or 0,
            max_size=_most(held.min_length, held.max_length),
            unique=kind in (set, frozenset),
        )
        return items if kind is list else items.map(kind)


_FEW: dict[Callable[[], inspect.Type], list[Any]] = {
    inspect.StrType: ["a", "b", "c"],
    inspect.IntType: [1, 2, 3],
    inspect.UUIDType: [UUID(int=1), UUID(int=2), UUID(int=3)],
}


def _key_fields(definitions: Compiled) -> dict[type, set[str]]:
    """Return the fields of events that are the keys of views."""
    found: dict[type, set[str]] = {}
    for one in definitions.projections:
        if isinstance(one, Keyed) and one.key is not None:
            for event in one.events:
                found.setdefault(event, set()).update(one.key_names)
    return found


def _build(cls: type[Any], values: dict[str, Any]) -> Any:
    try:
        return cls(**values)
    except (TypeError, ValueError):  # refused by the type's own __post_init__
        reject()


def _most(least: int | None, most: int | None) -> int:
    some = (least or 0) + ITEMS
    return some if most is None else min(some, most)


def _integers(info: inspect.IntType) -> SearchStrategy[int]:
    least = _closest(max, info.ge, None if info.gt is None else info.gt + 1)
    most = _closest(min, info.le, None if info.lt is None else info.lt - 1)
    if least is None:
        least = -LARGE if most is None else min(-LARGE, most - LARGE)
    if most is None:
        most = max(LARGE, least + LARGE)
    step = int(info.multiple_of or 1)
    return st.integers(-(-least // step), most // step).map(lambda number: number * step)


def _closest(choose: Callable[[list[int]], int], *bounds: int | None) -> int | None:
    found = [bound for bound in bounds if bound is not None]
    return choose(found) if found else None


def _floats(info: inspect.FloatType) -> SearchStrategy[float]:
    least = info.ge if info.ge is not None else info.gt
    most = info.le if info.le is not None else info.lt
    found = st.floats(
        min(-LARGE, most - LARGE) if least is None and most is not None else _or(least, -LARGE),
        max(LARGE, least + LARGE) if most is None and least is not None else _or(most, LARGE),
        allow_nan=False,
        allow_infinity=False,
        exclude_min=info.gt is not None and info.ge is None,
        exclude_max=info.lt is not None and info.le is None,
    )
    step = info.multiple_of
    return found if step is None else found.map(lambda number: round(number / step) * step)


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _texts(info: inspect.StrType) -> SearchStrategy[str]:
    least, most = info.min_length or 0, info.max_length
    if info.pattern is not None:
        found = st.from_regex(info.pattern, alphabet=_TEXT)
        return found.filter(lambda text: least <= len(text) <= (most or len(text)))
    return st.text(_TEXT, min_size=least, max_size=least + 12 if most is None else most)
