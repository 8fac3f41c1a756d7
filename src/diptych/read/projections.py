"""Projections: a key and a pure fold, or a handler that gets the transaction; defined, checked.

``projection`` and ``handler`` are what a module's ``projects`` and ``handles`` call at start-up.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from typing import Any, Final, TypeAlias, cast

from msgspec import Struct

from diptych.errors import DefinitionError, ProjectionFailed, place, raised
from diptych.messages import Event, Metadata, Recorded, type_hints
from diptych.read.kinds import bare
from diptych.read.port import Transaction
from diptych.read.views import Definition, View, definition_of, is_view
from diptych.signatures import Parameter, Signature, event_types, members, signature_of

Fold: TypeAlias = Callable[[Any, Any, Any, Any], Any]
"""(row or None, event, key, source of the event's metadata) -> row or None."""

KeyOf: TypeAlias = Callable[[Any], Any]

_Source: TypeAlias = Callable[[Any, Any], Any]
"""(key, recorded event) -> what a further parameter of the user's function gets."""

SLICES: Final = 64
MOST_SLICES: Final = 1024

_NONE = type(None)

FRESH_SHARE: Final = 0.99
"""The share of events that are to be readable within ``fresh_within``, unless said otherwise."""


class Projection(Struct, frozen=True, kw_only=True):
    """What every projection has: its name, its views, the event types it uses."""

    name: str
    views: tuple[type[View], ...]
    events: tuple[type[Event], ...]
    at: str
    function: Callable[..., Any]
    inline: bool = False
    slices: int = 1
    fresh_within: float | None = None
    fresh_share: float = FRESH_SHARE
    declared: str = ""
    """The name as declared, where ``name`` is that of another version's instance."""

    @property
    def title(self) -> str:
        """The name as declared."""
        return self.declared or self.name

    @property
    def store(self) -> str:
        """The name of the read database that its views are in."""
        return definition_of(self.views[0]).store


class Keyed(Projection, frozen=True, kw_only=True):
    """A pure fold for each key of one view.

    ``key`` gives one key for an event; ``keys`` is set instead where the user wrote ``key=``.
    ``plain`` folds take row and event only; others may ask for the event's record.
    """

    view: type[View]
    key: KeyOf | None
    keys: KeyOf | None
    key_names: tuple[str, ...]
    plain: bool
    asks_record: bool
    fold: Fold
    definition: Definition

    def keys_of(self, event: Any) -> Sequence[Any]:
        """Return the keys an event touches."""
        if self.key is not None:
            return (self.key(event),)
        assert self.keys is not None
        try:
            return self.listed(self.keys(event))
        except BaseException as error:
            raise raised(error) from error

    def listed(self, given: Any) -> Sequence[Any]:
        """Return what a ``key=`` function gave as a sequence of distinct keys."""
        if given is None:
            return ()
        several = isinstance(given, (list, set, frozenset, Iterator))
        found: list[Any] = list(dict.fromkeys(cast("Iterable[Any]", given))) if several else [given]
        width = len(self.definition.key_fields)
        for key in found:
            if key is None or _width(key) != width:
                raise ProjectionFailed(
                    "A key is a value, or a tuple where the view has several key fields; "
                    "several keys are a list",
                    projection=self.title,
                    got=key,
                    key_fields=", ".join(f.name for f in self.definition.key_fields),
                )
        return found

    def check_row(self, row: Any, key: Any) -> None:
        """Raise ``ProjectionFailed`` unless a row is one of the view, and of the key."""
        if type(row) is not self.view:
            raise ProjectionFailed(
                "A fold returns a row of its view, or None",
                projection=self.title,
                got=type(row).__qualname__,
                at=self.at,
            )
        if self.definition.key_of(row) != key:
            raise ProjectionFailed(
                "A fold must not change a row's key; return the row of the key it was called for",
                projection=self.title,
                key=key,
                returned=self.definition.key_of(row),
                at=self.at,
            )


class Handler(Projection, frozen=True, kw_only=True):
    """An async function that gets the event and the transaction."""

    call: Callable[[Any, Transaction, Any], Any]


# --- definitions ----------------------------------------------------------------------------------


def projection(
    function: Callable[..., Any],
    view: type[View],
    *,
    key: KeyOf | None = None,
    inline: bool = False,
    name: str | None = None,
    slices: int | None = None,
    fresh_within: float | None = None,
    fresh_share: float = FRESH_SHARE,
) -> Keyed:
    """Define a projection from its fold; ``DefinitionError`` when it cannot be used as written.

    The name (of its checkpoint) is by default that of the view's table. Its keys fall into
    ``slices`` (64; an inline projection has 1).
    """
    at = place(function)
    _check_slices(slices, inline, at)
    _check_freshness(fresh_within, fresh_share, at)
    if inline and fresh_within is not None:
        raise DefinitionError(
            "An inline projection is as fresh as the log itself; leave fresh_within= out",
            at=at,
        )
    definition = _checked_view(view, at)
    signature = signature_of(function)
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise DefinitionError("A fold is a plain function: no async, no yield", at=at)
    if len(signature.parameters) < 2:
        raise DefinitionError("A fold takes (row, event)", at=at)
    _check_rows(signature, view)
    events = event_types(signature.parameters[1].annotation, at)
    extras = signature.parameters[2:]
    if key is None:
        _check_key_fields(definition, events, at)
    elif not callable(key):
        raise DefinitionError("key= is a function from an event to its key", at=at, got=key)
    return Keyed(
        name=name or definition.table_name,
        views=(view,),
        events=events,
        at=at,
        function=function,
        inline=inline,
        slices=1 if inline else SLICES if slices is None else slices,
        fresh_within=fresh_within,
        fresh_share=fresh_share,
        view=view,
        key=definition.key_of if key is None else None,
        keys=key,
        key_names=tuple(f.name for f in definition.key_fields),
        plain=not extras,
        asks_record=any(p.annotation in (Metadata, Recorded) for p in extras),
        fold=_fold(function, extras, at),
        definition=definition,
    )


def handler(
    function: Callable[..., Any],
    *views: type[View],
    name: str | None = None,
    fresh_within: float | None = None,
    fresh_share: float = FRESH_SHARE,
) -> Handler:
    """Define a handler that owns the tables of these views."""
    at = place(function)
    _check_freshness(fresh_within, fresh_share, at)
    if not views:
        raise DefinitionError("A handler names the views whose tables it writes", at=at)
    for view in views:
        _checked_view(view, at)
    if len({definition_of(view).store for view in views}) > 1:
        raise DefinitionError("A handler's views are in one read database", at=at)
    signature = signature_of(function)
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError("A handler is an async function", at=at)
    if len(signature.parameters) < 2 or not _is_transaction(signature.parameters[1]):
        raise DefinitionError("A handler takes (event, tx: Transaction)", at=at)
    further = signature.parameters[2:]
    if any(p.name == "key" and p.annotation not in (Metadata, Recorded) for p in further):
        raise DefinitionError(
            "A handler has no key: that is for folds, which are called for each key; take the "
            "fields of the event",
            at=at,
            parameter="key",
        )
    give = [_source(p, at) for p in further]

    def call(event: Any, tx: Transaction, recorded: Any) -> Any:
        return function(event, tx, *[take(None, recorded) for take in give])

    return Handler(
        name=name or definition_of(views[0]).table_name,
        views=views,
        events=event_types(signature.parameters[0].annotation, at),
        at=at,
        function=function,
        fresh_within=fresh_within,
        fresh_share=fresh_share,
        call=call if give else lambda event, tx, _recorded: function(event, tx),
    )


def check_projections(projections: Iterable[Projection]) -> None:
    """Check what one application's projections are together."""
    names: dict[str, Projection] = {}
    owners: dict[str, Projection] = {}
    for one in projections:
        for view in one.views:
            table = definition_of(view).table_name
            if (other := owners.setdefault(table, one)) is not one:
                raise DefinitionError(
                    "A view's table is written by one projection; let one function handle all "
                    "its events, or give the other view table=...",
                    at=one.at,
                    table=table,
                    other=other.at,
                )
        if (other := names.setdefault(one.name, one)) is not one:
            raise DefinitionError(
                "Two projections bear the same name; give one name=...",
                at=one.at,
                name=one.name,
                other=other.at,
            )


def _check_freshness(within: Any, share: Any, at: str) -> None:
    if within is not None and not (type(within) in (int, float) and 0 < within < float("inf")):
        raise DefinitionError(
            "fresh_within= is how many seconds an event may take until it can be read",
            at=at,
            got=within,
        )
    if not (type(share) in (int, float) and 0 < share < 1):
        raise DefinitionError(
            "fresh_share= is the share of events that fresh_within holds for, between 0 and 1",
            at=at,
            got=share,
        )


def _width(key: Any) -> int:
    """Return how many key fields a key is for."""
    fields: Any = key
    return len(fields) if isinstance(key, tuple) else 1


def _checked_view(view: Any, at: str) -> Definition:
    if not is_view(view):
        raise DefinitionError("A projection keeps a view: a subclass of View", at=at, got=view)
    definition = definition_of(view)
    _ = definition.fields
    return definition


def _check_rows(signature: Signature, view: type[View]) -> None:
    row = signature.parameters[0]
    if set(members(row.annotation)) != {view, _NONE}:
        raise DefinitionError(
            "A fold's first parameter is the row or None, of the view it is declared for",
            at=signature.at,
            expected=f"{view.__name__} | None",
            got=row.annotation,
        )
    if not set(members(signature.returns)) <= {view, _NONE}:
        raise DefinitionError(
            "A fold returns a row of the view it is declared for, or None to delete it",
            at=signature.at,
            expected=f"{view.__name__} | None",
            got=signature.returns,
        )


def _check_slices(slices: Any, inline: bool, at: str) -> None:
    if slices is None:
        return
    if type(slices) is not int or not 1 <= slices <= MOST_SLICES:
        raise DefinitionError(
            f"slices= is a number from 1 to {MOST_SLICES}: into how many parts the keys fall, each "
            "followed by one worker",
            at=at,
            got=slices,
        )
    if inline and slices != 1:
        raise DefinitionError(
            "An inline projection is folded by whoever appends; it has one slice", at=at, got=slices
        )


def _check_key_fields(definition: Definition, events: Sequence[type[Event]], at: str) -> None:
    for event in events:
        hints = type_hints(event)
        for field in definition.key_fields:
            hint = bare(hints[field.name]) if field.name in hints else None
            if hint != field.type:
                raise DefinitionError(
                    "By default a row's key is taken from the event's fields of the same name "
                    "and type; pass key= with a function from the event to the key",
                    at=at,
                    event=event.__name__,
                    key_field=field.name,
                    view_has=field.type,
                    event_has="no such field" if hint is None else hint,
                )


def _is_transaction(parameter: Parameter) -> bool:
    return parameter.annotation is Transaction


def _key(key: Any, _recorded: Any) -> Any:
    return key


def _source(parameter: Parameter, at: str) -> _Source:
    """Return the function from (key, recorded event) to what a further parameter asks for."""
    if parameter.annotation is Metadata:
        return lambda _key, recorded: recorded.metadata
    if parameter.annotation is Recorded:
        return lambda _key, recorded: recorded
    raise DefinitionError(
        "A further parameter is `key`, or annotated Metadata or Recorded",
        at=at,
        parameter=parameter.name,
    )


def _fold(function: Callable[..., Any], extras: Sequence[Parameter], at: str) -> Fold:
    if not extras:
        return lambda row, event, _key, _recorded: function(row, event)
    take: list[_Source] = [_key if p.name == "key" else _source(p, at) for p in extras]
    return lambda row, event, key, recorded: function(
        row, event, *[one(key, recorded) for one in take]
    )


# --- folding without a store ----------------------------------------------------------------------


def fold_events(
    one: Keyed, events: Iterable[Recorded], rows: MutableMapping[Any, Any]
) -> MutableMapping[Any, Any]:
    """Fold events into ``rows`` (key to row), one by one; events it does not use are passed over.

    This is the meaning of a projection: the engine's batches give the same rows.
    """
    for recorded in events:
        event = recorded.event
        if type(event) not in one.events:
            continue
        for key in one.keys_of(event):
            row = one.fold(rows.get(key), event, key, recorded)
            if row is None:
                rows.pop(key, None)
            else:
                one.check_row(row, key)
                rows[key] = row
    return rows
