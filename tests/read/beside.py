"""Worlds whose rows are in a row store, and row stores that fail and dawdle."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from diptych.errors import Unavailable
from diptych.log import Log
from diptych.messages import Event
from diptych.read.beside import RowsBeside
from diptych.read.port import View, ViewStore
from diptych.read.projections import Keyed, fold_events
from diptych.read.proving.rowcheck import verify_rows
from diptych.read.proving.verify import verify
from diptych.read.rowstore import Made, Placed, RowStore, RowTable
from diptych.read.stores import duckdb
from diptych.read.stores.redis import Address, Rows
from diptych.read.stores.sqlite import SqliteViews
from diptych.sql import sqlite
from tests.read.world import Cancelled, Deleted, Moved, World, all_recorded, placed

numbers = count(1)


class OnRedis:
    """Books in SQLite, rows in a Redis: those of one path share both."""

    def __init__(self, url: str | Path) -> None:
        self.url = url
        self.run = next(numbers)

    def rows(self, path: Path | None) -> RowStore:
        name = path.stem if path else next(numbers)
        return Rows(Address.parse(f"{self.url}?prefix=w{self.run}-{name}:"))

    def store(self, path: Path | None) -> ViewStore:
        books = SqliteViews(sqlite.Database(path, durable=False))
        return Closing(books, self.faulty(self.rows(path)), name="rows")

    def faulty(self, rows: Any) -> Faulty:
        return Faulty(rows)

    async def sql(self, store: Any, text: str, *parameters: object) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = await store.books.database.write(
            lambda c: c.execute(text, parameters).fetchall()
        )
        return found


class OnDuckdb(OnRedis):
    """The same with a DuckDB file."""

    def rows(self, path: Path | None) -> RowStore:
        name = path.stem if path else next(numbers)
        return duckdb.Rows(duckdb.Address(Path(self.url, f"{self.run}-{name}.duckdb")))

    def faulty(self, rows: Any) -> Faulty:
        return FaultyAsking(rows)


class Closing(RowsBeside):
    """Closes its books too."""

    async def close(self) -> None:
        await super().close()
        await self.books.close()


class Faulty:
    """A row store that does what a test says before, half-way and after it writes."""

    def __init__(self, rows: RowStore) -> None:
        self.rows = rows
        self.before: Callable[[], Any] | None = None
        self.after: Callable[[], Any] | None = None
        self.luck: random.Random | None = None

    async def write(self, table: RowTable, rows: Mapping[Any, Placed]) -> bool:
        if self.before is not None:
            await self.before()
        luck = self.luck
        if luck is not None:
            for _ in range(luck.choice([0, 0, 1, 5, 20])):
                await asyncio.sleep(0)
            keys = list(rows)
            luck.shuffle(keys)
            cut = luck.choice([0, len(keys) // 2, *[len(keys)] * 4])
            written = await self.rows.write(table, {key: rows[key] for key in keys[:cut]})
            if cut < len(keys) or luck.random() < 0.15:
                raise Unavailable("Planted")
        else:
            written = await self.rows.write(table, rows)
        if self.after is not None:
            await self.after()
        return written

    async def tables(self, names: Iterable[str]) -> dict[str, Made]:
        return await self.rows.tables(names)

    async def make(self, log: str, table: RowTable) -> None:
        await self.rows.make(log, table)

    async def drop(self, name: str, mark: str = "") -> None:
        await self.rows.drop(name, mark)

    def check(self, table: RowTable, rows: Sequence[View]) -> None:
        self.rows.check(table, rows)

    async def load(self, table: RowTable, keys: Sequence[Any]) -> dict[Any, Placed]:
        if self.luck is not None:
            await asyncio.sleep(0)
        return await self.rows.load(table, keys)

    def scan(self, table: RowTable) -> AsyncIterator[Any]:
        return self.rows.scan(table)

    def values(
        self, table: RowTable, columns: Sequence[str], keys: Sequence[Any] | None = None
    ) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
        return self.rows.values(table, columns, keys)

    async def close(self) -> None:
        await self.rows.close()


class FaultyAsking(Faulty):
    """One that runs SQL."""

    rows: Any

    async def select(self, planned: Any) -> list[Any]:
        found: list[Any] = await self.rows.select(planned)
        return found

    async def select_any(self, planned: Any) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = await self.rows.select_any(planned)
        return found


def faulty(world: World) -> Faulty:
    """Return a world's row store."""
    store: Any = world.store
    found: Faulty = store.row_store
    return found


async def rows_of(world: World, one: Keyed) -> dict[Any, Any]:
    """Return a projection's rows, by key."""
    store: Any = world.store
    return {one.definition.key_of(row): row async for row in store.scan(one.view)}


async def folded(log: Log, one: Keyed) -> dict[Any, Any]:
    """Return what a cold fold of the log comes to."""
    return dict(fold_events(one, await all_recorded(log), {}))


async def assert_right(world: World) -> None:
    """Rows, count and digest of all projections are what the log says."""
    for one in world.projections:
        assert isinstance(one, Keyed)
        assert await rows_of(world, one) == await folded(world.log, one)
        (verdict,) = await verify(world.log, world.codec, world.store, [one])
        assert verdict.ok, verdict
        checked = await verify_rows(world.log, world.codec, world.store, one)
        assert checked.ok, checked


def some_events(luck: random.Random, number: int) -> list[Event]:
    """Return events on few keys: placed, cancelled, deleted, moved."""
    found: list[Event] = []
    for _ in range(number):
        n = luck.randrange(6)
        found += luck.choice(
            [
                placed(n, customer=luck.choice("abc")),
                [Cancelled(f"o{n}")],
                [Deleted(f"o{n}")],
                [Moved(luck.choice("abcdef"), luck.choice("ghijkl"), luck.randrange(9))],
            ]
        )
    return found
