from collections.abc import Iterator
from datetime import date, time
from typing import Annotated

from msgspec import Meta

from diptych import Command, Module
from examples.shop.retail import account as accounts
from examples.shop.retail.account import Account
from examples.shop.retail.ids import CustomerId, InvoiceId
from examples.shop.retail.lines import Line
from examples.shop.retail.place_order.event import OrderPlaced

module = Module("place-order", accounts.module)


class PlaceOrder(Command):
    invoice: InvoiceId
    customer: CustomerId | None
    country: str
    day: date
    clock: time
    lines: Annotated[tuple[Line, ...], Meta(min_length=1)]


@module.decides
def place_order(command: PlaceOrder, account: Account) -> Iterator[OrderPlaced]:
    yield OrderPlaced(
        command.invoice,
        command.customer,
        command.country,
        command.day,
        command.clock,
        command.customer is not None and account.orders == 0,
        command.lines,
    )
