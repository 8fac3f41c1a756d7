"""A shop: place orders, cancel them, and ask which ones are open."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated

from diptych import App, Command, Event, Key, Query, Rejected, Tag, View, Views, select

app = App("shop")
OrderId = Annotated[str, Tag("order")]  # a field of this type tags its message

class OrderPlaced(Event):
    order: OrderId
    customer: str
    total: Decimal

class OrderCancelled(Event):
    order: OrderId

@app.model("new")
def status(state: str, event: OrderPlaced | OrderCancelled) -> str:
    return "placed" if isinstance(event, OrderPlaced) else "cancelled"

class PlaceOrder(Command):
    order: OrderId
    customer: str
    total: Decimal

class CancelOrder(Command):
    order: OrderId

@app.decides
def place(command: PlaceOrder, status: str) -> Iterator[OrderPlaced]:
    if status != "new":
        raise Rejected("order already placed", order=command.order)
    yield OrderPlaced(command.order, command.customer, command.total)

@app.decides
def cancel(command: CancelOrder, status: str) -> Iterator[OrderCancelled]:
    if status != "placed":
        raise Rejected("no such open order", order=command.order, status=status)
    yield OrderCancelled(command.order)

class OpenOrder(View):
    order: Key[str]
    customer: str
    total: Decimal

@app.projects(OpenOrder)
def open_order(row: OpenOrder | None, event: OrderPlaced | OrderCancelled) -> OpenOrder | None:
    if isinstance(event, OrderPlaced):
        return OpenOrder(event.order, event.customer, event.total)
    return None  # no longer open: the row goes

class OpenOrders(Query[list[OpenOrder]]):
    customer: str

@app.answers
async def open_orders(query: OpenOrders, views: Views) -> list[OpenOrder]:
    return await views.all(select(OpenOrder).where(OpenOrder.customer == query.customer))
