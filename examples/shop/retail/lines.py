"""Invoice lines, and which of them are goods.

Invoices bear a date and the time on the shop's clock, without a zone. That is what the messages
keep, as ``day`` and ``clock``: a ``datetime`` would be an instant, which nobody has written down.
"""

import re
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from functools import cache
from typing import Annotated

from msgspec import Meta, Struct

Quantity = Annotated[int, Meta(gt=0)]


class Line(Struct, frozen=True):
    """A line of an invoice. Equal lines on one invoice are different lines."""

    code: str
    description: str
    quantity: Quantity
    price: Decimal  # GBP for one piece; 0: a gift

    @property
    def amount(self) -> Decimal:
        """What the line adds to the invoice, exactly."""
        return self.quantity * self.price


def amount(lines: Iterable[Line]) -> Decimal:
    """Return the sum of the lines."""
    return sum((line.amount for line in lines), Decimal())


def by_code(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """Return the lines of each stock code."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.code, []).append(line)
    return found


def goods(lines: Iterable[Line]) -> dict[str, int]:
    """Return how many pieces of each stock code the lines have, goods only."""
    found: Counter[str] = Counter()
    for line in lines:
        if is_goods(line.code):
            found[line.code] += line.quantity
    return found


@cache
def is_goods(code: str) -> bool:
    """Tell goods from postage, fees, discounts and vouchers."""
    return re.fullmatch(r"[0-9]{5}[A-Z]*", code) is not None
