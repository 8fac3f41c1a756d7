"""What tests of several parts start once."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from diptych.errors import ServerUnusable
from diptych.testing.servers import PostgresServer, postgres
from tests.pgbouncer import PgBouncer, pgbouncer


@pytest.fixture(scope="session")
def bouncer(postgres_server: PostgresServer) -> Generator[PgBouncer]:
    """Give one PgBouncer in transaction mode to all tests; skip them where there is none."""
    with pgbouncer(postgres_server) as found:
        yield found


@pytest.fixture(scope="session")
def older_server(postgres_server: PostgresServer) -> Generator[PostgresServer]:
    """Give the system's PostgreSQL where it is of an older major version than that of the tests."""
    try:
        with postgres(source="path") as server:
            if _major(server) >= _major(postgres_server):
                pytest.skip(f"the PostgreSQL of this system is not older: {server.version}")
            yield server
    except ServerUnusable as error:
        pytest.skip(f"this system has no PostgreSQL: {error}")


def _major(server: PostgresServer) -> int:
    return int(server.version.partition(".")[0])
