"""Type checkers follow a scenario from the query to its answer, and from a model to its state."""

from __future__ import annotations

from typing import assert_type

from hypothesis.strategies import SearchStrategy

from diptych.testing import Scenario, Story, check_invariant, scenarios, strategy
from diptych.testing.scenario import Asked
from tests.testing.shop import (
    TEN,
    Order,
    OrderPlaced,
    OrdersOf,
    OrderSummary,
    PlaceOrder,
    order,
    orders,
)


def test_types_are_followed() -> None:
    given = scenarios(orders)
    placed = given(OrderPlaced("42", "ann", TEN))
    assert_type(placed, Scenario)
    asked = placed.ask(OrdersOf("ann"))
    assert_type(asked, Asked[list[OrderSummary]])
    assert_type(asked.answer(), list[OrderSummary])
    assert_type(strategy(PlaceOrder), SearchStrategy[PlaceOrder])

    def look(story: Story) -> None:
        assert_type(story.rows(OrderSummary), list[OrderSummary])
        assert_type(story.state(order, "order:42"), Order)
        assert_type(story.states(order), dict[tuple[str, ...], Order])

    check_invariant(orders, look, steps=1)
