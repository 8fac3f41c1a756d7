"""The ordering example: short, and right."""

from decimal import Decimal

from diptych.testing import rejected, scenarios
from examples.shop.orders import (
    CancelOrder,
    OpenOrder,
    OpenOrders,
    OrderCancelled,
    OrderPlaced,
    PlaceOrder,
    app,
)
from tests.docs.snippets import snippets
from tests.house.paths import ROOT

SOURCE = ROOT / "examples" / "shop" / "orders.py"
TUTORIAL = ROOT / "docs" / "tutorial" / "orders.md"
PRICE = Decimal("9.90")

given = scenarios(app)


def test_the_ordering_example_has_at_most_60_lines() -> None:
    assert len(SOURCE.read_text().splitlines()) <= 60


def test_the_tutorial_ends_with_the_ordering_example() -> None:
    written = [s.text for s in snippets(TUTORIAL.read_text()) if s.marks.get("file") == "orders.py"]
    assert written[-1] == SOURCE.read_text()


def test_the_parts_of_the_tutorial_are_that_file_piece_by_piece() -> None:
    whole = SOURCE.read_text()
    pages = snippets(TUTORIAL.read_text())
    parts = [s.text for s in pages if s.language == "python" and "file" not in s.marks]
    docstring = whole[: whole.index("\n\n") + 2]
    assert docstring + "\n".join(part for part in parts if part in whole) == whole


def test_an_order_is_placed_once() -> None:
    given().when(PlaceOrder("1", "ann", PRICE)).then(OrderPlaced("1", "ann", PRICE))
    given(OrderPlaced("1", "ann", PRICE)).when(PlaceOrder("1", "bob", PRICE)).then(
        rejected("order already placed", order="1")
    )


def test_only_an_open_order_can_be_cancelled() -> None:
    placed = OrderPlaced("1", "ann", PRICE)
    given(placed).when(CancelOrder("1")).then(OrderCancelled("1"))
    given().when(CancelOrder("1")).then(rejected("no such open order", status="new"))
    given(placed, OrderCancelled("1")).when(CancelOrder("1")).then(
        rejected("no such open order", status="cancelled")
    )


def test_the_open_orders_of_a_customer_are_those_not_cancelled() -> None:
    history = (
        OrderPlaced("1", "ann", PRICE),
        OrderPlaced("2", "bob", PRICE),
        OrderPlaced("3", "ann", PRICE),
        OrderCancelled("1"),
    )
    given(*history).then(OpenOrder("2", "bob", PRICE), OpenOrder("3", "ann", PRICE))
    given(*history).ask(OpenOrders("ann")).then([OpenOrder("3", "ann", PRICE)])
