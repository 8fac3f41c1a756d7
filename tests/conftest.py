"""What tests of several parts start once."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from diptych.testing.servers import PostgresServer
from tests.pgbouncer import PgBouncer, pgbouncer


@pytest.fixture(scope="session")
def bouncer(postgres_server: PostgresServer) -> Generator[PgBouncer]:
    """Give one PgBouncer in transaction mode to all tests; skip them where there is none."""
    with pgbouncer(postgres_server) as found:
        yield found
