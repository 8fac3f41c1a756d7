"""Reads the annotations of the users' functions; what cannot be used is named by file and line."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from msgspec import Struct

from diptych.errors import DefinitionError, place
from diptych.messages import Event


class Parameter(Struct, frozen=True):
    """One parameter of a user's function, its annotation resolved."""

    name: str
    annotation: Any


class Signature(Struct, frozen=True):
    """What a user's function asks for and gives."""

    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    returns: Any
    at: str


def signature_of(function: Callable[..., Any]) -> Signature:
    """Read a function's signature; every parameter must be positional and annotated."""
    at = place(function)
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception as error:
        raise DefinitionError("An annotation cannot be resolved", at=at, why=error) from error
    found: list[Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise DefinitionError(
                "Parameters must be plain positional ones", at=at, parameter=str(parameter)
            )
        if name not in hints:
            raise DefinitionError("Every parameter needs an annotation", at=at, parameter=name)
        found.append(Parameter(name, hints[name]))
    return Signature(function, tuple(found), hints.get("return", Any), at)


def require_plain(signature: Signature, what: str) -> None:
    """Raise ``DefinitionError`` for a coroutine function where a pure one is asked for."""
    function = inspect.unwrap(signature.function)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(f"{what} is a plain function, not an async one", at=signature.at)


def yields_events(returns: Any) -> bool:
    """Whether a return annotation is an iterable of events, or None, or left out."""
    for member in members(returns):
        if member in (Any, None, type(None)):
            continue
        origin = get_origin(member)
        if not (isinstance(origin, type) and issubclass(origin, Iterable)):
            return False
        for kind in members(get_args(member)[0]):
            if not (isinstance(kind, type) and issubclass(kind, Event)):
                return False
    return True


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation itself as the only one."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(m for arg in get_args(annotation) for m in members(arg))
    return (annotation,)


def event_types(annotation: Any, at: str) -> tuple[type[Event], ...]:
    """Return the event types of a parameter like ``event: OrderPlaced | OrderCancelled``."""
    found = members(annotation)
    for member in found:
        if not (isinstance(member, type) and issubclass(member, Event)) or member is Event:
            raise DefinitionError(
                "The event parameter is annotated with the event types it handles",
                at=at,
                got=member,
            )
    return found


def emitted_events(signature: Signature) -> tuple[type[Event], ...]:
    """Return the event types a decision can yield.

    They are those of its return annotation, ``Iterator[OrderPlaced | OrderCancelled]``; where this
    says only ``Iterator[Event]``, those that its code names.
    """
    iterables = members(signature.returns)
    declared = [m for each in iterables for arg in get_args(each)[:1] for m in members(arg)]
    exact = [d for d in declared if isinstance(d, type) and issubclass(d, Event) and d is not Event]
    if exact:
        return tuple(exact)
    function = inspect.unwrap(signature.function)
    closure = inspect.getclosurevars(function)
    named = {**closure.globals, **closure.nonlocals}.values()
    return tuple(
        t for t in named if isinstance(t, type) and issubclass(t, Event) and t is not Event
    )
