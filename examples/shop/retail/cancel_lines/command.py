from collections.abc import Iterator
from datetime import date, time
from typing import Annotated

from msgspec import Meta

from diptych import Command, Module, Rejected
from examples.shop.retail import account as accounts
from examples.shop.retail.account import Account
from examples.shop.retail.cancel_lines.event import LinesCancelled
from examples.shop.retail.ids import CustomerId, InvoiceId
from examples.shop.retail.lines import Line, goods

module = Module("cancel-lines", accounts.module)


class CancelLines(Command):
    """Names no order: what counts is what the customer holds."""

    invoice: InvoiceId
    customer: CustomerId | None
    country: str
    day: date
    clock: time
    lines: Annotated[tuple[Line, ...], Meta(min_length=1)]


@module.decides
def cancel_lines(command: CancelLines, account: Account) -> Iterator[LinesCancelled]:
    if command.customer is None:
        raise Rejected("no customer", invoice=command.invoice)
    for code, pieces in goods(command.lines).items():
        held = account.held.get(code, 0)
        if pieces > held:
            raise Rejected(
                "exceeds held", invoice=command.invoice, product=code, pieces=pieces, held=held
            )
    yield LinesCancelled(
        command.invoice,
        command.customer,
        command.country,
        command.day,
        command.clock,
        command.lines,
    )
