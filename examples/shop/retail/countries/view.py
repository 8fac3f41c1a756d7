from decimal import Decimal

from msgspec.structs import replace

from diptych import Key, Module, View
from examples.shop.retail.cancel_lines.event import LinesCancelled
from examples.shop.retail.place_order.event import OrderPlaced

module = Module("countries")


class CountrySales(View):
    country: Key[str]
    orders: int = 0
    cancellations: int = 0
    gross: Decimal = Decimal()
    cancelled: Decimal = Decimal()


@module.projects(CountrySales)
def country_sales(
    row: CountrySales | None, event: OrderPlaced | LinesCancelled
) -> CountrySales | None:
    row = row or CountrySales(event.country)
    if isinstance(event, OrderPlaced):
        return replace(row, orders=row.orders + 1, gross=row.gross + event.amount)
    return replace(row, cancellations=row.cancellations + 1, cancelled=row.cancelled + event.amount)
