"""What decisions know of a customer: how much of each product they hold."""

from collections.abc import Mapping

from msgspec import Struct

from diptych import Module
from examples.shop.retail.cancel_lines.event import LinesCancelled
from examples.shop.retail.place_order.event import OrderPlaced

module = Module("account")


class Account(Struct, frozen=True):
    orders: int = 0
    held: Mapping[str, int] = {}  # pieces by stock code


@module.model(Account(), tag="customer")
def account(state: Account, event: OrderPlaced | LinesCancelled) -> Account:
    held = dict(state.held)
    if isinstance(event, OrderPlaced):
        for code, pieces in event.goods.items():
            held[code] = held.get(code, 0) + pieces
        return Account(state.orders + 1, held)
    for code, pieces in event.goods.items():
        held[code] -= pieces
    return Account(state.orders, held)
