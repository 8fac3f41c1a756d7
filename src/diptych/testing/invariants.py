"""Invariants: what holds of an application whatever commands come (hypothesis)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import hypothesis
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from diptych.errors import DefinitionError, Invalid, Rejected, place
from diptych.messages import Command, Event
from diptych.read.views import View
from diptych.testing.differences import short
from diptych.testing.laws import instances_of, law_broken, try_law
from diptych.testing.strategies import Maker, Using
from diptych.testing.worlds import (
    Compiled,
    Composed,
    InMemory,
    given_events,
    state_of,
    when_command,
)
from diptych.write.definitions import Model, Tags

S = TypeVar("S")
V = TypeVar("V", bound=View)


class Story:
    """What has happened so far, for an invariant to look at."""

    def __init__(self, definitions: Compiled) -> None:
        self._definitions = definitions
        self._world = InMemory(definitions)
        self.told: list[str] = []
        self.accepted = 0
        self.refusals: dict[str, str] = {}

    @property
    def events(self) -> list[Event]:
        """All events, in order."""
        return [fact.event for fact in self._world.facts]

    def rows(self, view: type[V]) -> list[V]:
        """Return all rows of a view."""
        return self._world.rows(view)

    def state(self, model: Callable[[S, Any], S], /, *tags: str) -> S:
        """Return the state of one instance of a model: ``story.state(order, "order:42")``."""
        state: S = state_of(self._model(model), tags, self._world.facts)
        return state

    def states(self, model: Callable[[S, Any], S], /) -> dict[Tags, S]:
        """Return the states of all instances of a model that events have touched, by tags."""
        found = instances_of(self._model(model), self._world.facts)
        return {tags: self.state(model, *tags) for tags in found}

    def _model(self, function: Callable[..., Any]) -> Model:
        for model in self._definitions.write.models:
            if model.evolve is function:
                return model
        raise DefinitionError("This is no model of the module", at=place(function))

    def begin(self, events: Sequence[Event]) -> None:
        """Let events have happened."""
        facts = given_events(self._definitions.codec, events, None, None).facts
        self._world.append(facts)

    def take(self, command: Command) -> None:
        """Take a command; a rejection is an answer like any other."""
        try:
            step = when_command(self._definitions, command, guarded=False)
        except Invalid as invalid:  # it would never have come in
            self.refusals[type(command).__name__] = str(invalid)
            return
        self.told.append(f"{len(self.told) + 1}. {short(command)}")
        try:
            events = self._world.do(step)
        except Rejected as rejection:
            self.told[-1] += f"\n       rejected: {rejection}"
            self.refusals[type(command).__name__] = f"rejected: {rejection}"
            return
        except Exception as error:
            self.told[-1] += f"\n       {type(error).__name__}: {error}"
            raise law_broken("A decision failed", step.decision.at, self._lines()) from error
        self.accepted += 1
        self.told[-1] += "".join(f"\n       {short(event)}" for event in events)

    def _lines(self) -> Iterator[str]:
        yield from self.told

    def check(self, invariant: Callable[[Story], object]) -> None:
        """Raise ``LawBroken`` unless the invariant holds now."""
        name = getattr(invariant, "__name__", "invariant")
        law = f"The invariant {name!r} does not hold" + (" after" if self.told else "")
        try:
            held = invariant(self)
        except AssertionError as error:
            why = [f"why: {error}"] if str(error) else []
            raise law_broken(law, place(invariant), [*self._lines(), *why]) from error
        if held is False:
            raise law_broken(law, place(invariant), self._lines())


def check_invariant(
    app: Composed,
    invariant: Callable[[Story], object],
    *,
    commands: Sequence[SearchStrategy[Any]] = (),
    given: Sequence[Event] = (),
    steps: int = 20,
    using: Using | None = None,
    settings: hypothesis.settings | None = None,
) -> None:
    """Check that an invariant holds after each of up to ``steps`` random commands.

    It gets the ``Story`` so far, and raises ``AssertionError`` or returns False when it does not
    hold. ``commands`` are strategies of commands (default: derived from all that the module
    decides), ``given`` is what happened before. Raises ``LawBroken`` with the shortest story; also
    when in all stories not one command was accepted: the invariant would hold of nothing.
    """
    definitions = app.compile()
    maker = Maker(definitions, using)
    one_of = st.one_of(*commands) if commands else maker.one_of(tuple(definitions.write.decisions))

    accepted = 0
    refusals: dict[str, str] = {}

    def law(drawn: list[Command]) -> None:
        nonlocal accepted
        story = Story(definitions)
        story.begin(given)
        story.check(invariant)
        for command in drawn:
            story.take(command)
            story.check(invariant)
        accepted += story.accepted
        refusals.update(story.refusals)

    try_law(st.lists(one_of, max_size=steps), law, settings)
    if refusals and not accepted:
        raise law_broken(
            "No command was ever accepted, so the invariant was tried on nothing; give commands "
            "that can be, commands=[strategy(...)], or the events before them, given=[...]",
            place(invariant),
            [f"{name}: {why}" for name, why in sorted(refusals.items())],
        )
