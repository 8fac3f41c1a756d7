from diptych import Key, Module, View
from examples.shop.retail.cancel_lines.event import LinesCancelled
from examples.shop.retail.place_order.event import OrderPlaced

module = Module("holdings")


class Holding(View):
    customer: Key[str]
    code: Key[str]
    pieces: int


def keys_of(event: OrderPlaced | LinesCancelled) -> list[tuple[str, str]]:
    if event.customer is None:
        return []
    return [(event.customer, code) for code in event.goods]


@module.projects(Holding, key=keys_of)
def holding(
    row: Holding | None, event: OrderPlaced | LinesCancelled, key: tuple[str, str]
) -> Holding | None:
    customer, code = key
    pieces = row.pieces if row else 0
    if isinstance(event, OrderPlaced):
        return Holding(customer, code, pieces + event.goods[code])
    pieces -= event.goods[code]
    return Holding(customer, code, pieces) if pieces else None
