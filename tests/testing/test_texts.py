"""What a failed scenario says: the difference, and guesses at its cause."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from msgspec import Struct

from diptych.testing import ScenarioFailed, rejected, scenarios
from diptych.testing.differences import difference, sequences, short
from tests.testing.shop import (
    TEN,
    CancelOrder,
    CustomerBarred,
    Note,
    OrderCancelled,
    OrderNoted,
    OrderPlaced,
    OrdersOf,
    OrderSummary,
    PlaceOrder,
    orders,
)

given = scenarios(orders)
placed = OrderPlaced("42", "ann", TEN)
place = PlaceOrder("42", "ann", TEN)

TEXTS: dict[str, tuple[Callable[[], object], str]] = {
    "another field": (
        lambda: given().when(PlaceOrder("42", "bob", TEN)).then(placed),
        """\
Other events than expected from PlaceOrder(order='42', customer='bob', total=Decimal('10'))

  (- expected, + actual)
    OrderPlaced(
      order='42',
  -   customer='ann',
  +   customer='bob',
      total=Decimal('10'),
    )

  hint: OrderPlaced.customer is a tag: expected customer:ann, got customer:bob
""",
    ),
    "one too few, one too many": (
        lambda: given().when(place).then(OrderCancelled("42")),
        """\
Other events than expected from PlaceOrder(order='42', customer='ann', total=Decimal('10'))

  (- expected, + actual)
  - OrderCancelled(order='42')
  + OrderPlaced(order='42', customer='ann', total=Decimal('10'))
""",
    ),
    "nothing came": (
        lambda: (
            given(placed, OrderCancelled("42")).when(CancelOrder("42")).then(OrderCancelled("42"))
        ),
        """\
Other events than expected from CancelOrder(order='42')

  (- expected, + actual)
  - OrderCancelled(order='42')
""",
    ),
    "a rejection came, as another order was placed": (
        lambda: (
            given(OrderPlaced("43", "ann", TEN)).when(CancelOrder("42")).then(OrderCancelled("42"))
        ),
        """\
Rejected: CancelOrder(order='42')

  reason: no such order (order: 42)
  code:   no-such-order

  expected instead: OrderCancelled

  hint: OrderPlaced (given, no. 1) bears order:43 customer:ann, but CancelOrder asks for order:42: \
order did not see it
""",
    ),
    "a rejection came, nothing was expected": (
        lambda: given(placed).when(place).then_nothing(),
        """\
Rejected: PlaceOrder(order='42', customer='ann', total=Decimal('10'))

  reason: order already placed (order: 42)
  code:   order-already-placed

  expected instead: that it is accepted
""",
    ),
    "nobody listens": (
        lambda: given(placed, OrderNoted("42", "x")).when(CancelOrder("42")).then(),
        """\
Other events than expected from CancelOrder(order='42')

  (- expected, + actual)
  + OrderCancelled(order='42')

  hint: OrderNoted (given, no. 2) is heard by no model that CancelOrder asks for: order listens to \
OrderPlaced, OrderCancelled
""",
    ),
    "no model is asked for": (
        lambda: given(CustomerBarred("ann")).when(Note("42", "x")).then(rejected("barred")),
        """\
Not rejected: Note(order='42', text='x')

  (- expected, + actual)
  - rejected('barred')
  + OrderNoted(order='42', text='x')

  hint: the decision of Note asks for no model, so what was given cannot matter to it (shop.py)
""",
    ),
    "accepted without events": (
        lambda: given(placed, OrderCancelled("42")).when(CancelOrder("42")).then(rejected("no")),
        """\
Not rejected: CancelOrder(order='42')

  (- expected, + actual)
  - rejected('no')
  + no events
""",
    ),
    "another reason": (
        lambda: given(placed).when(place).then(rejected("placed already", order="42")),
        """\
Rejected otherwise than expected: PlaceOrder(order='42', customer='ann', total=Decimal('10'))

  (- expected, + actual)
  - rejected('placed already', order='42')
  + rejected('order already placed', order='42')

  hint: a rejection is named by its reason or its code: 'order already placed', \
'order-already-placed'
""",
    ),
    "another fact": (
        lambda: given(placed).when(place).then(rejected("order-already-placed", order="43")),
        """\
Rejected otherwise than expected: PlaceOrder(order='42', customer='ann', total=Decimal('10'))

  (- expected, + actual)
  - rejected('order-already-placed', order='43')
  + rejected('order-already-placed', order='42')
""",
    ),
    "no such fact": (
        lambda: given(placed).when(place).then(rejected("order already placed", by="ann")),
        """\
Rejected otherwise than expected: PlaceOrder(order='42', customer='ann', total=Decimal('10'))

  (- expected, + actual)
  - rejected('order already placed', by='ann')
  + rejected('order already placed')

  hint: the rejection has no fact 'by'; it has order
""",
    ),
    "an earlier rejection": (
        lambda: given(placed).when(place).when(CancelOrder("42")).then(OrderCancelled("42")),
        """\
Rejected: PlaceOrder(order='42', customer='ann', total=Decimal('10'))

  reason: order already placed (order: 42)
  code:   order-already-placed

  Another command follows. If the rejection is meant, check it first: \
.then(rejected(...)).when(...)
""",
    ),
    "no command": (
        lambda: given(placed).then(placed),
        "Events follow from a command, and this scenario has none: put .when(...) before "
        ".then(...), or expect rows of a view",
    ),
    "another row": (
        lambda: given(placed).then(OrderSummary("42", "ann", Decimal(11))),
        """\
Other rows of OrderSummary than expected

  (- expected, + actual)
    OrderSummary(
      order='42',
      customer='ann',
  -   total=Decimal('11'),
  +   total=Decimal('10'),
      status='placed',
    )
""",
    ),
    "another key": (
        lambda: given(placed, OrderNoted("42", "x")).then(OrderSummary("43", "ann", TEN)),
        """\
Other rows of OrderSummary than expected

  (- expected, + actual)
  + OrderSummary(order='42', customer='ann', total=Decimal('10'), status='placed')
  - OrderSummary(order='43', customer='ann', total=Decimal('10'), status='placed')

  hint: OrderNoted (given, no. 2) is not used by the projection of OrderSummary, which uses \
OrderPlaced, OrderCancelled (shop.py)
  hint: no row has the key order='43'; there are ['42']
""",
    ),
    "no rows at all": (
        lambda: given().then(OrderSummary("43", "ann", TEN)),
        """\
Other rows of OrderSummary than expected

  (- expected, + actual)
  - OrderSummary(order='43', customer='ann', total=Decimal('10'), status='placed')

  hint: no row has the key order='43'; there are no rows
""",
    ),
    "a key twice": (
        lambda: given(placed).then(
            OrderSummary("42", "ann", TEN), OrderSummary("42", "ann", TEN, "cancelled")
        ),
        """\
Other rows of OrderSummary than expected

  (- expected, + actual)
    OrderSummary(order='42', customer='ann', total=Decimal('10'), status='placed')
  - OrderSummary(order='42', customer='ann', total=Decimal('10'), status='cancelled')

  hint: two rows are expected with the key order='42'; a key has one row
""",
    ),
    "another answer": (
        lambda: given(placed).ask(OrdersOf("ann")).then([]),
        """\
Another answer than expected to OrdersOf(customer='ann')

  (- expected, + actual)
    [
  +   OrderSummary(order='42', customer='ann', total=Decimal('10'), status='placed'),
    ]
""",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_failed_scenario_says(case: str) -> None:
    scenario, expected = TEXTS[case]
    with pytest.raises(ScenarioFailed) as failed:
        scenario()
    assert re.sub(r"\(\S*/shop\.py:\d+\)", "(shop.py)", str(failed.value)) == expected


def test_a_failure_is_an_assertion_error() -> None:
    assert issubclass(ScenarioFailed, AssertionError)


def test_many_hints_are_cut() -> None:
    noted = [OrderNoted("42", str(number)) for number in range(9)]
    with pytest.raises(ScenarioFailed) as failed:
        given(placed, *noted).when(CancelOrder("42")).then()
    told = [line for line in str(failed.value).splitlines() if "hint: " in line]
    assert len(told) == 6
    assert told[-1] == "  hint: … and 4 more like these"


# --- differences of values ------------------------------------------------------------------------


class Item(Struct, frozen=True):
    sku: str
    count: int = 1


class Box(Struct, frozen=True):
    items: list[Item]
    labels: dict[str, Any]
    size: tuple[int, int] = (1, 1)


def test_nested_structs_lists_and_mappings_are_taken_apart() -> None:
    left = Box([Item("a"), Item("b", 2), Item("c")], {"x": 1, "old": 2}, (1, 1))
    right = Box([Item("a"), Item("b", 3), Item("c")], {"x": 2, "new": 3}, (1, 2))
    assert difference(left, right)[1:] == [
        "  Box(",
        "    items=[",
        "      Item(sku='a', count=1),",
        "      Item(",
        "        sku='b',",
        "-       count=2,",
        "+       count=3,",
        "      ),",
        "      Item(sku='c', count=1),",
        "    ],",
        "    labels={",
        "-     'x': 1,",
        "+     'x': 2,",
        "-     'old': 2,",
        "+     'new': 3,",
        "    },",
        "    size=(",
        "      1,",
        "-     1,",
        "+     2,",
        "    ),",
        "  )",
    ]


def test_equal_neighbours_are_counted_not_shown() -> None:
    expected = [Item(str(number)) for number in range(100)]
    assert sequences(expected, [*expected, Item("x")])[1:] == [
        "  Item(sku='0', count=1)",
        "  Item(sku='1', count=1)",
        "  … and 98 more, as expected",
        "+ Item(sku='x', count=1)",
    ]


def test_values_that_look_alike_are_shown_with_their_types() -> None:
    class Text(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return False

        __hash__ = str.__hash__

    assert difference("a", Text("a"))[1:] == [
        "- 'a'  # builtins.str",
        f"+ 'a'  # {__name__}.{Text.__qualname__}",
    ]


def test_long_values_are_cut_where_they_are_equal_and_unfolded_where_they_differ() -> None:
    assert short("x" * 200) == "'" + "x" * 94 + "…"
    assert difference(None, Item("x" * 100))[1:] == [
        "- None",
        "+ Item(",
        f"+   sku='{'x' * 100}',",
        "+   count=1,",
        "+ )",
    ]
