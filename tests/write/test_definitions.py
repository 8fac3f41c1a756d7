"""What cannot be used as declared is found at start-up, and named by file and line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from msgspec import Struct

from diptych.app import Module
from diptych.errors import DefinitionError
from diptych.messages import Command, Event, Tag

OrderId = Annotated[str, Tag("order")]
StockId = Annotated[str, Tag("stock")]


class Order(Struct, frozen=True):
    placed: bool = False


class Other(Struct, frozen=True):
    placed: bool = False


class Place(Command):
    order: OrderId


class Placed(Event):
    order: OrderId


class Reserved(Event):
    order: OrderId
    stock: StockId


class Untagged(Event):
    text: str


class Move(Command):
    source: StockId
    target: StockId


class Moved(Event):
    source: StockId
    target: StockId


class Stock(Struct, frozen=True):
    moves: int = 0


def order(state: Order, event: Placed) -> Order:
    return state


def place(command: Place, order: Order) -> Iterator[Placed]:
    yield Placed(command.order)


def fails(declare: Callable[[Module], Any], text: str) -> DefinitionError:
    module = Module("m")

    def compiled() -> None:
        declare(module)
        module.compile()

    with pytest.raises(DefinitionError, match=re.escape(text)) as caught:
        compiled()
    assert re.search(r"test_definitions\.py:\d+", caught.value.at), caught.value.at
    return caught.value


def test_a_module_as_it_should_be() -> None:
    """Dispatch, filter and boundary come from the annotations."""
    module = Module("m")
    module.model(Order())(order)
    module.decides(place)
    side = module.compile().write
    decision = side.decisions[Place]
    assert [need.model.name for need in decision.needs] == ["order"]
    assert decision.needs[0].model.tags == ("order",)
    assert decision.needs[0].tags(Place("7")) == ("order:7",)
    assert decision.emits == (Placed,)


def test_a_model_takes_state_and_event() -> None:
    """A model with a wrong number of parameters is refused."""

    def model(state: Order) -> Order:
        return state

    fails(lambda m: m.model(Order())(model), "function of two parameters")


def test_every_parameter_is_annotated() -> None:
    """A parameter without annotation is refused, by name."""

    def model(state: Order, event):  # type: ignore[no-untyped-def]
        return state

    assert fails(lambda m: m.model(Order())(model), "annotation").facts["parameter"] == "event"


def test_an_annotation_that_cannot_be_resolved() -> None:
    """A name that does not exist is shown."""

    def model(state: Order, event: Nowhere) -> Order:  # type: ignore[name-defined] # noqa: F821
        return state

    assert "Nowhere" in str(fails(lambda m: m.model(Order())(model), "cannot be resolved"))


def test_a_model_state_is_of_its_initial_type() -> None:
    """The first parameter and the initial state must agree."""
    fails(lambda m: m.model(Other())(order), "type of its initial state")


def test_a_model_state_is_immutable() -> None:
    """States are shared between commands, so a mutable one is refused."""

    def model(state: dict[str, int], event: Placed) -> dict[str, int]:
        return state

    class Loose(Struct):
        placed: bool = False

    def loose(state: Loose, event: Placed) -> Loose:
        return state

    loose.__annotations__ = {"state": Loose, "event": Placed, "return": Loose}
    fails(lambda m: m.model({})(model), "type of its initial state")
    fails(lambda m: m.model(Loose())(loose), "must be immutable")


def test_a_model_handles_events() -> None:
    """The event parameter names event types, not anything else."""

    def model(state: Order, event: int) -> Order:
        return state

    def vague(state: Order, event: Event) -> Order:
        return state

    fails(lambda m: m.model(Order())(model), "event types it handles")
    fails(lambda m: m.model(Order())(vague), "event types it handles")


def test_a_model_needs_a_tag() -> None:
    """Events without a common tag, or with several, ask for tag=."""

    def untagged(state: Order, event: Untagged) -> Order:
        return state

    def several(state: Order, event: Reserved) -> Order:
        return state

    fails(lambda m: m.model(Order())(untagged), "share no tag")
    assert fails(lambda m: m.model(Order())(several), "share several").facts["shared"] == (
        "order, stock"
    )
    fails(lambda m: m.model(Order(), tag="stok")(several), "bears the model's tags")
    module = Module("m")
    module.model(Order(), tag="stock")(several)
    module.model(Other(), tag=())(lambda_like)
    models = module.compile().write.models
    assert [model.tags for model in models] == [("stock",), ()]


def lambda_like(state: Other, event: Untagged) -> Other:
    return state


def test_a_decision_begins_with_its_command() -> None:
    """A decision without a command type is refused."""

    def none() -> Iterator[Placed]:
        yield Placed("1")

    def event(command: Placed) -> Iterator[Placed]:
        yield command

    fails(lambda m: m.decides(none), "first parameter")
    fails(lambda m: m.decides(event), "command type")


def test_a_decision_gives_events() -> None:
    """A decision that returns one event, or is async, is refused."""

    def single(command: Place) -> Placed:
        return Placed(command.order)

    def text(command: Place) -> list[str]:
        return [command.order]

    async def later(command: Place) -> list[Placed]:
        return []

    fails(lambda m: m.decides(single), "-> Iterator[...]")
    fails(lambda m: m.decides(text), "-> Iterator[...]")
    fails(lambda m: m.decides(later), "not an async one")


def test_an_unregistered_state_is_named() -> None:
    """A decision that asks for a state of no registered model lists the models there are."""
    error = fails(lambda m: m.decides(place), "state of one registered model")
    assert error.facts["models"] == "none"


def test_an_ambiguous_decision_is_refused() -> None:
    """One command, two decisions; one name, two models; one type, two models."""

    def place_again(command: Place) -> Iterator[Placed]:
        yield Placed(command.order)

    def declare(module: Module) -> None:
        module.model(Order())(order)
        module.decides(place)
        module.decides(place_again)

    assert "test_definitions.py" in fails(declare, "decided by one function").facts["other"]

    def twice(module: Module) -> None:
        module.model(Order())(order)
        module.model(Order())(order)

    fails(twice, "same name")

    def backlog(state: Order, event: Placed) -> Order:
        return state

    def orders(state: Order, event: Placed) -> Order:
        return state

    def same_type(module: Module) -> None:
        module.model(Order())(orders)
        module.model(Order())(backlog)
        module.decides(place)

    fails(same_type, "named like the model")


def test_the_command_bears_the_tag() -> None:
    """A command without the model's tag, or with it twice, is refused unless names tell."""

    class Nameless(Command):
        text: str

    def nameless(command: Nameless, order: Order) -> Iterator[Placed]:
        yield Placed(command.text)

    nameless.__annotations__["command"] = Nameless

    def declare(module: Module) -> None:
        module.model(Order())(order)
        module.decides(nameless)

    fails(declare, "must bear the tag")

    def stock(state: Stock, event: Moved) -> Stock:
        return Stock(state.moves + 1)

    def move(command: Move, first: Stock, second: Stock) -> Iterator[Moved]:
        yield Moved(command.source, command.target)

    def twice(module: Module) -> None:
        module.model(Stock())(stock)
        module.decides(move)

    assert fails(twice, "must bear the tag").facts["fields"] == "source, target"

    def named(command: Move, source: Stock, target: Stock) -> Iterator[Moved]:
        yield Moved(command.source, command.target)

    module = Module("m")
    module.model(Stock())(stock)
    module.decides(named)
    needs = module.compile().write.decisions[Move].needs
    assert [need.tags(Move("a", "b")) for need in needs] == [("stock:a",), ("stock:b",)]


def test_two_messages_of_one_name() -> None:
    """Two event types that are stored under one name are refused."""

    class Double(Event, stored_as="Placed"):
        order: OrderId

    def model(state: Order, event: Placed | Double) -> Order:
        return state

    model.__annotations__["event"] = Placed | Double
    fails(lambda m: m.model(Order())(model), "same name")


def test_only_some_types_can_tag() -> None:
    """A tag on a float field is refused."""

    class Weighed(Event):
        weight: Annotated[float, Tag("weight")]

    def model(state: Order, event: Weighed) -> Order:
        return state

    model.__annotations__["event"] = Weighed
    error = fails(lambda m: m.model(Order())(model), "can tag a message")
    assert error.facts["field"].endswith("Weighed.weight")


def test_modules_are_included_once() -> None:
    """A module that is reached by several ways counts once."""
    base = Module("base")
    base.model(Order())(order)
    left, right = Module("left", base), Module("right", base)
    right.decides(place)
    definitions = Module("top", left, right).compile()
    assert [m.name for m in definitions.modules] == ["top", "left", "base", "right"]
    assert len(definitions.write.models) == 1


@pytest.mark.parametrize(
    ("declare", "remedy"),
    [
        (lambda m: m.projects(order), "@module.projects(View)"),
        (lambda m: m.projects(Order), "Give the view"),
        (lambda m: m.handles(order), "@module.handles(View)"),
        (lambda m: m.model(order), "@module.model(State())"),
        (lambda m: m.decides(), "without brackets: @module.decides"),
        (lambda m: m.answers(), "without brackets: @module.answers"),
        (lambda m: m.include([Module("other")]), "include(orders, stock)"),
    ],
)
def test_a_decorator_that_is_written_otherwise_says_how(
    declare: Callable[[Any], Any], remedy: str
) -> None:
    """At once, not when the application is opened: the function would have been lost."""
    with pytest.raises(DefinitionError, match=re.escape(remedy)) as caught:
        declare(Module("m"))
    assert re.search(r"test_definitions\.py:\d+$", caught.value.at), caught.value.at
