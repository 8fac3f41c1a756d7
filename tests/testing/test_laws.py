"""Laws of folds, codec round trip and invariants: they hold, and planted mistakes are found."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st
from msgspec import Meta, Struct, field
from msgspec.structs import replace

from diptych import Command, Event, Key, Module, Rejected, Tag, View
from diptych.errors import DefinitionError, DiptychError
from diptych.testing import (
    LawBroken,
    Story,
    check_codec,
    check_folds,
    check_invariant,
    commands_of,
    events_of,
    strategy,
)
from tests.testing import shop

FEW = hypothesis.settings(max_examples=60, derandomize=True)
VERY_FEW = hypothesis.settings(max_examples=20, derandomize=True)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(Struct, frozen=True):
    x: int
    y: float
    near: list[Point] = field(default_factory=list["Point"])


class Everything(Event):
    text: Annotated[str, Meta(min_length=2, max_length=4)]
    code: Annotated[str, Meta(pattern="^[A-Z]{3}$")]
    number: Annotated[int, Meta(ge=3, lt=9)]
    fives: Annotated[int, Meta(gt=100, multiple_of=5)]
    below: Annotated[int, Meta(le=-(10**12))]
    share: Annotated[float, Meta(ge=0, le=1)]
    flag: bool
    money: Decimal
    at: datetime
    day: date
    key: UUID
    colour: Colour
    kind: Literal["a", "b", 3]
    point: Point
    points: Annotated[list[Point], Meta(min_length=1, max_length=2)]
    perhaps: Colour | None
    pair: tuple[int, str]
    many: tuple[int, ...]
    among: frozenset[str]
    named: dict[str, int]


module = Module("everything", events=[Everything])


# --- strategies -----------------------------------------------------------------------------------


@hypothesis.settings(VERY_FEW, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(strategy(Everything))
def test_values_keep_to_the_constraints_of_their_types(event: Everything) -> None:
    assert 2 <= len(event.text) <= 4
    assert event.code.isupper()
    assert 3 <= event.number < 9
    assert event.fives > 100
    assert event.fives % 5 == 0
    assert event.below <= -(10**12)
    assert 0 <= event.share <= 1
    assert event.at.tzinfo is not None
    assert 1 <= len(event.points) <= 2
    assert msgspec.json.decode(msgspec.json.encode(event), type=Everything) == event


@hypothesis.settings(FEW)
@hypothesis.given(strategy(shop.OrderPlaced, order=st.just("42")))
def test_fields_can_have_strategies_of_their_own(event: shop.OrderPlaced) -> None:
    assert event.order == "42"


def test_a_field_that_does_not_exist_is_named() -> None:
    with pytest.raises(DefinitionError, match=r"There are no such fields .*fields: nose"):
        strategy(shop.OrderPlaced, nose=st.just(1))


def test_a_type_that_says_nothing_about_its_values_is_named() -> None:
    class Vague(Event):
        what: Any

    with pytest.raises(DefinitionError, match=r"No strategy can be derived.*field: what.*Any"):
        strategy(Vague).validate()


def test_the_events_of_a_history_meet() -> None:
    def meets(history: list[Event]) -> bool:
        cancelled = {e.order for e in history if isinstance(e, shop.OrderCancelled)}
        return any(isinstance(e, shop.OrderPlaced) and e.order in cancelled for e in history)

    assert meets(hypothesis.find(events_of(shop.orders), meets, settings=FEW))


@hypothesis.settings(FEW)
@hypothesis.given(events_of(shop.orders, shop.OrderCancelled, using={str: st.just("7")}))
def test_histories_of_some_types_with_strategies_by_type(history: list[Event]) -> None:
    assert set(history) <= {shop.OrderCancelled("7")}


@hypothesis.settings(FEW)
@hypothesis.given(commands_of(shop.orders))
def test_commands_are_of_the_decisions(command: Command) -> None:
    assert isinstance(command, shop.PlaceOrder | shop.CancelOrder | shop.Note | shop.Touch)


# --- codec ----------------------------------------------------------------------------------------


def test_every_type_of_field_comes_back_from_its_json() -> None:
    check_codec(module, settings=VERY_FEW)
    check_codec(shop.orders, settings=VERY_FEW)


def test_a_message_that_comes_back_as_another_is_found() -> None:
    class Doubled(Event):
        number: int

        def __post_init__(self) -> None:
            if self.number > 100:
                msgspec.structs.force_setattr(self, "number", self.number + 1)

    with pytest.raises(LawBroken) as broken:
        check_codec(Module("m", events=[Doubled]), settings=FEW)
    text = str(broken.value)
    assert text.startswith("Doubled comes back from its JSON as another (")
    assert "  -   number=102,\n  +   number=103," in text


def test_a_message_whose_json_cannot_be_read_is_found() -> None:
    class Shy(Event):
        number: int
        secret: Annotated[str, Meta(max_length=3)] = ""

    made = st.builds(Shy, st.just(1), st.just("long"))
    with pytest.raises(LawBroken, match="Shy does not come back from its JSON"):
        check_codec(Module("m", events=[Shy]), using={Shy: made}, settings=FEW)


# --- folds ----------------------------------------------------------------------------------------

ThingId = Annotated[str, Tag("thing")]


class Added(Event):
    thing: ThingId
    amount: int


class Removed(Event):
    thing: ThingId


class Bag(Struct, frozen=True):
    held: tuple[int, ...] = ()


class Loose(Struct, frozen=True):
    """Frozen, but what it holds is not."""

    held: list[int]


class Row(View):
    thing: Key[str]
    total: int
    amounts: list[int] = field(default_factory=list[int])


Fold = Callable[..., Any]


def with_model(initial: Any, function: Fold) -> Module:
    found = Module("m")
    found.model(initial)(function)
    return found


def with_projection(function: Fold, **options: Any) -> Module:
    found = Module("m")
    found.projects(Row, **options)(function)
    return found


def test_the_folds_of_a_sound_module_keep_the_laws() -> None:
    check_folds(shop.orders, settings=FEW)


def test_a_model_that_changes_its_state_is_caught() -> None:
    def bag(state: Loose, event: Added | Removed) -> Loose:
        if isinstance(event, Added):
            state.held.append(event.amount)
        return state

    with pytest.raises(LawBroken) as broken:
        check_folds(with_model(Loose([]), bag), settings=FEW)
    text = str(broken.value)
    assert text.startswith("bag changes the state that it is given, instead of returning a new one")
    assert "Added(thing='a', amount=0)" in text
    assert "+     0," in text


def test_a_model_that_remembers_what_it_has_seen_is_caught() -> None:
    calls: list[int] = []

    def bag(state: Bag, event: Added | Removed) -> Bag:
        calls.append(1)
        return Bag((*state.held, len(calls)))

    with pytest.raises(LawBroken, match="bag gives two results for the same state and event"):
        check_folds(with_model(Bag(), bag), settings=FEW)


def test_a_model_whose_result_depends_on_where_it_began_is_caught() -> None:
    last: list[Bag] = [Bag()]

    def bag(state: Bag, event: Added | Removed) -> Bag:
        # Twice the same call gives twice the same, but a state made anew is not recognised.
        if state is last[0] and state.held:
            return Bag((*state.held, 1))
        last[0] = Bag((*state.held, 2))
        return last[0]

    with pytest.raises(LawBroken, match=r"bag gives two results|is not the whole"):
        check_folds(with_model(Bag(), bag), settings=FEW)


def test_a_model_that_raises_at_every_event_is_named() -> None:
    def bag(state: Bag, event: Added | Removed) -> Bag:
        raise KeyError(event.thing)

    with pytest.raises(LawBroken, match=r"bag raises at every event.*\n\n  KeyError"):
        check_folds(with_model(Bag(), bag), settings=FEW)


def test_an_event_at_which_a_fold_raises_is_left_out() -> None:
    def bag(state: Bag, event: Added | Removed) -> Bag:
        if isinstance(event, Removed) and not state.held:
            raise AssertionError("cannot happen")
        return Bag((*state.held, 1))

    check_folds(with_model(Bag(), bag), settings=FEW)


class Opaque:
    """A state without __eq__."""


def test_a_state_that_cannot_be_compared_is_named() -> None:
    def bag(state: Opaque, event: Added) -> Opaque:
        return state

    with pytest.raises(LawBroken, match="bag: two equal states are not equal; make the state"):
        check_folds(with_model(Opaque(), bag), settings=FEW)


def test_a_projection_that_changes_its_row_is_caught() -> None:
    def row(row: Row | None, event: Added | Removed) -> Row | None:
        if isinstance(event, Removed):
            return None
        if row is None:
            return Row(event.thing, event.amount, [event.amount])
        row.amounts.append(event.amount)
        return replace(row, total=row.total + event.amount)

    with pytest.raises(LawBroken, match="row changes the state that it is given"):
        check_folds(with_projection(row), settings=FEW)


def test_a_projection_that_looks_at_other_keys_is_caught() -> None:
    seen: set[str] = set()

    def row(row: Row | None, event: Added | Removed) -> Row | None:
        # The same call twice in a row gives the same result, but later it may give another.
        seen.add(repr(event))
        return Row(event.thing, len(seen))

    with pytest.raises(LawBroken, match="row gives other rows for the same events"):
        check_folds(with_projection(row), settings=FEW)


def test_a_projection_to_which_batches_matter_is_caught() -> None:
    def row(row: Row | None, event: Added | Removed) -> Row | None:
        if row is not None and not isinstance(row.amounts, tuple):
            return Row(event.thing, 2)
        return Row(event.thing, 1, ())  # type: ignore[arg-type]  # the mistake: a tuple, not a list

    with pytest.raises(LawBroken, match="row: in batches, the rows come out otherwise"):
        check_folds(with_projection(row), settings=FEW)


def test_a_row_that_cannot_be_stored_is_caught() -> None:
    def row(row: Row | None, event: Added | Removed) -> Row | None:
        return Row(event.thing, 2**63)

    with pytest.raises(LawBroken, match="row returns a row that cannot be stored"):
        check_folds(with_projection(row), settings=FEW)


def test_a_projection_that_changes_the_key_is_caught() -> None:
    def row(row: Row | None, event: Added | Removed) -> Row | None:
        return Row(event.thing + "!", 1)

    with pytest.raises(LawBroken, match=r"row breaks a rule .*\n\n  A fold must not change"):
        check_folds(with_projection(row), settings=FEW)


class Moved(Event):
    source: ThingId
    target: ThingId


def ends(event: Added | Moved) -> list[str]:
    return [event.source, event.target] if isinstance(event, Moved) else [event.thing]


TWO_THINGS: Any = st.just([Added("a", 1), Added("b", 2), Moved("a", "b")])


def test_each_key_of_an_event_is_folded_with_its_own_events_only() -> None:
    def row(row: Row | None, event: Added | Moved, key: str) -> Row | None:
        if isinstance(event, Added):
            return Row(event.thing, event.amount)
        assert row is not None  # both were added: true of this history, and of each key in it
        return replace(row, total=row.total + (1 if key == event.target else -1))

    check_folds(with_projection(row, key=ends), histories=TWO_THINGS, settings=FEW)
    check_folds(with_projection(row, key=ends), settings=FEW)


def test_a_projection_of_several_keys_that_looks_at_other_keys_is_caught() -> None:
    known: set[str] = set()

    def row(row: Row | None, event: Added | Moved, key: str) -> Row | None:
        if isinstance(event, Added):
            known.clear() if event.amount == 1 else None
            known.add(event.thing)
            return Row(event.thing, event.amount)
        assert {event.source, event.target} <= known
        return row

    with pytest.raises(LawBroken) as broken:
        check_folds(with_projection(row, key=ends), histories=TWO_THINGS, settings=FEW)
    text = str(broken.value)
    assert text.startswith("row raises at events that it took before (")
    assert "  1. Added(thing='a', amount=1)\n  2. Added(thing='b', amount=2)\n  3. Moved(" in text
    assert "\n  AssertionError(" in text


def test_a_model_that_raises_when_it_is_asked_again_is_caught() -> None:
    calls: list[int] = []

    def bag(state: Bag, event: Added | Removed) -> Bag:
        calls.append(1)
        if len(calls) % 2 == 0:
            raise KeyError(event.thing)
        return state

    with pytest.raises(LawBroken, match=r"bag raises at events that it took before .*\n\n  1\. "):
        check_folds(with_model(Bag(), bag), settings=FEW)


def test_histories_can_be_given() -> None:
    def row(row: Row | None, event: Added | Removed) -> Row | None:
        assert isinstance(event, Added)
        return Row(event.thing, event.amount)

    histories: Any = st.lists(st.builds(Added, st.sampled_from("ab"), st.integers(0, 9)))
    check_folds(with_projection(row), histories=histories, settings=FEW)


# --- invariants -----------------------------------------------------------------------------------


class Deposit(Command):
    account: Annotated[str, Tag("account")]
    amount: Annotated[int, Meta(ge=1, le=100)]


class Withdraw(Command):
    account: Annotated[str, Tag("account")]
    amount: Annotated[int, Meta(ge=1, le=100)]


class Close(Command):
    account: Annotated[str, Tag("account")]


class Deposited(Event):
    account: Annotated[str, Tag("account")]
    amount: int


class Withdrawn(Event):
    account: Annotated[str, Tag("account")]
    amount: int


class Balance(View):
    account: Key[str]
    amount: int


def bank(*, careful: bool) -> Module:
    found = Module("bank")

    @found.model(0)
    def balance(state: int, event: Deposited | Withdrawn) -> int:
        return state + (event.amount if isinstance(event, Deposited) else -event.amount)

    @found.decides
    def deposit(command: Deposit) -> Iterator[Deposited]:
        yield Deposited(command.account, command.amount)

    @found.decides
    def withdraw(command: Withdraw, balance: int) -> Iterator[Withdrawn]:
        if balance <= 0 or (careful and balance < command.amount):
            raise Rejected("not enough", balance=balance)
        yield Withdrawn(command.account, command.amount)

    @found.projects(Balance)
    def row(row: Balance | None, event: Deposited | Withdrawn) -> Balance | None:
        before = 0 if row is None else row.amount
        return Balance(event.account, balance(before, event))

    return found


def never_below_zero(story: Story) -> bool:
    return all(row.amount >= 0 for row in story.rows(Balance))


def test_an_invariant_that_holds() -> None:
    check_invariant(bank(careful=True), never_below_zero, settings=FEW)


def test_an_invariant_that_does_not_hold_is_told_as_the_shortest_story() -> None:
    with pytest.raises(LawBroken) as broken:
        check_invariant(bank(careful=False), never_below_zero, settings=FEW)
    text = str(broken.value)
    head, _, story = text.partition("\n\n")
    assert head.startswith("The invariant 'never_below_zero' does not hold after (")
    assert story == (
        "  1. Deposit(account='a', amount=1)\n"
        "       Deposited(account='a', amount=1)\n"
        "  2. Withdraw(account='a', amount=2)\n"
        "       Withdrawn(account='a', amount=2)\n"
    )


def test_an_invariant_that_was_tried_on_nothing_does_not_pass() -> None:
    """Where no command was ever accepted, each type is named with what became of it."""
    with pytest.raises(LawBroken) as broken:
        check_invariant(
            bank(careful=True), never_below_zero, commands=[strategy(Withdraw)], settings=FEW
        )
    text = str(broken.value)
    assert text.startswith("No command was ever accepted")
    assert "commands=[strategy(...)]" in text
    assert "\n  Withdraw: rejected: " in text
    assert "Deposit:" not in text
    check_invariant(bank(careful=True), never_below_zero, steps=0, settings=FEW)


def test_a_command_that_is_always_rejected_may_be_among_others() -> None:
    found = bank(careful=True)

    @found.decides
    def close(command: Close) -> Iterator[Deposited]:
        raise Rejected("accounts are never closed")

    check_invariant(found, never_below_zero, settings=FEW)


def test_an_invariant_may_look_at_states_and_events_and_assert() -> None:
    found = bank(careful=True)
    [declared] = found.models

    def sums(story: Story) -> None:
        states = story.states(declared.function)
        assert sum(states.values()) == sum(
            e.amount if isinstance(e, Deposited) else -e.amount
            for e in story.events
            if isinstance(e, Deposited | Withdrawn)
        )
        for tags, state in states.items():
            assert story.state(declared.function, *tags) == state
        assert len(states) < 2, "two accounts"

    with pytest.raises(LawBroken, match=r"(?s)does not hold after .*why: two accounts"):
        check_invariant(found, sums, settings=FEW)


def test_a_story_begins_with_what_is_given_and_takes_the_commands_it_is_told_to() -> None:
    seen: set[type] = set()

    def look(story: Story) -> None:
        assert story.events[0] == Deposited("a", 5)
        seen.update(type(event) for event in story.events)

    check_invariant(
        bank(careful=True),
        look,
        given=[Deposited("a", 5)],
        commands=[strategy(Withdraw, account=st.just("a"))],
        steps=3,
        settings=FEW,
    )
    assert seen == {Deposited, Withdrawn}


def test_an_invariant_that_does_not_hold_at_first_is_told_without_a_story() -> None:
    def never(_story: Story) -> bool:
        return False

    with pytest.raises(LawBroken, match=r"The invariant 'never' does not hold \("):
        check_invariant(bank(careful=True), never, settings=FEW)


def test_a_decision_that_fails_is_told_as_a_story() -> None:
    found = Module("m")

    @found.decides
    def deposit(command: Deposit) -> Iterator[Deposited]:
        yield Deposited(command.account, 100 // (command.amount - 1))

    with pytest.raises(LawBroken) as broken:
        check_invariant(found, lambda _story: True, settings=FEW)
    text = str(broken.value)
    assert text.startswith("A decision failed (")
    assert (
        "1. Deposit(account='a', amount=1)\n       DecisionFailed: Deciding Deposit failed" in text
    )


def test_a_function_that_is_no_model_is_named() -> None:
    def look(story: Story) -> None:
        story.state(lambda state, _event: state, "account:1")

    with pytest.raises(DiptychError, match="This is no model of the module"):
        check_invariant(bank(careful=True), look, settings=FEW)
