"""Guesses at why a scenario failed: what nobody listens to, tags and keys that do not meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from diptych.errors import Rejected
from diptych.messages import Event, tag_fields
from diptych.read.views import View, definition_of
from diptych.testing.differences import named, short
from diptych.testing.worlds import Compiled, Given, Step, When, projection_of


class Told(Struct, frozen=True, eq=False):
    """What is known of a scenario that failed."""

    definitions: Compiled
    steps: Sequence[Step]
    last: When | None

    def deaf(self) -> Iterator[str]:
        """Name the given events that the last command's decision did not see, and why."""
        if self.last is None:
            return
        decision, command = self.last.decision, self.last.command
        name = type(command).__name__
        given = list(self._given())
        if given and not decision.needs:
            yield (
                f"the decision of {name} asks for no model, so what was given cannot matter to it "
                f"({decision.at})"
            )
            return
        for label, event, tags in given:
            listening = [n for n in decision.needs if type(event) in n.model.events]
            if not listening:
                listed = "; ".join(
                    f"{need.model.name} listens to {_names(need.model.events)}"
                    for need in decision.needs
                )
                yield f"{label} is heard by no model that {name} asks for: {listed}"
                continue
            wanted = [need.tags(command) for need in listening]
            if any(w is not None and set(w).issubset(tags) for w in wanted):
                continue
            asked = " or ".join(" ".join(w) if w else "no instance" for w in wanted)
            yield (
                f"{label} bears {' '.join(tags) or 'no tag'}, but {name} asks for {asked}: "
                f"{' and '.join(need.model.name for need in listening)} did not see it"
            )

    def tags(self, expected: Sequence[Event], actual: Sequence[Event]) -> Iterator[str]:
        """Name tags that differ between an expected event and the one that came in its place."""
        for wanted, got in zip(expected, actual, strict=False):
            if type(wanted) is not type(got):
                continue
            for field in tag_fields(type(wanted)):
                left, right = getattr(wanted, field.field), getattr(got, field.field)
                if left != right:
                    yield (
                        f"{type(wanted).__name__}.{field.field} is a tag: expected "
                        f"{_tag(field, left)}, got {_tag(field, right)}"
                    )

    def rows(
        self, view: type[View], expected: Sequence[View], actual: Sequence[View]
    ) -> Iterator[str]:
        """Name given events that the view's projection does not use, and keys without a row."""
        one = projection_of(self.definitions, view)
        for label, event, _ in self._given():
            if type(event) not in one.events:
                yield (
                    f"{label} is not used by the projection of {named(view)}, which uses "
                    f"{_names(one.events)} ({one.at})"
                )
        key_of = definition_of(view).key_of
        keys = {key_of(row): None for row in actual}
        names = ", ".join(f.name for f in definition_of(view).key_fields)
        seen: set[Any] = set()
        for row in expected:
            key = key_of(row)
            if key in seen:
                yield f"two rows are expected with the key {names}={key!r}; a key has one row"
            seen.add(key)
            if key not in keys:
                yield (
                    f"no row has the key {names}={key!r}; there are "
                    f"{short(list(keys), 60) if keys else 'no rows'}"
                )

    def _given(self) -> Iterator[tuple[str, Event, Sequence[str]]]:
        number = 0
        for step in self.steps:
            if isinstance(step, Given):
                for fact in step.facts:
                    number += 1
                    label = f"{type(fact.event).__name__} (given, no. {number})"
                    yield label, fact.event, fact.new.tags


def rejection(reason: str, facts: Mapping[str, Any], got: Rejected) -> Iterator[str]:
    """Say what of a rejection is not as expected."""
    if reason not in (got.reason, got.code):
        yield f"a rejection is named by its reason or its code: {got.reason!r}, {got.code!r}"
        return
    for name, value in facts.items():
        if name not in got.facts:
            yield f"the rejection has no fact {name!r}; it has {_listed(got.facts)}"
        elif got.facts[name] != value and repr(got.facts[name]) == repr(value):
            yield (
                f"the fact {name!r} is of the type {type(got.facts[name]).__name__}, expected "
                f"{type(value).__name__}"
            )


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(facts) or "none"


def _names(events: Sequence[type[Event]]) -> str:
    return ", ".join(event.__name__ for event in events)


def _tag(field: Any, value: Any) -> str:
    return "no tag" if value is None else str(field.tag(value))
