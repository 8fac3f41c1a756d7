"""Laws that hold for every application, tried on random histories and commands (hypothesis).

The folds of a module are pure: the same input gives the same output, nothing that is given is
changed, and it does not matter how a history is cut: into prefix and rest, into batches, by keys.
That is what caches, batches, rebuilds and slices rest on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise
from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.strategies import SearchStrategy
from msgspec import Raw, Struct

from diptych.codec import Codec, Registered
from diptych.errors import DefinitionError, Invalid, ProjectionFailed, place
from diptych.log import StoredEvent
from diptych.messages import Event, Recorded
from diptych.read.projections import Keyed, fold_events
from diptych.read.views import View
from diptych.testing.differences import difference, rows, short
from diptych.testing.strategies import Maker, Using
from diptych.testing.worlds import (
    Compiled,
    Composed,
    Fact,
    InMemory,
    given_events,
    stored_rows,
)
from diptych.write.definitions import Model, Tags

# They speak of how values are made, which is not the user's doing here.
_EVERY_HEALTH_CHECK: list[Any] = list(HealthCheck)

S = TypeVar("S")
V = TypeVar("V", bound=View)


class LawBroken(AssertionError):
    """A law does not hold. The text shows the shortest case found."""


def law_broken(law: str, at: str, lines: Iterable[str] = ()) -> LawBroken:
    """Return the error for a law that does not hold; ``lines`` show the case."""
    body = "".join(f"  {line}".rstrip() + "\n" for line in lines)
    return LawBroken(f"{law} ({at})" + (f"\n\n{body}" if body else ""))


def try_law(
    values: SearchStrategy[Any],
    law: Callable[[Any], None],
    settings: hypothesis.settings | None,
) -> None:
    """Try a law on many values; the error is that of the simplest one that breaks it."""
    base = settings or hypothesis.settings()
    chosen = hypothesis.settings(
        base,
        phases=[phase for phase in base.phases if phase is not Phase.explain],
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=_EVERY_HEALTH_CHECK,
    )

    seen: list[LawBroken] = []

    @chosen
    @hypothesis.given(values)
    def holds(drawn: Any) -> None:
        try:
            law(drawn)
        except LawBroken as broken:
            seen.append(broken)
            raise

    try:
        holds()
    except Flaky:  # the function remembers: the same case came out otherwise the next time
        if not seen:
            raise
        raise seen[-1] from None


# --- codec ----------------------------------------------------------------------------------------


def check_codec(
    app: Composed, *, using: Using | None = None, settings: hypothesis.settings | None = None
) -> None:
    """Check that every message comes back from its JSON as it went, with the same tags.

    ``using`` gives strategies of your own by type. Raises ``LawBroken``, an ``AssertionError``.
    """
    definitions = app.compile()
    codec = definitions.codec
    maker = Maker(definitions, using, pools=False)
    for kind in (codec.events, codec.commands, codec.queries):
        for registered in kind.values():

            def law(message: Any, registered: Registered = registered) -> None:
                _round_trip(codec, registered, message)

            try_law(maker.of(registered.cls), law, settings)


def _round_trip(codec: Codec, registered: Registered, message: Any) -> None:
    at = place(registered.cls)
    try:
        clean, data = codec.validate(message)
    except Invalid as error:
        law = f"{registered.name} does not come back from its JSON"
        raise law_broken(law, at, [short(message), str(error)]) from error
    if clean != message:
        law = f"{registered.name} comes back from its JSON as another"
        raise law_broken(law, at, difference(message, clean))
    if registered.tags(clean) != registered.tags(message):
        law = f"{registered.name} comes back from its JSON with other tags"
        raise law_broken(law, at, difference(registered.tags(message), registered.tags(clean)))
    if isinstance(message, Event):
        stored = StoredEvent(1, "1", registered.name, registered.tags(message), Raw(data), Raw())
        if (event := codec.event(stored)) != message:
            law = f"{registered.name} comes back from the log as another"
            raise law_broken(law, at, difference(message, event))


# --- folds ----------------------------------------------------------------------------------------


class _Fold(Struct, frozen=True, eq=False):
    """A fold under test: a model's, or a projection's for one key."""

    name: str
    at: str
    step: Callable[[Any, Any], Any]
    event: Callable[[Any], Event]


class _Tally:
    """How many events a fold took, and why it refused one."""

    def __init__(self) -> None:
        self.taken = 0
        self.refusal: Exception | None = None

    def require_some(self, name: str, at: str) -> None:
        """Raise ``LawBroken`` when a fold was given events and took not a single one."""
        if not self.taken and self.refusal is not None:
            raise law_broken(f"{name} raises at every event", at, [repr(self.refusal)])


def check_folds(
    app: Composed,
    *,
    histories: SearchStrategy[list[Event]] | None = None,
    using: Using | None = None,
    settings: hypothesis.settings | None = None,
) -> None:
    """Check the folds of all models and keyed projections on random histories.

    The same input gives the same output; neither state, row nor event is changed; prefix then rest
    is the whole; and for projections neither batches nor the events of other keys matter. An event
    at which a fold raises is left out: a history need not be a possible one. ``histories`` gives
    your own. Handlers are not checked: they are not pure. Raises ``LawBroken``.
    """
    definitions = app.compile()
    maker = Maker(definitions, using)
    for model in definitions.write.models:
        tally = _Tally()

        def law(drawn: tuple[list[Event], list[int]], model: Model = model) -> None:
            events, cuts = drawn
            _check_model(definitions, model, events, cuts, tally)  # noqa: B023

        try_law(_drawn(histories, maker, model.events), law, settings)
        tally.require_some(model.name, model.at)
    for one in definitions.projections:
        if not isinstance(one, Keyed):
            continue
        tally = _Tally()

        def fold(drawn: tuple[list[Event], list[int]], one: Keyed = one) -> None:
            events, cuts = drawn
            _check_projection(definitions, one, events, cuts, tally)  # noqa: B023

        try_law(_drawn(histories, maker, one.events), fold, settings)
        tally.require_some(one.function.__name__, one.at)


def _drawn(
    histories: SearchStrategy[list[Event]] | None, maker: Maker, types: Sequence[type[Event]]
) -> SearchStrategy[Any]:
    if histories is None:
        histories = st.lists(maker.one_of(tuple(types)), max_size=12)
    return st.tuples(histories, st.lists(st.integers(0, 12), max_size=3).map(sorted))


def _facts(definitions: Compiled, events: Iterable[Event]) -> tuple[Fact, ...]:
    try:
        return given_events(definitions.codec, events, None, None).facts
    except Invalid:
        hypothesis.reject()


def _check_model(
    definitions: Compiled,
    model: Model,
    events: Sequence[Event],
    cuts: Sequence[int],
    tally: _Tally,
) -> None:
    facts = _facts(definitions, events)
    fold = _Fold(model.name, model.at, model.evolve, lambda event: event)
    for tags in instances_of(model, facts):
        query = model.query(tags)
        heard = [f.event for f in facts if query.matches(f.new.type, f.new.tags)]
        _check_fold(fold, model.initial, heard, cuts, tally)


def instances_of(model: Model, facts: Iterable[Fact]) -> list[Tags]:
    """Return the tags of every instance of a model that the facts touch."""
    found: dict[Tags, None] = {}
    for fact in facts:
        for fields in model.routes.get(type(fact.event), ()):
            values = [getattr(fact.event, field.field) for field in fields]
            if None not in values:
                tags = [field.tag(v) for field, v in zip(fields, values, strict=True)]
                found[tuple(tags)] = None
    return list(found)


def _check_fold(
    fold: _Fold, start: Any, items: Sequence[Any], cuts: Sequence[int], tally: _Tally
) -> list[Any]:
    """Check one fold over events; return those that it takes."""
    if deepcopy(start) != start:
        raise law_broken(
            f"{fold.name}: two equal states are not equal; make the state a Struct or a dataclass, "
            "or give it __eq__",
            fold.at,
        )
    state, taken = start, list[Any]()
    for item in items:
        before, event = deepcopy(state), deepcopy(fold.event(item))
        try:
            after = fold.step(state, item)
        except (ProjectionFailed, DefinitionError) as error:
            raise law_broken(f"{fold.name} breaks a rule", fold.at, [str(error)]) from error
        except Exception as error:
            tally.refusal = error
            continue
        _require_untouched(fold, before, state, event, fold.event(item))
        with _taken_before(fold.name, fold.at, [*(fold.event(i) for i in taken), event]):
            again = fold.step(deepcopy(before), item)
        if again != after:
            law = f"{fold.name} gives two results for the same state and event"
            raise law_broken(law, fold.at, [short(event), *difference(after, again)])
        taken.append(item)
        tally.taken += 1
        state = after
    events = [fold.event(item) for item in taken]
    for cut in (0, *cuts):
        with _taken_before(fold.name, fold.at, events):
            half = _run(fold, start, taken[:cut])
            whole = _run(fold, deepcopy(half), taken[cut:])
        if whole != state:
            raise law_broken(
                f"{fold.name}: a prefix, then the rest, is not the whole",
                fold.at,
                [
                    *_numbered(events),
                    f"cut after {min(cut, len(taken))}",
                    *difference(state, whole),
                ],
            )
    return taken


def _run(fold: _Fold, state: Any, items: Iterable[Any]) -> Any:
    for item in items:
        state = fold.step(state, item)
    return state


@contextmanager
def _taken_before(name: str, at: str, events: Sequence[Event]) -> Generator[None]:
    """Raise ``LawBroken`` where a fold raises at events that it has taken once."""
    try:
        yield
    except LawBroken:
        raise
    except Exception as error:
        law = f"{name} raises at events that it took before"
        raise law_broken(law, at, [*_numbered(events), repr(error)]) from error


def _numbered(events: Iterable[Event]) -> list[str]:
    return [f"{n}. {short(event)}" for n, event in enumerate(events, 1)]


def _require_untouched(fold: _Fold, before: Any, state: Any, event: Event, given: Event) -> None:
    if state != before:
        law = f"{fold.name} changes the state that it is given, instead of returning a new one"
        raise law_broken(law, fold.at, [short(event), *difference(before, state)])
    if given != event:
        law = f"{fold.name} changes the event that it is given"
        raise law_broken(law, fold.at, difference(event, given))


# --- folds of projections -------------------------------------------------------------------------


def _check_projection(
    definitions: Compiled,
    one: Keyed,
    events: Sequence[Event],
    cuts: Sequence[int],
    tally: _Tally,
) -> None:
    world = InMemory(definitions)
    world.append([f for f in _facts(definitions, events) if type(f.event) in one.events])
    name = one.function.__name__
    taken, keys, first = _taken(one, world.recorded(), tally)
    with _taken_before(name, one.at, [recorded.event for recorded in taken]):
        for key in keys:
            touching = _touching(one, key, taken)
            _check_fold(_of_key(one, key), None, touching, cuts, tally)
        whole = _stored(one, fold_events(one, taken, {}).values())
        law = f"{name} gives other rows for the same events when it is asked again"
        _require_same(one, law, _stored(one, first), whole, taken)
        alone = [_run(_of_key(one, key), None, _touching(one, key, taken)) for key in keys]
        apart = _stored(one, [row for row in alone if row is not None])
        law = f"{name}: what happens to other keys changes a row"
        _require_same(one, law, whole, apart, taken)
        found: dict[Any, Any] = {}
        for start, end in pairwise([0, *cuts, len(taken)]):
            fold_events(one, taken[start:end], found)
            found = {one.definition.key_of(row): row for row in _stored(one, found.values())}
        law = f"{name}: in batches, the rows come out otherwise than event by event"
        _require_same(one, law, whole, list(found.values()), taken)


def _of_key(one: Keyed, key: Any) -> _Fold:
    """Return the fold for one key: an event with several keys is folded for this one alone."""

    def step(row: Any, recorded: Recorded) -> Any:
        after = one.fold(row, recorded.event, key, recorded)
        if after is not None:
            one.check_row(after, key)
        return after

    return _Fold(one.function.__name__, one.at, step, lambda recorded: recorded.event)


def _taken(
    one: Keyed, history: Iterable[Recorded], tally: _Tally
) -> tuple[list[Recorded], list[Any], list[Any]]:
    """Return the events that the fold takes for all their keys, these keys, and the rows."""
    found: dict[Any, Any] = {}
    taken: list[Recorded] = []
    keys: dict[Any, None] = {}
    for recorded in history:
        kept = deepcopy(found)
        try:
            fold_events(one, [recorded], found)
        except ProjectionFailed as error:
            name = one.function.__name__
            raise law_broken(f"{name} breaks a rule", one.at, [str(error)]) from error
        except Exception as error:
            tally.refusal, found = error, kept
            continue
        taken.append(recorded)
        keys.update(dict.fromkeys(one.keys_of(recorded.event)))
    return taken, list(keys), list(found.values())


def _touching(one: Keyed, key: Any, history: Iterable[Recorded]) -> list[Recorded]:
    return [recorded for recorded in history if key in one.keys_of(recorded.event)]


def _stored(one: Keyed, found: Iterable[Any]) -> list[Any]:
    """Return rows as the database gives them back."""
    try:
        view: type[Any] = one.definition.view
        return stored_rows(view, list(found))
    except Invalid as error:
        name = one.function.__name__
        raise law_broken(
            f"{name} returns a row that cannot be stored", one.at, [str(error)]
        ) from error


def _require_same(
    one: Keyed, law: str, expected: list[Any], got: list[Any], taken: Iterable[Recorded]
) -> None:
    key_of = one.definition.key_of
    if {key_of(row): row for row in expected} != {key_of(row): row for row in got}:
        raise law_broken(
            law,
            one.at,
            [
                *_numbered(recorded.event for recorded in taken),
                *rows(expected, got, key_of),
            ],
        )
