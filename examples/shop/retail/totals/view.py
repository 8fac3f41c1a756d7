from decimal import Decimal

from diptych import Key, Module, View
from examples.shop.retail.adjust_bad_debt.event import BadDebtAdjusted
from examples.shop.retail.cancel_lines.event import LinesCancelled
from examples.shop.retail.move_stock.event import FreeStockRecorded, StockWrittenOff
from examples.shop.retail.place_order.event import OrderPlaced

module = Module("totals")

Counted = OrderPlaced | LinesCancelled | BadDebtAdjusted | StockWrittenOff | FreeStockRecorded


class Total(View):
    event: Key[str]
    count: int
    amount: Decimal


def name_of(event: Counted) -> str:
    return event.message_name


@module.projects(Total, key=name_of)
def total(row: Total | None, event: Counted, key: str) -> Total | None:
    row = row or Total(key, 0, Decimal())
    if isinstance(event, StockWrittenOff | FreeStockRecorded):
        return Total(key, row.count + 1, row.amount)
    return Total(key, row.count + 1, row.amount + event.amount)
