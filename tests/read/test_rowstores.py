"""All row stores keep the shipped contract."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest

from diptych.read.rowstore import RowStore
from diptych.read.stores import duckdb
from diptych.read.stores.redis import Address, Rows
from diptych.testing.contracts.rowstores import RowStoreContract
from diptych.testing.servers import RedisServer

numbers = count(1)


@pytest.fixture(scope="class")
def redis_url(request: pytest.FixtureRequest, redis_server: RedisServer) -> None:
    """Give all tests of a class one server; each test takes a prefix of its own."""
    cls: Any = request.cls
    cls.url = redis_server.url


@pytest.mark.usefixtures("redis_url")
class TestRedis(RowStoreContract):
    url: str

    async def make_rows(self) -> RowStore:
        return Rows(Address.parse(f"{self.url}?prefix=t{next(numbers)}:"))

    async def same(self, rows: RowStore) -> RowStore | None:
        return Rows(cast(Rows, rows).address)


class TestDuckdb(RowStoreContract):
    @pytest.fixture(autouse=True)
    def _in_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    async def make_rows(self) -> RowStore:
        return duckdb.Rows(duckdb.Address(self.folder / f"{next(numbers)}.duckdb"))

    async def same(self, rows: RowStore) -> RowStore | None:
        return duckdb.Rows(cast(duckdb.Rows, rows).address)
