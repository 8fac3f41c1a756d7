"""A small shop: events, views and folds that the tests of the read side share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec

from diptych.codec import Codec
from diptych.log import Append, Log, NewEvent
from diptych.logs.memory import MemoryLog
from diptych.messages import Event, Metadata, Query, Recorded, new_id
from diptych.read.following.engine import Engine
from diptych.read.following.gathering import GATHER
from diptych.read.freshness import ReadMeasures
from diptych.read.port import Transaction
from diptych.read.projections import Handler, Keyed, Projection, handler, projection
from diptych.read.queries import Events, Queries, Views, answering
from diptych.read.select import select
from diptych.read.views import Key, View
from diptych.telemetry.metrics import Telemetry
from tests.read.backends import Current


class Placed(Event):
    order: str
    customer: str
    total: Decimal


class Cancelled(Event):
    order: str


class Deleted(Event):
    order: str


class Moved(Event):
    source: str
    target: str
    amount: int


class Noted(Event):
    text: str


class Order(View, indexes=(("customer",), ("status", "total"))):
    order: Key[str]
    customer: str
    total: Decimal
    status: str


class Account(View):
    name: Key[str]
    balance: int
    moves: int


class Journal(View):
    page: Key[int]
    text: str


def order(row: Order | None, event: Placed | Cancelled | Deleted) -> Order | None:
    match event:
        case Placed():
            return Order(event.order, event.customer, event.total, "placed")
        case Cancelled():
            return None if row is None else msgspec.structs.replace(row, status="cancelled")
        case Deleted():
            return None


def account(row: Account | None, event: Moved, key: str) -> Account | None:
    row = row or Account(key, 0, 0)
    change = (event.target == key) * event.amount - (event.source == key) * event.amount
    return Account(key, row.balance + change, row.moves + 1)


def both(event: Moved) -> list[str]:
    return [event.source, event.target]


async def journal(event: Noted | Deleted, tx: Transaction) -> None:
    page = await tx.get(Journal, 1)
    text = event.text if isinstance(event, Noted) else f"-{event.order}"
    await tx.put(Journal(1, (page.text if page else "") + text))


class OrdersOf(Query[list[Order]]):
    customer: str


class Total(Query[int]):
    pass


class History(Query[list[str]]):
    order: str


async def orders_of(query: OrdersOf, views: Views) -> list[Order]:
    return await views.all(
        select(Order).where(Order.customer == query.customer).order_by(Order.order)
    )


def total(query: Total) -> int:
    return 42


async def history(query: History, events: Events) -> list[str]:
    found = await events.read([Placed, Cancelled], [f"order:{query.order}"])
    return [type(r.event).__name__ for r in found]


def orders() -> Keyed:
    return projection(order, Order)


def accounts() -> Keyed:
    return projection(account, Account, key=both)


def journals() -> Handler:
    return handler(journal, Journal)


EVENTS: tuple[type[Event], ...] = (Placed, Cancelled, Deleted, Moved, Noted)
START = datetime(2026, 1, 1, tzinfo=UTC)


def codec() -> Codec:
    found = Codec()
    found.register(EVENTS)
    found.register([OrdersOf, Total, History])
    return found


def new_event(event: Event, time: datetime | None = None) -> NewEvent:
    metadata = Metadata(time or datetime.now(UTC), "command", "correlation")
    tags = (f"order:{event.order}",) if isinstance(event, (Placed, Cancelled, Deleted)) else ()
    return NewEvent(
        new_id(),
        type(event).message_name,
        tags,
        msgspec.json.encode(event),
        msgspec.json.encode(metadata),
    )


async def append(log: Log, *events: Event, age: float = 0.0) -> int:
    """Append events, ``age`` seconds old; return the head."""
    time = datetime.now(UTC) - timedelta(seconds=age)
    await log.append([Append(tuple(new_event(e, time) for e in events))])
    return await log.head()


async def all_recorded(log: Log) -> list[Recorded]:
    page = await log.read(limit=1_000_000)
    known = codec()
    return [known.recorded(stored) for stored in page.events]


def placed(*numbers: int, customer: str = "ada") -> list[Event]:
    return [Placed(f"o{n}", customer, Decimal(n) / 100) for n in numbers]


class World:
    """A log, a store and an engine."""

    def __init__(
        self,
        projections: Sequence[Projection],
        *,
        path: Path | None = None,
        log: Log | None = None,
        page: int = 2000,
        gather: int = GATHER,
        cache_rows: int = 50_000,
    ) -> None:
        self.log: Log = log or MemoryLog()
        self.codec = codec()
        self.projections = list(projections)
        self.backend = Current.backend
        self.store = self.backend.store(path)
        self.telemetry = Telemetry()
        self.engine = Engine(
            *(self.log, self.codec, self.store, projections),
            page=page,
            gather=gather,
            cache_rows=cache_rows,
            measures=ReadMeasures(self.telemetry, projections),
        )
        self.queries = Queries(
            self.log,
            self.codec,
            [self.engine],
            [answering(f) for f in (orders_of, total, history)],
        )

    async def __aenter__(self) -> World:
        await self.engine.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.stop()
        await self.store.close()

    async def append(self, *events: Event, age: float = 0.0) -> int:
        return await append(self.log, *events, age=age)

    async def rows(self, view: type[View]) -> list[View]:
        found: list[View] = (await self.store.all(select(view))).rows
        return found

    async def sql(self, text: str, *parameters: object) -> list[tuple[object, ...]]:
        """Change or read the database by hand."""
        return await self.backend.sql(self.store, text, *parameters)


def keyed(rows: Iterable[View], name: str) -> dict[str, View]:
    return {getattr(row, name): row for row in rows}
