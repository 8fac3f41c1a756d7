"""The same SQL by SQLAlchemy alone: Core, a connection of the engine's pool for each query.

On PostgreSQL its async engine with asyncpg; on SQLite its ordinary engine on the caller's thread,
which costs no hop to another thread, as aiosqlite would.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import (
    Column,
    Engine,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    create_engine,
    insert,
    select,
)
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from bench import loader

SUBJECT: Final = "SQLAlchemy alone"

_metadata = MetaData()
SUMMARIES = Table(
    "summaries",
    _metadata,
    Column("order", String, primary_key=True),
    Column("customer", String, nullable=False),
    Column("items", Integer, nullable=False),
    Column("status", String, nullable=False),
)
Index("summaries_by_customer", SUMMARIES.c.customer)


def by_key(order: str) -> Select[Any]:
    """Return the select of one row by its primary key."""
    return select(SUMMARIES).where(SUMMARIES.c.order == order)


def by_index(customer: str) -> Select[Any]:
    """Return the select of a customer's rows."""
    return select(SUMMARIES).where(SUMMARIES.c.customer == customer)


def rows(orders: int) -> Iterator[tuple[str, str, int, str]]:
    """Yield the rows of so many orders, all complete."""
    for number in range(orders):
        yield loader.order_of(number), loader.customer_of(number), 3, "confirmed"


def _sync(url: str) -> Engine:
    return create_engine(url)


def _async(url: str) -> AsyncEngine:
    return create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:", 1))


async def fill(url: str, rows: Iterable[tuple[str, str, int, str]]) -> None:
    """Make the table and put rows into it."""
    values: list[dict[str, object]] = [
        {"order": order, "customer": customer, "items": items, "status": status}
        for order, customer, items, status in rows
    ]
    if url.startswith("sqlite:"):
        engine = _sync(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            _metadata.create_all(connection)
            connection.execute(insert(SUMMARIES), values)
        engine.dispose()
        return
    later = _async(url)
    async with later.begin() as begun:
        await begun.run_sync(_metadata.create_all)
        await begun.execute(insert(SUMMARIES), values)
    await later.dispose()


async def ask(url: str, statements: Sequence[Select[Any]]) -> tuple[float, int]:
    """Run selects one after the other; return the seconds, and how many rows there were."""
    count = 0
    if url.startswith("sqlite:"):
        engine = _sync(url)
        with engine.connect() as connection:
            connection.execute(statements[0]).all()
        began = time.perf_counter()
        for statement in statements:
            with engine.connect() as connection:
                count += len(connection.execute(statement).all())
        seconds = time.perf_counter() - began
        engine.dispose()
        return seconds, count
    later = _async(url)
    async with later.connect() as opened:
        await opened.execute(statements[0])
    began = time.perf_counter()
    for statement in statements:
        async with later.connect() as opened:
            count += len((await opened.execute(statement)).all())
    seconds = time.perf_counter() - began
    await later.dispose()
    return seconds, count
