"""A small shop whose types say all that its commands take: for the door's tests."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, Struct

from diptych import (
    App,
    Command,
    Event,
    Events,
    Key,
    Query,
    Recorded,
    Rejected,
    Tag,
    View,
    Views,
    select,
)

Word = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]+$", min_length=1, max_length=40)]
OrderId = Annotated[Word, Tag("order")]

app = App("shop")


class Grade(enum.Enum):
    NORMAL = "normal"
    FAST = "fast"


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    """What was bought."""

    sku: Word
    pieces: Annotated[int, Meta(ge=1, le=1000)] = 1


class Near(Struct, frozen=True, forbid_unknown_fields=True):
    lat: Annotated[float, Meta(ge=-90, le=90)]
    lon: Annotated[float, Meta(ge=-180, le=180)]


class Place(Command):
    """Place an order.

    It is paid later.
    """

    order: OrderId
    customer: Annotated[Word, Meta(description="Who pays.", examples=["ann"])]
    total: Decimal
    lines: Annotated[tuple[Line, ...], Meta(max_length=20)] = ()
    grade: Grade = Grade.NORMAL
    wanted: datetime | None = None


class Cancel(Command):
    order: OrderId


class Break(Command):
    """Has a decision that is broken."""

    order: OrderId


class Placed(Event):
    """An order was placed."""

    order: OrderId
    customer: str
    total: Decimal
    lines: tuple[Line, ...] = ()
    wanted: datetime | None = None


class Cancelled(Event):
    order: OrderId


@app.model("new")
def state(state: str, event: Placed | Cancelled) -> str:
    return "placed" if isinstance(event, Placed) else "cancelled"


@app.decides
def place(command: Place, state: str) -> Iterator[Placed]:
    if state != "new":
        raise Rejected("order already placed", order=command.order, total=command.total)
    yield Placed(command.order, command.customer, command.total, command.lines, command.wanted)


@app.decides
def cancel(command: Cancel, state: str) -> Iterator[Cancelled]:
    """Cancel an order that is placed."""
    if state != "placed":
        raise Rejected("no such open order", code="not-open", order=command.order)
    yield Cancelled(command.order)


@app.decides
def break_it(command: Break, state: str) -> Iterator[Placed]:
    raise RuntimeError("secret of the house")
    yield


class Order(View, indexes=(("customer",),)):
    """An open order."""

    order: Key[str]
    customer: str
    total: Decimal
    pieces: int
    wanted: datetime | None = None


@app.projects(Order)
def order(row: Order | None, event: Placed | Cancelled) -> Order | None:
    if isinstance(event, Cancelled):
        return None
    pieces = sum(line.pieces for line in event.lines)
    return Order(event.order, event.customer, event.total, pieces, event.wanted)


class OrdersOf(Query[list[Order]]):
    """The open orders of a customer."""

    customer: Word


@app.answers
async def orders_of(query: OrdersOf, views: Views) -> list[Order]:
    found = select(Order).where(Order.customer == query.customer).order_by(Order.order)
    return await views.all(found)


class One(Query[Order | None]):
    order: Word


@app.answers
async def one(query: One, views: Views) -> Order | None:
    return await views.get(Order, query.order)


class Find(Query[list[str]]):
    """Says which fields it was asked with: all that an address can write."""

    words: Annotated[tuple[Word, ...], Meta(max_length=5)] = ()
    near: Near | None = None
    lines: Annotated[tuple[Line, ...], Meta(max_length=5)] = ()
    least: Decimal = Decimal(0)
    most: Annotated[int, Meta(ge=0, le=100)] | None = None
    grade: Grade = Grade.NORMAL
    way: Literal["up", "down"] = "up"
    since: datetime | None = None
    exact: bool = False


@app.answers
def find(query: Find) -> list[str]:
    return [f"{name}={getattr(query, name)}" for name in query.__struct_fields__]


class History(Query[list[Recorded]]):
    order: Word


@app.answers
async def history(query: History, events: Events) -> list[Recorded]:
    return await events.read(tags=[f"order:{query.order}"])


class Crash(Query[int]):
    """Has an answer that is broken."""


@app.answers
def crash(query: Crash) -> int:
    raise RuntimeError("secret of the house")
