"""The pytest plugin: real servers as fixtures. It loads nothing until a test asks for one."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from diptych.testing.servers import PostgresServer, RedisServer


@pytest.fixture(scope="session")
def postgres_server() -> Generator[PostgresServer]:
    """Give one PostgreSQL server to all tests: not to be stopped, and with fsync off."""
    from diptych.testing.servers import postgres

    with postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Generator[str]:
    """Give the URL of an empty PostgreSQL database, which is dropped after the test."""
    url = postgres_server.new_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def redis_server() -> Generator[RedisServer]:
    """Give one Redis server to all tests: not to be stopped. Take a prefix of your own."""
    from diptych.testing.servers import redis

    with redis() as server:
        yield server
