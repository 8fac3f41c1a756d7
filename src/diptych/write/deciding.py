"""A decision, run: what the command bus and the test kit both do with a command and its states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from diptych.codec import Codec
from diptych.errors import (
    DecisionFailed,
    DiptychError,
    FunctionFailed,
    Invalid,
    Rejected,
    UnknownMessage,
    raised,
    said,
)
from diptych.log import NewEvent
from diptych.messages import Command, Event, Metadata, event_id
from diptych.write.answers import to_json
from diptych.write.definitions import Decision


def decide(
    decision: Decision,
    codec: Codec,
    command: Command,
    states: Sequence[Any],
    metadata: Metadata,
) -> tuple[tuple[NewEvent, ...], list[Event]]:
    """Run a decision on the states of the models it asks for, in their order.

    Returns its events, validated, and the same as they are to be appended. Raises what the users'
    function raises, ``Rejected`` first of all, and ``Invalid``, ``UnknownMessage`` for an event.
    """
    if decision.wants_metadata is not None:
        states = list(states)
        states.insert(decision.wants_metadata, metadata)
    made = decision.function(command, *states)
    return ((), []) if made is None else new_events(codec, made, metadata)


def new_events(
    codec: Codec, made: Iterable[Event], metadata: Metadata
) -> tuple[tuple[NewEvent, ...], list[Event]]:
    """Return events as they are to be appended, and the same validated."""
    produced: list[Event] = []
    new: list[NewEvent] = []
    plain: bytes | None = None
    for raw in made:
        registered = codec.of(type(raw))
        if codec.events.get(registered.name) is not registered:
            raise Invalid(
                f"{registered.name} is not an event: only events are stored",
                field="events",
                rule="an Event",
                got=type(raw).__name__,
            )
        event, data = codec.validate(raw)
        if registered.version == 1:
            encoded = plain = plain or to_json(metadata)
        else:
            encoded = to_json(msgspec.structs.replace(metadata, schema_version=registered.version))
        tags = registered.tags(event)
        identity = event_id(metadata.command_id, len(new) + 1)
        new.append(NewEvent(identity, registered.name, tags, data, encoded))
        produced.append(event)
    return tuple(new), produced


def undecided(command: Command) -> UnknownMessage:
    """Return the error for a command that no decision is registered for."""
    return UnknownMessage(
        "No decision is registered for this command; see `diptych describe`",
        command=type(command).__name__,
    )


def faulty(decision: Decision, failure: BaseException) -> Exception:
    """Return what the caller of a command gets for an error on the way to its decision."""
    error = raised(failure)
    if isinstance(error, DiptychError) and not isinstance(error, (Rejected, FunctionFailed)):
        return error
    failure = DecisionFailed(
        f"Deciding {decision.command.__name__} failed; nothing was stored",
        at=decision.at,
        why=said(error),
    )
    failure.__cause__ = error
    return failure
