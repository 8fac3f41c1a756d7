"""A small application for the tests of the test kit."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from diptych import (
    App,
    Command,
    Event,
    Key,
    Metadata,
    Module,
    Query,
    Rejected,
    Tag,
    Transaction,
    View,
    Views,
    select,
)

OrderId = Annotated[str, Tag("order")]
CustomerId = Annotated[str, Tag("customer")]
Line = Annotated[str, Meta(max_length=20)]


class PlaceOrder(Command):
    order: OrderId
    customer: CustomerId
    total: Decimal


class CancelOrder(Command):
    order: OrderId


class Note(Command):
    """Asks for no model."""

    order: OrderId
    text: Line


class Touch(Command):
    """Says who and when."""

    order: OrderId


class OrderPlaced(Event):
    order: OrderId
    customer: CustomerId
    total: Decimal


class OrderCancelled(Event):
    order: OrderId


class OrderNoted(Event):
    order: OrderId
    text: str


class OrderTouched(Event):
    order: OrderId
    by: str
    year: int


class CustomerBarred(Event):
    customer: CustomerId


class Order(Struct, frozen=True):
    placed: bool = False
    cancelled: bool = False


class OrderSummary(View):
    order: Key[str]
    customer: str
    total: Decimal
    status: str = "placed"


class Placed(View):
    """Kept by a handler."""

    customer: Key[str]
    orders: int


class OrdersOf(Query[list[OrderSummary]]):
    customer: str


orders = Module("orders")


@orders.model(Order(), tag="order")
def order(state: Order, event: OrderPlaced | OrderCancelled) -> Order:
    match event:
        case OrderPlaced():
            return Order(placed=True)
        case OrderCancelled():
            return replace(state, cancelled=True)


@orders.model(False, tag="customer")
def barred(_state: bool, _event: CustomerBarred) -> bool:
    return True


@orders.decides
def place(command: PlaceOrder, order: Order, barred: bool) -> Iterator[OrderPlaced]:
    if order.placed:
        raise Rejected("order already placed", order=command.order)
    if barred:
        raise Rejected(
            f"customer {command.customer} is barred", code="barred", customer=command.customer
        )
    yield OrderPlaced(command.order, command.customer, command.total)


@orders.decides
def cancel(command: CancelOrder, order: Order) -> Iterator[OrderCancelled]:
    if not order.placed:
        raise Rejected("no such order", order=command.order)
    if not order.cancelled:
        yield OrderCancelled(command.order)


@orders.decides
def note(command: Note) -> Iterator[OrderNoted]:
    yield OrderNoted(command.order, command.text)


@orders.decides
def touch(command: Touch, metadata: Metadata) -> Iterator[OrderTouched]:
    yield OrderTouched(command.order, metadata.actor or "nobody", metadata.time.year)


@orders.projects(OrderSummary)
def summary(row: OrderSummary | None, event: OrderPlaced | OrderCancelled) -> OrderSummary | None:
    match event:
        case OrderPlaced():
            return OrderSummary(event.order, event.customer, event.total)
        case OrderCancelled():
            return None if row is None else replace(row, status="cancelled")


@orders.handles(Placed)
async def count(event: OrderPlaced, tx: Transaction) -> None:
    before = await tx.get(Placed, event.customer)
    await tx.put(Placed(event.customer, 1 if before is None else before.orders + 1))


@orders.answers
async def orders_of(query: OrdersOf, views: Views) -> list[OrderSummary]:
    found = select(OrderSummary).where(OrderSummary.customer == query.customer)
    return await views.all(found.order_by(OrderSummary.order))


app = App("shop", orders)
TEN = Decimal(10)
