"""The stores that the tests of the read side run on."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.read.backends import Current, OnFiles, OnPostgres


@pytest.fixture(scope="module", params=["sqlite", "files", "postgres"])
def backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[None]:
    """Have worlds made on one kind of store, then on the others."""
    if request.param == "sqlite":
        yield
        return
    if request.param == "files":
        with Current.on(OnFiles(tmp_path_factory.mktemp("files"))):
            yield
        return
    server = request.getfixturevalue("postgres_server")
    url = server.new_database()
    with Current.on(OnPostgres(url)):
        yield
    server.drop_database(url)
