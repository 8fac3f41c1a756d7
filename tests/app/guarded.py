"""A desk with rules, for the tests of access: orders of several tenants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Struct

from diptych import (
    Actor,
    App,
    Command,
    Event,
    Events,
    Key,
    Metadata,
    Query,
    Rejected,
    Tag,
    View,
    Views,
    anyone,
    authenticated,
    role,
    same_tenant,
    select,
)

OrderId = Annotated[str, Tag("order")]
TenantId = Annotated[str, Tag("tenant")]

app = App("desk")


class Place(Command):
    tenant: TenantId
    order: OrderId


class Cancel(Command):
    tenant: TenantId
    order: OrderId
    by: str


class Note(Command):
    order: OrderId


class Placed(Event):
    tenant: TenantId
    order: OrderId


class Cancelled(Event):
    tenant: TenantId
    order: OrderId


class Noted(Event):
    order: OrderId
    tenant: str | None
    roles: tuple[str, ...]


class Secret(Event):
    """Nobody may read it: no rule exposes it."""

    order: OrderId


class Order(Struct, frozen=True):
    placed: bool = False


class Row(View):
    order: Key[str]
    tenant: str


class OrdersOf(Query[list[Row]]):
    tenant: str


class Opening(Query[str]):
    pass


class History(Query[int]):
    order: OrderId


def himself(actor: Actor, command: Cancel) -> bool:
    return actor.id == command.by


own = same_tenant("tenant")


@app.model(Order(), tag="order")
def order(state: Order, event: Placed | Cancelled) -> Order:
    return Order(placed=isinstance(event, Placed))


@app.decides(allow=role("clerk") & own)
def place(command: Place, order: Order) -> Iterator[Placed]:
    if order.placed:
        raise Rejected("order already placed", order=command.order, secret="of the first")
    yield Placed(command.tenant, command.order)


@app.decides(allow=(own & himself) | role("manager"))
def cancel(command: Cancel, order: Order) -> Iterator[Cancelled]:
    if order.placed:
        yield Cancelled(command.tenant, command.order)


@app.decides(allow=authenticated)
def note(command: Note, metadata: Metadata) -> Iterator[Noted]:
    yield Noted(command.order, metadata.tenant, metadata.roles)


@app.projects(Row)
def row(row: Row | None, event: Placed | Cancelled) -> Row | None:
    return Row(event.order, event.tenant) if isinstance(event, Placed) else None


@app.answers(allow=own | role("auditor"))
async def orders_of(query: OrdersOf, views: Views) -> list[Row]:
    return await views.all(select(Row).where(Row.tenant == query.tenant).order_by(Row.order))


@app.answers(allow=anyone)
def opening(query: Opening) -> str:
    return "at nine"


@app.answers(allow=role("auditor"))
async def history(query: History, events: Events) -> int:
    return len(await events.read(tags=[f"order:{query.order}"]))


app.events.append(Secret)
app.exposes(Placed, Cancelled, allow=own | role("auditor"))
app.exposes(Noted, allow=role("auditor"))

ANN = Actor("ann", {"clerk"}, "acme")
BOB = Actor("bob", {"clerk"}, "bolt")
EVE = Actor("eve", {"auditor"})
MAX = Actor("max", {"manager"})
