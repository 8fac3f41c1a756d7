from decimal import Decimal

from msgspec.structs import replace

from diptych import Key, Module, View
from examples.shop.retail.cancel_lines.event import LinesCancelled
from examples.shop.retail.place_order.event import OrderPlaced

module = Module("months")


class MonthSales(View):
    month: Key[str]  # 2010-12
    orders: int = 0
    cancellations: int = 0
    gross: Decimal = Decimal()
    cancelled: Decimal = Decimal()
    new_customers: int = 0


def month_of(event: OrderPlaced | LinesCancelled) -> str:
    return f"{event.day:%Y-%m}"


@module.projects(MonthSales, key=month_of)
def month_sales(
    row: MonthSales | None, event: OrderPlaced | LinesCancelled, key: str
) -> MonthSales | None:
    row = row or MonthSales(key)
    if isinstance(event, OrderPlaced):
        return replace(
            row,
            orders=row.orders + 1,
            gross=row.gross + event.amount,
            new_customers=row.new_customers + event.first,
        )
    return replace(row, cancellations=row.cancellations + 1, cancelled=row.cancelled + event.amount)
