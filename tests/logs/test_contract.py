"""Both logs keep the shipped contract."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from diptych.log import Log
from diptych.logs.memory import MemoryLog
from diptych.logs.postgres import PostgresLog
from diptych.logs.sqlite import SqliteLog
from diptych.testing.contracts import LogContract
from diptych.testing.servers import PostgresServer
from tests.logs.pooler import pooled
from tests.pgbouncer import PgBouncer


class TestMemoryLog(LogContract):
    async def make_log(self) -> Log:
        return MemoryLog()


class TestSqliteLog(LogContract):
    remembered = 25_000

    @pytest.fixture(autouse=True)
    def _in_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.paths: dict[str, Path] = {}

    async def make_log(self) -> Log:
        path = self.folder / f"{uuid4()}.db"
        log = await SqliteLog.open(path, remembered=self.remembered)
        self.paths[log.identity] = path
        return log

    async def reopen(self, log: Log) -> Log | None:
        return await SqliteLog.open(self.paths[log.identity], remembered=self.remembered)


class TestForgetfulSqliteLog(TestSqliteLog):
    """The same with a memory so short that most conditions are checked by SQL."""

    remembered = 3


@pytest.fixture(scope="class")
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """A database for a whole class: each log has a schema of its own."""
    url = postgres_server.new_database()
    yield url
    postgres_server.drop_database(url)


class TestPostgresLog(LogContract):
    remembered = 25_000

    @pytest.fixture(autouse=True)
    def _in_database(self, postgres_url: str) -> None:
        self.url = postgres_url
        self.schemas: dict[str, str] = {}

    async def make_log(self) -> Log:
        schema = f"log_{uuid4().hex[:12]}"
        log = await PostgresLog.open(f"{self.url}?schema={schema}", remembered=self.remembered)
        self.schemas[log.identity] = schema
        return log

    async def reopen(self, log: Log) -> Log | None:
        url = f"{self.url}?schema={self.schemas[log.identity]}"
        return await PostgresLog.open(url, remembered=self.remembered)


class TestOlderPostgresLog(TestPostgresLog):
    """The same on the PostgreSQL of the system, where it is an older one."""

    @pytest.fixture(autouse=True)
    def _in_database(self, older_server: PostgresServer) -> Iterator[None]:
        self.url = older_server.new_database()
        self.schemas = {}
        yield
        older_server.drop_database(self.url)


class TestForgetfulPostgresLog(TestPostgresLog):
    """The same with a memory so short that most conditions are checked by SQL."""

    remembered = 3


class Pooled(LogContract):
    """The log behind a pooler at ``url``."""

    url: str
    schemas: dict[str, str]

    async def make_log(self) -> Log:
        schema = f"log_{uuid4().hex[:12]}"
        log = await PostgresLog.open(f"{self.url}?schema={schema}&pooled=1")
        self.schemas[log.identity] = schema
        return log

    async def reopen(self, log: Log) -> Log | None:
        url = f"{self.url}?schema={self.schemas[log.identity]}&pooled=1"
        return await PostgresLog.open(url)


class TestPooledPostgresLog(Pooled):
    """The same behind a pooler that gives every transaction another session."""

    @pytest.fixture(autouse=True)
    async def _behind_a_pooler(self, database: str) -> AsyncIterator[None]:
        async with pooled(database) as pooler:
            self.url = pooler.url
            self.schemas = {}
            yield
            assert pooler.complaints == []

    @pytest.mark.skip("makes loops of its own, which the pooler is not on")
    def test_any_sequence_of_calls_answers_as_the_specification(self) -> None:
        """Random appends and reads are answered exactly as ``MemoryLog`` answers them."""


class TestPostgresLogBehindPgBouncer(Pooled):
    """The same behind the real one, in transaction mode."""

    @pytest.fixture(autouse=True)
    def _behind_pgbouncer(self, bouncer: PgBouncer, database: str) -> None:
        self.url = bouncer.url(database)
        self.schemas = {}
