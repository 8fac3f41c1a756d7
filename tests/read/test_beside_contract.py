"""Rows beside the books keep what view stores promise, as far as it needs no transaction."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import structs

from diptych.read.beside import RowsBeside
from diptych.read.port import Change, ViewStore, definition_of
from diptych.read.rowstore import RowStore
from diptych.read.stores import duckdb
from diptych.read.stores.postgres import PostgresViews
from diptych.read.stores.redis import Address, Rows
from diptych.read.stores.sqlite import SqliteViews
from diptych.sql import postgres, sqlite
from diptych.testing.contracts.views.desk import DeskContract
from diptych.testing.contracts.views.making import LOG, VIEWS
from diptych.testing.contracts.views.queries import QueryContract
from diptych.testing.contracts.views.rows import RowContract
from diptych.testing.contracts.views.sorting import SortContract
from diptych.testing.contracts.views.spans import SpanContract
from diptych.testing.servers import PostgresServer, RedisServer

numbers = count(1)


class Placing(RowsBeside):
    """Closes its books too; the contract's steps do not say how far their rows go, so all do."""

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        return await super().apply([placed(one) for one in changes])

    async def close(self) -> None:
        await super().close()
        await self.books.close()


def placed(change: Change) -> Change:
    writes = []
    for one in change.writes:
        keys = [*map(definition_of(one.view).key_of, one.rows), *one.deleted]
        positions = dict.fromkeys(keys, change.after.position)
        writes.append(structs.replace(one, positions=positions))
    return structs.replace(change, writes=tuple(writes))


class Beside(SpanContract, DeskContract):
    # There are no transactions, so no handlers.
    test_a_session_parks_too: Any = None
    test_a_step_of_a_span_that_was_cut_is_not_made: Any = None

    def rows(self, name: str) -> RowStore:
        raise NotImplementedError

    def books(self, name: str) -> ViewStore:
        raise NotImplementedError

    async def make_store(self) -> ViewStore:
        return self._named(f"s{next(numbers)}")

    async def same(self, store: ViewStore) -> ViewStore | None:
        other = self._named(cast(Placing, store).name)
        await other.open(LOG, VIEWS)
        return other

    def _named(self, name: str) -> ViewStore:
        found: Any = Placing(self.books(name), self.rows(name), name=name)
        return cast(ViewStore, found)


@pytest.fixture(scope="class")
def servers(
    request: pytest.FixtureRequest, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    cls: Any = request.cls
    cls.redis_url = redis_server.url
    cls.postgres_url = postgres_server.new_database()


@pytest.mark.usefixtures("servers")
class TestRedisBesidePostgres(Beside):
    redis_url: str
    postgres_url: str

    def rows(self, name: str) -> RowStore:
        return Rows(Address.parse(f"{self.redis_url}?prefix=b{name}:"))

    def books(self, name: str) -> ViewStore:
        return PostgresViews(postgres.Database(f"{self.postgres_url}?schema={name}"))


class TestDuckdbBesideSqlite(Beside, RowContract, QueryContract, SortContract):
    # Rows are written before their checkpoint, and may be newer; decimals are DECIMAL(38,10).
    test_rows_and_positions_are_of_one_snapshot: Any = None
    test_values_of_every_kind_come_back_as_they_were: Any = None

    @pytest.fixture(autouse=True)
    def _in_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def rows(self, name: str) -> RowStore:
        return duckdb.Rows(duckdb.Address(self.folder / f"{name}.duckdb"))

    def books(self, name: str) -> ViewStore:
        return SqliteViews(sqlite.Database(self.folder / f"{name}.db", durable=False))
