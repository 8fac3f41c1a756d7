from datetime import date, time
from decimal import Decimal
from functools import cached_property

from diptych import Event
from examples.shop.retail import lines
from examples.shop.retail.ids import CustomerId, InvoiceId
from examples.shop.retail.lines import Line


class LinesCancelled(Event, dict=True):  # dict: room for what is computed once
    invoice: InvoiceId
    customer: CustomerId
    country: str
    day: date
    clock: time
    lines: tuple[Line, ...]

    @cached_property
    def amount(self) -> Decimal:
        """What the customer gets back, GBP."""
        return lines.amount(self.lines)

    @cached_property
    def by_code(self) -> dict[str, list[Line]]:
        """What is paid back, by stock code."""
        return lines.by_code(self.lines)

    @cached_property
    def goods(self) -> dict[str, int]:
        """Pieces by stock code."""
        return lines.goods(self.lines)
