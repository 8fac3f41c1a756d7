"""Where scenarios take place: what is given and done, and the world in memory, of pure functions.

The world in memory does what an application does, with the same definitions and the same
functions, but no event loop, no log and no database: a list of facts is all the state it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from diptych.codec import Codec
from diptych.errors import DefinitionError, Invalid, ProjectionFailed, Rejected, place
from diptych.log import Append, NewEvent, require_sound
from diptych.messages import (
    Actor,
    Command,
    Event,
    Message,
    Metadata,
    Query,
    Recorded,
    actor_of,
    new_id,
    require_kind,
)
from diptych.read.projections import Keyed, Projection, fold_events
from diptych.read.views import View, definition_of
from diptych.testing.differences import named
from diptych.write.answers import known_of, to_json
from diptych.write.deciding import decide, faulty, undecided
from diptych.write.definitions import Decision, Model, Tags, WriteSide

if TYPE_CHECKING:
    from diptych.read.queries import Answering

R = TypeVar("R")
V = TypeVar("V", bound=View)


class Foreseeing(Protocol):
    """A rule, as far as it can be judged without a message."""

    @property
    def text(self) -> str:
        """The rule in words."""
        ...

    def foresee(self, actor: Actor | None, *, own: bool) -> bool | None:
        """Whether the actor may, on data of his own tenant or another's; None: it depends."""
        ...


class Guarded(Protocol):
    """A command, query or event, and its rule."""

    @property
    def kind(self) -> str:
        """Which of these it is."""
        ...

    @property
    def name(self) -> str:
        """The message's name."""
        ...

    @property
    def rule(self) -> Foreseeing | None:
        """Who may."""
        ...


class Guard(Protocol):
    """The rules of an application."""

    @property
    def guarded(self) -> bool:
        """Whether there are any."""
        ...

    @property
    def endpoints(self) -> Sequence[Guarded]:
        """All commands, queries and events."""
        ...

    def require(self, actor: Actor | str | None, message: Message) -> None:
        """Raise unless this actor may."""
        ...


class Compiled(Protocol):
    """What a module declares, read and checked."""

    @property
    def codec(self) -> Codec:
        """The registry of its messages."""
        ...

    @property
    def write(self) -> WriteSide:
        """Models and decisions."""
        ...

    @property
    def projections(self) -> Sequence[Projection]:
        """The projections."""
        ...

    @property
    def answers(self) -> Sequence[Answering]:
        """The answers to queries."""
        ...

    @property
    def access(self) -> Guard:
        """The rules."""
        ...


class Composed(Protocol):
    """A ``Module`` or an ``App``."""

    def compile(self) -> Compiled:
        """Read and check everything declared."""
        ...

    def open(self, *, log: str, views: str) -> AbstractAsyncContextManager[Any]:
        """Open the application on a log and views."""
        ...


# --- what is given and done -----------------------------------------------------------------------


class Fact(Struct, frozen=True, eq=False):
    """An event of a scenario, as it is and as a log stores it."""

    event: Event
    new: NewEvent
    metadata: Metadata


class Given(Struct, frozen=True, eq=False):
    """Events that have happened."""

    facts: tuple[Fact, ...]


class When(Struct, frozen=True, eq=False):
    """A command, validated, and the function that decides it."""

    command: Command
    decision: Decision
    metadata: Metadata
    at: datetime | None
    actor: Actor | None


class Checked(Struct, frozen=True, eq=False):
    """What came of the last command was expected."""


CHECKED: Final = Checked()

Step: TypeAlias = Given | When | Checked


def given_events(
    codec: Codec, events: Iterable[Event], at: datetime | None, actor: Actor | str | None
) -> Given:
    """Return events as facts; ``Invalid`` or ``UnknownMessage`` when one could not be stored."""
    metadata = _metadata("given", at, actor_of(actor))
    plain: bytes | None = None
    facts: list[Fact] = []
    for raw in events:
        registered = codec.of(type(raw))
        if codec.events.get(registered.name) is not registered:
            raise Invalid(
                "Only events can be given; commands are for .when(...)",
                field="given",
                rule="an Event",
                got=registered.name,
            )
        event, data = codec.validate(raw)
        known = metadata
        if registered.version == 1:
            encoded = plain = plain or to_json(metadata)
        else:
            known = msgspec.structs.replace(metadata, schema_version=registered.version)
            encoded = to_json(known)
        new = NewEvent(new_id(), registered.name, registered.tags(event), data, encoded)
        facts.append(Fact(event, new, known))
    require_sound([Append(tuple([fact.new for fact in facts]))])
    return Given(tuple(facts))


def when_command(
    definitions: Compiled,
    raw: Command,
    at: datetime | None = None,
    actor: Actor | str | None = None,
    *,
    guarded: bool = True,
) -> When:
    """Return a command ready to be decided; raises as in production what comes before that.

    Not ``guarded``: whatever the rules say of the actor.
    """
    decision = definitions.write.decisions.get(type(raw))
    if decision is None:
        require_kind(raw, Command)
        raise undecided(raw)
    command, _ = definitions.codec.validate(raw)
    who = actor_of(actor)
    if guarded:
        definitions.access.require(who, command)
    return When(command, decision, _metadata(new_id(), at, who), at, who)


def _metadata(command_id: str, at: datetime | None, actor: Actor | None) -> Metadata:
    if at is None:
        at = datetime.now(UTC)
    elif at.tzinfo is None:
        raise Invalid("A time is not valid", field="at", rule="a datetime must carry its time zone")
    return Metadata(at, command_id, command_id, **known_of(actor))


# --- worlds ---------------------------------------------------------------------------------------


class World(Protocol):
    """Where a scenario takes place."""

    def append(self, facts: Sequence[Fact]) -> None:
        """Let events have happened."""
        ...

    def do(self, step: When) -> Sequence[Event]:
        """Take a command; return its events, or raise ``Rejected``."""
        ...

    def rows(self, view: type[V]) -> list[V]:
        """Return all rows of a view."""
        ...

    def ask(self, query: Query[R], actor: Actor | None) -> R:
        """Answer a query."""
        ...


class Outcome(Struct):
    """What came of the commands so far: the last one's events, or its rejection."""

    last: When | None = None
    events: Sequence[Event] = ()
    rejection: Rejected | None = None
    checked: bool = True


def state_of(model: Model, tags: Tags, facts: Iterable[Fact]) -> Any:
    """Return the state of one instance of a model: the fold of what its boundary holds."""
    matches = model.query(tags).matches
    state, evolve = model.initial, model.evolve
    for fact in facts:
        if matches(fact.new.type, fact.new.tags):
            state = evolve(state, fact.event)
    return state


class InMemory:
    """The world in memory."""

    def __init__(self, definitions: Compiled) -> None:
        self._definitions = definitions
        self.facts: list[Fact] = []

    def append(self, facts: Sequence[Fact]) -> None:
        """Let events have happened."""
        self.facts += facts

    def do(self, step: When) -> Sequence[Event]:
        """Decide a command on the states of its boundary; return its events."""
        decision, command = step.decision, step.command
        instances: list[tuple[Model, Tags, Any]] = []
        states: list[Any] = []
        try:
            for need in decision.needs:
                tags = need.tags(command)
                if tags is None:
                    states.append(need.model.initial)
                    continue
                state = state_of(need.model, tags, self.facts)
                instances.append((need.model, tags, state))
                states.append(state)
        except Exception as error:
            raise faulty(decision, error) from error
        try:
            new, produced = decide(
                decision, self._definitions.codec, command, states, step.metadata
            )
        except Rejected:
            raise
        except Exception as error:
            raise faulty(decision, error) from error
        try:
            self._evolve(instances, new, produced)
        except Exception as error:
            raise faulty(decision, error) from error
        if new:
            require_sound([Append(new)])
        events: list[Event] = []
        for stored, event in zip(new, produced, strict=True):
            metadata = step.metadata
            if event.schema_version != 1:
                metadata = msgspec.structs.replace(metadata, schema_version=event.schema_version)
            self.facts.append(Fact(event, stored, metadata))
            events.append(event)
        return events

    @staticmethod
    def _evolve(
        instances: Iterable[tuple[Model, Tags, Any]],
        new: Sequence[NewEvent],
        produced: Sequence[Event],
    ) -> None:
        """Fold the new events as the bus does before it appends: a model may not take them."""
        for model, tags, state in instances:
            matches = model.query(tags).matches
            for stored, event in zip(new, produced, strict=True):
                if matches(stored.type, stored.tags):
                    state = model.evolve(state, event)

    def rows(self, view: type[V]) -> list[V]:
        """Return all rows of a view, as its columns give them back."""
        one = projection_of(self._definitions, view)
        if not isinstance(one, Keyed):
            from diptych.testing.opened import rows_of

            return rows_of(self._definitions, self.facts, view)
        found: dict[Any, Any] = {}
        for recorded in self.recorded():
            try:
                fold_events(one, (recorded,), found)
            except Exception as error:
                raise _unfoldable(one, recorded, error) from error
        return stored_rows(view, list(found.values()))

    def recorded(self) -> list[Recorded]:
        """Return the facts as projections see them."""
        return [
            Recorded(position, fact.new.id, fact.event, fact.new.tags, fact.metadata)
            for position, fact in enumerate(self.facts, 1)
        ]

    def ask(self, query: Query[R], actor: Actor | None) -> R:
        """Answer a query, from an in-memory database made for it."""
        from diptych.testing.opened import answer_of

        return answer_of(self._definitions, self.facts, query, actor)


def _unfoldable(one: Projection, recorded: Recorded, error: Exception) -> Exception:
    if isinstance(error, ProjectionFailed):
        return error
    return ProjectionFailed(
        "The projection's function raised; its key would be parked",
        projection=one.name,
        position=recorded.position,
        event=type(recorded.event).__name__,
        why=f"{type(error).__name__}: {error}",
        at=one.at,
    )


def stored_rows(view: type[V], rows: Sequence[V]) -> list[V]:
    """Return rows as they come back from a database; ``Invalid`` when they cannot go in."""
    if not rows:
        return []
    definition = definition_of(view)
    layout = definition.on("sqlite")
    return layout.from_rows(list(zip(*layout.to_columns(rows), strict=True)))


def projection_of(definitions: Compiled, view: type[View]) -> Projection:
    """Return the projection that keeps a view; ``DefinitionError`` when there is none."""
    for one in definitions.projections:
        if view in one.views:
            return one
    raise DefinitionError(
        "No projection of this module keeps this view; include the module that does",
        at=place(view),
        view=named(view),
    )
