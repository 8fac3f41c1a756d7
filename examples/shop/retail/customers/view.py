from datetime import date
from decimal import Decimal

from msgspec.structs import replace

from diptych import Key, Module, View
from examples.shop.retail.cancel_lines.event import LinesCancelled
from examples.shop.retail.place_order.event import OrderPlaced

module = Module("customers")


class CustomerSales(View, indexes=(("gross",),)):
    customer: Key[str]
    orders: int = 0
    lines: int = 0
    pieces: int = 0
    gross: Decimal = Decimal()
    cancellations: int = 0
    cancelled: Decimal = Decimal()
    first_order: date | None = None
    last_order: date | None = None


def customer_of(event: OrderPlaced | LinesCancelled) -> str | None:
    return event.customer


@module.projects(CustomerSales, key=customer_of)
def customer_sales(
    row: CustomerSales | None, event: OrderPlaced | LinesCancelled, key: str
) -> CustomerSales | None:
    row = row or CustomerSales(key)
    if isinstance(event, OrderPlaced):
        paid = [line for lines in event.by_code.values() for line in lines]
        return replace(
            row,
            orders=row.orders + 1,
            lines=row.lines + len(paid),
            pieces=row.pieces + sum(line.quantity for line in paid),
            gross=row.gross + event.amount,
            first_order=row.first_order or event.day,
            last_order=event.day,
        )
    return replace(row, cancellations=row.cancellations + 1, cancelled=row.cancelled + event.amount)
