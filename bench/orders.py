"""The application that is measured: orders are opened, filled and confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Struct

from diptych import App, Command, Event, Rejected, Tag

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


def workload(order: str) -> list[Command]:
    """Return the four commands of one order."""
    return [
        Open(order, "ann"),
        Add(order, "tea", 2),
        Add(order, "cup", 1),
        Confirm(order),
    ]
