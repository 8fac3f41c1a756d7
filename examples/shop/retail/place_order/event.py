from datetime import date, time
from decimal import Decimal
from functools import cached_property

from diptych import Event
from examples.shop.retail import lines
from examples.shop.retail.ids import CustomerId, InvoiceId
from examples.shop.retail.lines import Line


class OrderPlaced(Event, dict=True):  # dict: room for what is computed once
    invoice: InvoiceId
    customer: CustomerId | None
    country: str
    day: date
    clock: time
    first: bool  # the customer's first order
    lines: tuple[Line, ...]

    @cached_property
    def amount(self) -> Decimal:
        """What the customer pays, GBP."""
        return lines.amount(self.lines)

    @cached_property
    def by_code(self) -> dict[str, list[Line]]:
        """What was paid for, by stock code; gifts are not in it."""
        return lines.by_code(line for line in self.lines if line.price)

    @cached_property
    def goods(self) -> dict[str, int]:
        """Pieces by stock code, gifts included."""
        return lines.goods(self.lines)
