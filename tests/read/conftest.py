"""The stores that the tests of the read side run on."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.read.backends import Current, OnPostgres


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> Generator[None]:
    """Have worlds made on one kind of store, then on the other."""
    if request.param == "sqlite":
        yield
        return
    server = request.getfixturevalue("postgres_server")
    url = server.new_database()
    with Current.on(OnPostgres(url)):
        yield
    server.drop_database(url)
