"""Scenarios: given what has happened, when a command comes, then these events follow.

``scenarios(app)`` gives ``given``, and all the rest is said in a row::

    given = scenarios(app)
    given(OrderPlaced("42", "ann")).when(CancelOrder("42")).then(OrderCancelled("42"))
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Generic, TypeVar

from diptych.errors import Invalid, Rejected
from diptych.messages import Actor, Command, Event, Query, actor_of
from diptych.read.views import View, definition_of
from diptych.testing import differences, hints
from diptych.testing.differences import failure, named, short
from diptych.testing.worlds import (
    CHECKED,
    Checked,
    Compiled,
    Composed,
    Given,
    InMemory,
    Outcome,
    Step,
    When,
    World,
    given_events,
    when_command,
)

R = TypeVar("R")


class Rejection:
    """An expected rejection; made by ``rejected``."""

    def __init__(self, reason: str, facts: dict[str, Any]) -> None:
        self.reason = reason
        self.facts = facts

    def __repr__(self) -> str:
        return _call(self.reason, self.facts)

    def allows(self, got: Rejected) -> bool:
        """Whether this rejection is the one meant."""
        return self.reason in (got.reason, got.code) and all(
            name in got.facts and got.facts[name] == value for name, value in self.facts.items()
        )


def rejected(reason: str, /, **facts: Any) -> Rejection:
    """Expect a rejection, by its reason or its code; of its facts only those given are compared."""
    return Rejection(reason, facts)


def scenarios(app: Composed, /, *, log: str | None = None, views: str | None = None) -> Scenarios:
    """Return ``given``, for the scenarios of a module or application.

    They take place in memory, by pure functions. With ``log`` they take place in the opened
    application: ``"sqlite:"`` makes a new file for each scenario, ``"memory:"`` a new log in
    memory; any other URL is the log that all of them use and leave as it is then. ``views`` is by
    default the same. Raises ``DefinitionError``.
    """
    if log is None and views is not None:
        raise Invalid("Views are opened together with a log", field="views", rule="give log=, too")
    if log is None:
        return Scenarios(app.compile())
    from diptych.testing.opened import Opener

    return Scenarios(app.compile(), Opener(app, log, log if views is None else views))


class Scenarios:
    """``given``: what has happened before."""

    def __init__(self, definitions: Compiled, opener: Any = None) -> None:
        self.definitions = definitions
        self.opener = opener

    def __call__(
        self, *events: Event, at: datetime | None = None, actor: Actor | str | None = None
    ) -> Scenario:
        """Begin a scenario with the events that have happened; none: an empty log.

        ``at`` and ``actor`` go into their metadata (default: now, nobody). Raises ``Invalid`` for
        an event whose fields are not of their types, ``UnknownMessage`` for one not registered.
        """
        place = None if self.opener is None else self.opener.place()
        return Scenario(self, (), place).given(*events, at=at, actor=actor)


class Scenario:
    """A scenario so far. It takes place each time something is checked; every step is a new one."""

    def __init__(self, kit: Scenarios, steps: tuple[Step, ...], place: Any) -> None:
        self._kit = kit
        self._steps = steps
        self._place = place

    # --- steps ------------------------------------------------------------------------------------

    def given(
        self, *events: Event, at: datetime | None = None, actor: Actor | str | None = None
    ) -> Scenario:
        """Let further events have happened: with other metadata, or by somebody else."""
        return self._and(given_events(self._kit.definitions.codec, events, at, actor))

    def when(
        self, command: Command, *, at: datetime | None = None, actor: Actor | str | None = None
    ) -> Scenario:
        """Take a command, decided on all that came before.

        ``at`` and ``actor`` go into its metadata; a real log stamps the time itself, so ``at`` is
        for scenarios in memory. Raises ``Invalid`` and ``UnknownMessage``, and at once what the
        rules say of ``actor``: ``NotAuthenticated``, ``NotAllowed``.
        """
        if at is not None and self._kit.opener is not None:
            raise Invalid(
                "An opened application stamps commands with its own clock; check what depends on "
                "the time in memory",
                field="at",
                rule="only without log=",
            )
        return self._and(when_command(self._kit.definitions, command, at, actor))

    def ask(self, query: Query[R], /, *, actor: Actor | str | None = None) -> Asked[R]:
        """Ask a query when all that came before is in the views. In memory: milliseconds.

        The answer raises ``NotAuthenticated`` and ``NotAllowed`` when the rules say so.
        """
        who = actor_of(actor)

        def answer() -> R:
            __tracebackhide__ = True
            with self._run() as (world, outcome):
                self._require_accepted(outcome)
                return world.ask(query, who)

        return Asked(query, answer, self._and(CHECKED))

    def _and(self, step: Step) -> Scenario:
        return Scenario(self._kit, (*self._steps, step), self._place)

    # --- checks -----------------------------------------------------------------------------------

    def then(self, *expected: Event | View | Rejection) -> Scenario:
        """Check what followed: the events of the last command, or its rejection; rows of views.

        Events are compared in order. Rows are compared with all rows of their views, whatever the
        order. Nothing expected: the last command was accepted and had no events. Raises
        ``ScenarioFailed``, an ``AssertionError``, and what the last command raised but
        ``Rejected``.
        """
        __tracebackhide__ = True
        kinds: list[type] = [type(e) for e in expected]
        rows = [e for e in expected if isinstance(e, View)]
        rejections = [e for e in expected if isinstance(e, Rejection)]
        events = [e for e in expected if isinstance(e, Event)]
        if len(rows) + len(rejections) + len(events) < len(expected):
            raise Invalid(
                "A scenario ends with events, rows of views or rejected(...)",
                field="then",
                rule="an Event, a View or rejected(...)",
                got=", ".join(sorted({kind.__name__ for kind in kinds})),
            )
        if len(rejections) > 1 or (rejections and events):
            raise Invalid(
                "A command is rejected or has events, not both",
                field="then",
                rule="one rejected(...), or events",
            )
        codec = self._kit.definitions.codec
        events = [codec.validate(event)[0] for event in events]
        with self._run() as (world, outcome):
            if rejections:
                self._check_rejection(outcome, rejections[0])
            elif events or not rows:
                self._check_events(outcome, events)
            else:
                self._require_accepted(outcome)
            for view in dict.fromkeys(type(row) for row in rows):
                self._check_rows(world, view, [row for row in rows if type(row) is view])
        return self._and(CHECKED)

    def then_nothing(self) -> Scenario:
        """Check that the last command was accepted and had no events."""
        __tracebackhide__ = True
        return self.then()

    def then_no(self, *views: type[View]) -> Scenario:
        """Check that these views have no rows."""
        __tracebackhide__ = True
        with self._run() as (world, outcome):
            self._require_accepted(outcome)
            for view in views:
                self._check_rows(world, view, [])
        return self._and(CHECKED)

    @contextmanager
    def _run(self) -> Generator[tuple[World, Outcome]]:
        """Let the scenario take place up to here."""
        __tracebackhide__ = True
        if self._place is None:
            world = InMemory(self._kit.definitions)
            yield world, run(world, self._steps, Outcome())
            return
        with self._place.world(self._kit.definitions, self._steps, run) as found:
            yield found

    # --- what is checked --------------------------------------------------------------------------

    def _last(self, outcome: Outcome) -> When:
        __tracebackhide__ = True
        if outcome.last is None:
            raise failure(
                "Events follow from a command, and this scenario has none: put .when(...) before "
                ".then(...), or expect rows of a view"
            )
        return outcome.last

    def _require_accepted(self, outcome: Outcome) -> None:
        __tracebackhide__ = True
        if outcome.rejection is not None and not outcome.checked:
            self._check_events(outcome, [])

    def _check_events(self, outcome: Outcome, expected: Sequence[Event]) -> None:
        __tracebackhide__ = True
        last = self._last(outcome)
        told = hints.Told(self._kit.definitions, self._steps, last)
        if outcome.rejection is not None:
            raise failure(
                f"Rejected: {short(last.command)}",
                [
                    f"reason: {outcome.rejection}",
                    f"code:   {outcome.rejection.code}",
                    "",
                    "expected instead: "
                    + ("that it is accepted" if not expected else "")
                    + ", ".join(type(e).__name__ for e in expected),
                ],
                told.deaf(),
            ) from None
        if list(outcome.events) != list(expected):
            raise failure(
                f"Other events than expected from {short(last.command)}",
                differences.sequences(expected, outcome.events),
                [*told.tags(expected, outcome.events), *told.deaf()],
            )

    def _check_rejection(self, outcome: Outcome, expected: Rejection) -> None:
        __tracebackhide__ = True
        last = self._last(outcome)
        got = outcome.rejection
        told = hints.Told(self._kit.definitions, self._steps, last)
        if got is None:
            raise failure(
                f"Not rejected: {short(last.command)}",
                [
                    differences.LEGEND,
                    f"- {expected!r}",
                    *([f"+ {short(event)}" for event in outcome.events] or ["+ no events"]),
                ],
                told.deaf(),
            )
        if not expected.allows(got):
            by_code = expected.reason == got.code
            facts = {n: got.facts[n] for n in expected.facts if n in got.facts}
            if expected.reason not in (got.reason, got.code):
                facts = got.facts
            raise failure(
                f"Rejected otherwise than expected: {short(last.command)}",
                [
                    differences.LEGEND,
                    f"- {expected!r}",
                    f"+ {_call(got.code if by_code else got.reason, facts)}",
                ],
                hints.rejection(expected.reason, expected.facts, got),
            )

    def _check_rows(self, world: World, view: type[View], expected: Sequence[View]) -> None:
        __tracebackhide__ = True
        found = world.rows(view)
        key_of = definition_of(view).key_of
        if not _same_rows(expected, found, key_of):
            told = hints.Told(self._kit.definitions, self._steps, None)
            raise failure(
                f"Other rows of {named(view)} than expected",
                differences.rows(expected, found, key_of),
                told.rows(view, expected, found),
            )


class Asked(Generic[R]):
    """A query that was asked."""

    def __init__(self, query: Query[R], answer: Callable[[], R], checked: Scenario) -> None:
        self._query = query
        self._answer = answer
        self._checked = checked

    def then(self, expected: R, /) -> Scenario:
        """Check the answer. Raises ``ScenarioFailed``, an ``AssertionError``."""
        __tracebackhide__ = True
        got = self._answer()
        if got != expected:
            raise failure(
                f"Another answer than expected to {short(self._query)}",
                differences.difference(expected, got),
            )
        return self._checked

    def answer(self) -> R:
        """Return the answer, for checks of your own."""
        __tracebackhide__ = True
        return self._answer()


def run(world: World, steps: Sequence[Step], outcome: Outcome) -> Outcome:
    """Take the steps, from what came of those before."""
    __tracebackhide__ = True
    for step in steps:
        if isinstance(step, Given):
            if step.facts:
                world.append(step.facts)
        elif isinstance(step, Checked):
            outcome.checked = True
        else:
            if outcome.rejection is not None and not outcome.checked:
                assert outcome.last is not None
                raise failure(
                    f"Rejected: {short(outcome.last.command)}",
                    [
                        f"reason: {outcome.rejection}",
                        f"code:   {outcome.rejection.code}",
                        "",
                        "Another command follows. If the rejection is meant, check it first: "
                        ".then(rejected(...)).when(...)",
                    ],
                )
            outcome = Outcome(step, checked=False)
            try:
                outcome.events = world.do(step)
            except Rejected as rejection:
                outcome.rejection = rejection.with_traceback(None)
    return outcome


def _same_rows(expected: Sequence[View], found: Sequence[View], key_of: Any) -> bool:
    if len(expected) != len(found):
        return False
    rows = {key_of(row): row for row in found}
    return len(rows) == len({key_of(row) for row in expected}) and all(
        rows.get(key_of(row)) == row for row in expected
    )


def _call(reason: str, facts: dict[str, Any]) -> str:
    listed = "".join(f", {name}={value!r}" for name, value in facts.items())
    return f"rejected({reason!r}{listed})"
