"""Decision models and decisions: what the users' pure functions ask for, read once at start-up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any, TypeAlias

from msgspec import Struct

from diptych.codec import Codec
from diptych.errors import DefinitionError
from diptych.log import EventQuery, QueryItem
from diptych.messages import Command, Event, Metadata, TagField, instance_of, tag_fields
from diptych.signatures import (
    Signature,
    emitted_events,
    event_types,
    members,
    require_plain,
    signature_of,
    yields_events,
)

Tags: TypeAlias = tuple[str, ...]
InstanceOf: TypeAlias = Callable[[Any], Tags | None]


class ModelDeclaration(Struct, frozen=True):
    """What ``module.model(initial, tag=...)`` was given."""

    function: Callable[[Any, Any], Any]
    initial: object
    tags: tuple[str, ...] | None


class Model(Struct, frozen=True, eq=False):
    """A decision model: state folded from the events that bear its tags, only to decide with.

    ``routes`` gives, for each event type, the ways in which an event of it reaches an instance of
    the model: one field for each of the model's tags.
    """

    name: str
    state_type: type
    initial: Any
    evolve: Callable[[Any, Any], Any]
    tags: tuple[str, ...]
    events: tuple[type[Event], ...]
    routes: Mapping[type[Event], tuple[tuple[TagField, ...], ...]]
    types: frozenset[str]
    at: str

    def query(self, tags: Tags) -> EventQuery:
        """Return the boundary of one instance of the model."""
        return EventQuery((QueryItem(self.types, frozenset(tags)),))


class Need(Struct, frozen=True, eq=False):
    """A model that a decision asks for, and the command's fields that say which instance.

    ``tags`` gives the instance's tags for a command; None when an optional field is empty.
    """

    parameter: str
    model: Model
    fields: tuple[TagField, ...]
    tags: InstanceOf


class Decision(Struct, frozen=True, eq=False):
    """A decision: (command, states) → events."""

    command: type[Command]
    function: Callable[..., Iterable[Event] | None]
    needs: tuple[Need, ...]
    emits: tuple[type[Event], ...]
    wants_metadata: int | None
    at: str


class WriteSide(Struct, frozen=True, eq=False):
    """All models and decisions of an application.

    ``touched`` says for each event type which models fold it, and which instance.
    """

    models: tuple[Model, ...]
    decisions: Mapping[type[Command], Decision]
    touched: Mapping[type[Event], tuple[tuple[Model, InstanceOf], ...]]


def compile_write_side(
    models: Sequence[ModelDeclaration],
    decisions: Sequence[Callable[..., Any]],
    codec: Codec,
) -> WriteSide:
    """Read all declarations, register their messages; ``DefinitionError`` names what is wrong."""
    compiled = tuple(_model(declaration) for declaration in models)
    _distinct(compiled)
    for model in compiled:
        codec.register(model.events)
    by_command: dict[type[Command], Decision] = {}
    for function in decisions:
        decision = _decision(signature_of(function), compiled)
        other = by_command.get(decision.command)
        if other is not None:
            raise DefinitionError(
                "A command is decided by one function",
                at=decision.at,
                command=decision.command.__name__,
                other=other.at,
            )
        by_command[decision.command] = decision
        codec.register([decision.command, *decision.emits])
    touched: dict[type[Event], list[tuple[Model, InstanceOf]]] = {}
    for model in compiled:
        for event, routes in model.routes.items():
            touched.setdefault(event, []).extend((model, instance_of(r)) for r in routes)
    return WriteSide(compiled, by_command, {e: tuple(m) for e, m in touched.items()})


def _distinct(models: Sequence[Model]) -> None:
    seen: dict[str, Model] = {}
    for model in models:
        if (other := seen.get(model.name)) is not None:
            raise DefinitionError(
                "Two models bear the same name; rename one of the functions",
                at=model.at,
                name=model.name,
                other=other.at,
            )
        seen[model.name] = model


# --- models ---------------------------------------------------------------------------------------


def _model(declaration: ModelDeclaration) -> Model:
    signature = signature_of(declaration.function)
    at = signature.at
    require_plain(signature, "A model")
    if len(signature.parameters) != 2:
        raise DefinitionError(
            "A model is a function of two parameters: (state, event) -> state",
            at=at,
            parameters=len(signature.parameters),
        )
    state, event = signature.parameters
    state_type = type(declaration.initial)
    if state_type not in members(state.annotation):
        raise DefinitionError(
            "The model's first parameter is annotated with the type of its initial state",
            at=at,
            initial=state_type.__name__,
            got=state.annotation,
        )
    _refuse_mutable(declaration.initial, at)
    events = event_types(event.annotation, at)
    tags = _model_tags(declaration, events, at)
    return Model(
        name=declaration.function.__name__,
        state_type=state_type,
        initial=declaration.initial,
        evolve=declaration.function,
        tags=tags,
        events=events,
        routes={e: _routes(e, tags) for e in events},
        types=frozenset(e.message_name for e in events),
        at=at,
    )


def _refuse_mutable(initial: object, at: str) -> None:
    """States are cached and built upon before they are committed, so nothing may change them."""
    kind = type(initial)
    mutable = isinstance(initial, (list, dict, set, bytearray))
    if isinstance(initial, Struct):
        mutable = not initial.__struct_config__.frozen
    elif dataclasses.is_dataclass(kind):
        mutable = not kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    if mutable:
        raise DefinitionError(
            "A model's state must be immutable: a frozen Struct or dataclass, a tuple, a number …; "
            "evolve returns a new one",
            at=at,
            state=kind.__name__,
        )


def _model_tags(
    declaration: ModelDeclaration, events: Sequence[type[Event]], at: str
) -> tuple[str, ...]:
    borne = {event: {f.key for f in tag_fields(event)} for event in events}
    if declaration.tags is not None:
        for event, keys in borne.items():
            if missing := set(declaration.tags) - keys:
                raise DefinitionError(
                    "Every event of a model bears the model's tags",
                    at=at,
                    event=event.__name__,
                    missing=", ".join(sorted(missing)),
                )
        return declaration.tags
    shared: set[str] = set[str].intersection(*borne.values())
    if len(shared) != 1:
        raise DefinitionError(
            "The model's events share no tag; tag them, or ask for all events by tag=()"
            if not shared
            else "The model's events share several tags; say which one identifies it: "
            'model(..., tag="...")',
            at=at,
            shared=", ".join(sorted(shared)) or "none",
        )
    return tuple(shared)


def _routes(event: type[Event], tags: tuple[str, ...]) -> tuple[tuple[TagField, ...], ...]:
    fields = tag_fields(event)
    return tuple(product(*([f for f in fields if f.key == key] for key in tags)))


# --- decisions ------------------------------------------------------------------------------------


def _decision(signature: Signature, models: Sequence[Model]) -> Decision:
    at = signature.at
    require_plain(signature, "A decision")
    if not yields_events(signature.returns):
        raise DefinitionError(
            "A decision gives events: annotate it with -> Iterator[...] and yield them",
            at=at,
            returns=signature.returns,
        )
    if not signature.parameters:
        raise DefinitionError("A decision's first parameter is its command", at=at)
    command = signature.parameters[0].annotation
    if not (isinstance(command, type) and issubclass(command, Command)) or command is Command:
        raise DefinitionError(
            "A decision's first parameter is annotated with its command type", at=at, got=command
        )
    needs: list[Need] = []
    wants_metadata: int | None = None
    for index, parameter in enumerate(signature.parameters[1:]):
        if parameter.annotation is Metadata and wants_metadata is None:
            wants_metadata = index
            continue
        model = _model_for(parameter.name, parameter.annotation, models, at)
        fields = _fields_for(parameter.name, model, command, at)
        needs.append(Need(parameter.name, model, fields, instance_of(fields)))
    emits = emitted_events(signature)
    return Decision(command, signature.function, tuple(needs), emits, wants_metadata, at)


def _model_for(name: str, annotation: Any, models: Sequence[Model], at: str) -> Model:
    fitting = [m for m in models if m.state_type in members(annotation)]
    if len(fitting) > 1:
        fitting = [m for m in fitting if m.name == name]
    if len(fitting) != 1:
        raise DefinitionError(
            "A decision's parameter is annotated with the state of one registered model "
            "(where several share the type, it is named like the model)",
            at=at,
            parameter=name,
            got=getattr(annotation, "__name__", annotation),
            models=", ".join(f"{m.name}: {m.state_type.__name__}" for m in models) or "none",
        )
    return fitting[0]


def _fields_for(
    parameter: str, model: Model, command: type[Command], at: str
) -> tuple[TagField, ...]:
    own = tag_fields(command)
    chosen: list[TagField] = []
    for key in model.tags:
        fields = [f for f in own if f.key == key]
        if len(fields) > 1:
            fields = [f for f in fields if f.field == parameter]
        if len(fields) != 1:
            raise DefinitionError(
                f"{command.__name__} must bear the tag of the model {model.name!r} (where it does "
                "so more than once, the parameter is named like the field)",
                at=at,
                tag=key,
                parameter=parameter,
                fields=", ".join(f.field for f in own if f.key == key) or "none",
            )
        chosen.append(fields[0])
    return tuple(chosen)
