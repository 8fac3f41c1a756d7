"""All view stores keep the shipped contract."""

from __future__ import annotations

from collections.abc import Generator
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest

from diptych.read.port import ViewStore
from diptych.read.stores.postgres import PostgresViews
from diptych.read.stores.sqlite import SqliteViews
from diptych.sql import postgres, sqlite
from diptych.testing.contracts.views import ViewStoreContract
from diptych.testing.servers import PostgresServer
from tests.pgbouncer import PgBouncer

pytestmark = pytest.mark.filterwarnings("ignore::diptych.errors.SqliteVersionWarning")

numbers = count(1)


class TestSqliteInMemory(ViewStoreContract):
    async def make_store(self) -> ViewStore:
        return SqliteViews(sqlite.Database(None))


class TestSqliteFile(ViewStoreContract):
    @pytest.fixture(autouse=True)
    def _in_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    async def make_store(self) -> ViewStore:
        return SqliteViews(sqlite.Database(self.folder / f"{next(numbers)}.db", durable=False))

    async def same(self, store: ViewStore) -> ViewStore | None:
        return SqliteViews(sqlite.Database(cast(SqliteViews, store).database.path, durable=False))


@pytest.fixture(scope="class")
def database_url(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> None:
    """Give all tests of a class one database; each test takes a schema of its own."""
    cls: Any = request.cls
    cls.url = postgres_server.new_database()


@pytest.mark.usefixtures("database_url")
class TestPostgres(ViewStoreContract):
    url: str
    further = ""

    async def make_store(self) -> ViewStore:
        return self._on(f"s{next(numbers)}")

    async def same(self, store: ViewStore) -> ViewStore | None:
        return self._on(cast(PostgresViews, store).database.schema)

    def _on(self, schema: str) -> ViewStore:
        return PostgresViews(postgres.Database(f"{self.url}?schema={schema}{self.further}"))


class TestOlderPostgres(TestPostgres):
    """The same on the PostgreSQL of the system, where it is an older one."""

    @pytest.fixture(autouse=True)
    def _on_the_older(self, older_server: PostgresServer) -> Generator[None]:
        self.url = older_server.new_database()
        yield
        older_server.drop_database(self.url)


class TestPostgresBehindPgBouncer(TestPostgres):
    """The same in transaction mode: each transaction may get another session."""

    further = "&pooled=1"

    @pytest.fixture(autouse=True)
    def _behind_pgbouncer(self, bouncer: PgBouncer) -> None:
        self.url = bouncer.url(type(self).url)
