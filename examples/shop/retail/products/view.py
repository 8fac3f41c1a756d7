from decimal import Decimal

from msgspec.structs import replace

from diptych import Key, Module, View
from examples.shop.retail.cancel_lines.event import LinesCancelled
from examples.shop.retail.lines import amount, is_goods
from examples.shop.retail.place_order.event import OrderPlaced

module = Module("products")


class ProductSales(View, indexes=(("goods", "gross"),)):
    code: Key[str]
    description: str
    goods: bool
    orders: int = 0
    lines: int = 0
    pieces: int = 0
    gross: Decimal = Decimal()
    cancellations: int = 0
    pieces_cancelled: int = 0
    cancelled: Decimal = Decimal()


def codes_of(event: OrderPlaced | LinesCancelled) -> list[str]:
    return list(event.by_code)


@module.projects(ProductSales, key=codes_of)
def product_sales(
    row: ProductSales | None, event: OrderPlaced | LinesCancelled, key: str
) -> ProductSales | None:
    lines = event.by_code[key]
    pieces = sum(line.quantity for line in lines)
    row = row or ProductSales(key, lines[0].description, is_goods(key))
    if isinstance(event, OrderPlaced):
        return replace(
            row,
            orders=row.orders + 1,
            lines=row.lines + len(lines),
            pieces=row.pieces + pieces,
            gross=row.gross + amount(lines),
        )
    return replace(
        row,
        cancellations=row.cancellations + 1,
        pieces_cancelled=row.pieces_cancelled + pieces,
        cancelled=row.cancelled + amount(lines),
    )
