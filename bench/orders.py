"""The application that is measured: orders are opened, filled and confirmed, and a view of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Annotated

from msgspec import Struct

from diptych import App, Command, Event, Key, Query, Rejected, Running, Tag, View, Views
from diptych import select as select_view

OrderId = Annotated[str, Tag("order")]

app = App("bench")


class Order(Struct, frozen=True):
    open: bool = False
    items: int = 0


class Opened(Event):
    order: OrderId
    customer: str


class Added(Event):
    order: OrderId
    product: str
    quantity: int


class Confirmed(Event):
    order: OrderId


@app.model(Order())
def order(state: Order, event: Opened | Added | Confirmed) -> Order:
    match event:
        case Opened():
            return Order(True)
        case Added():
            return Order(True, state.items + event.quantity)
        case Confirmed():
            return Order(False, state.items)


class Open(Command):
    order: OrderId
    customer: str


class Add(Command):
    order: OrderId
    product: str
    quantity: int


class Confirm(Command):
    order: OrderId


@app.decides
def open_order(command: Open, order: Order) -> Iterator[Opened]:
    if order.open:
        raise Rejected("order is open", order=command.order)
    yield Opened(command.order, command.customer)


@app.decides
def add(command: Add, order: Order) -> Iterator[Added]:
    if not order.open:
        raise Rejected("order is not open", order=command.order)
    yield Added(command.order, command.product, command.quantity)


@app.decides
def confirm(command: Confirm, order: Order) -> Iterator[Confirmed]:
    if not order.items:
        raise Rejected("order is empty", order=command.order)
    yield Confirmed(command.order)


class Summary(View, table="summaries", indexes=(("customer",),)):
    order: Key[str]
    customer: str
    items: int
    status: str


@app.projects(Summary)
def summary(row: Summary | None, event: Opened | Added | Confirmed) -> Summary | None:
    match event:
        case Opened():
            return Summary(event.order, event.customer, 0, "open")
        case Added():
            return row and Summary(row.order, row.customer, row.items + event.quantity, row.status)
        case Confirmed():
            return row and Summary(row.order, row.customer, row.items, "confirmed")


class SummaryOf(Query[Summary | None]):
    order: str


class SummariesOf(Query[list[Summary]]):
    customer: str


@app.answers
async def summary_of(query: SummaryOf, views: Views) -> Summary | None:
    return await views.get(Summary, query.order)


@app.answers
async def summaries_of(query: SummariesOf, views: Views) -> list[Summary]:
    return await views.all(select_view(Summary).where(Summary.customer == query.customer))


def workload(order: str, customer: str = "ann") -> list[Command]:
    """Return the four commands of one order."""
    return [
        Open(order, customer),
        Add(order, "tea", 2),
        Add(order, "cup", 1),
        Confirm(order),
    ]


def opened(
    log: str, views: str, *, projections: bool = False, of: App = app
) -> AbstractAsyncContextManager[Running]:
    """Open an application; unless told otherwise without its projections."""
    return of.open(log=log, views=views, projections=projections)
