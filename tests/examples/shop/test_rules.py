"""The rules of the retail application, on small invoices."""

from datetime import date, time
from decimal import Decimal

import pytest

from diptych import Invalid
from diptych.testing import rejected, scenarios
from examples.shop.retail import app
from examples.shop.retail.cancel_lines.command import CancelLines
from examples.shop.retail.cancel_lines.event import LinesCancelled
from examples.shop.retail.holdings.view import Holding
from examples.shop.retail.lines import Line
from examples.shop.retail.place_order.command import PlaceOrder
from examples.shop.retail.place_order.event import OrderPlaced

DAY, CLOCK = date(2010, 12, 1), time(8, 26)
LANTERN = Line("71053", "WHITE METAL LANTERN", 6, Decimal("3.39"))
GIFT = Line("22139", "RETROSPOT TEA SET", 1, Decimal(0))
POSTAGE = Line("POST", "POSTAGE", 1, Decimal(18))

given = scenarios(app)


def bought(*lines: Line, customer: str | None = "17850", invoice: str = "536365") -> OrderPlaced:
    return OrderPlaced(invoice, customer, "United Kingdom", DAY, CLOCK, customer is not None, lines)


def give_back(*lines: Line, customer: str | None = "17850") -> CancelLines:
    return CancelLines("C536379", customer, "United Kingdom", DAY, CLOCK, lines)


def given_back(*lines: Line) -> LinesCancelled:
    return LinesCancelled("C536379", "17850", "United Kingdom", DAY, CLOCK, lines)


def test_an_order_knows_whether_it_is_the_customers_first() -> None:
    again = PlaceOrder("536366", "17850", "United Kingdom", DAY, CLOCK, (LANTERN,))
    scenario = given(bought(LANTERN)).when(again)
    scenario.then(
        OrderPlaced("536366", "17850", "United Kingdom", DAY, CLOCK, False, (LANTERN,)),
        Holding("17850", "71053", 12),
    )


def test_a_customer_can_give_back_what_they_hold() -> None:
    given(bought(LANTERN, GIFT)).when(give_back(LANTERN)).then(
        given_back(LANTERN), Holding("17850", "22139", 1)
    )


def test_a_cancellation_is_accepted_whole_or_not_at_all() -> None:
    twice = (LANTERN, LANTERN)
    given(bought(LANTERN, GIFT)).when(give_back(GIFT, *twice)).then(
        rejected("exceeds held", product="71053", pieces=12, held=6)
    )
    given(bought(*twice)).when(give_back(*twice)).then(given_back(*twice))


def test_what_a_guest_has_bought_nobody_can_give_back() -> None:
    scenario = given(bought(LANTERN, customer=None))
    scenario.then_no(Holding)
    scenario.when(give_back(LANTERN, customer=None)).then(rejected("no-customer"))
    scenario.when(give_back(LANTERN)).then(rejected("exceeds-held"))


def test_postage_and_the_like_are_not_counted() -> None:
    given().when(give_back(POSTAGE)).then(given_back(POSTAGE))


def test_an_invoice_has_lines_and_a_line_has_pieces() -> None:
    with pytest.raises(Invalid, match="lines"):
        given().when(give_back()).then()
    with pytest.raises(Invalid, match="quantity"):
        given().when(give_back(Line("71053", "", 0, Decimal(1)))).then()
