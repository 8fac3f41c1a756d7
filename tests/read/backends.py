"""Where the tests of the read side keep their views: each runs on every one of these."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from diptych.read.port import ViewStore
from diptych.read.stores.postgres import PostgresViews
from diptych.read.stores.sqlite import SqliteViews
from diptych.sql import postgres, sqlite


class Backend(Protocol):
    """A kind of store."""

    def store(self, path: Path | None) -> ViewStore:
        """Return a store of its own, or that of a path, which several may share."""
        ...

    async def sql(self, store: Any, text: str, *parameters: object) -> list[tuple[object, ...]]:
        """Change or read a store's database by hand; parameters stand where ``?`` does."""
        ...


class OnSqlite:
    def store(self, path: Path | None) -> ViewStore:
        return SqliteViews(sqlite.Database(path, durable=False))

    async def sql(
        self, store: SqliteViews, text: str, *parameters: object
    ) -> list[tuple[object, ...]]:
        return await store.database.write(
            lambda connection: connection.execute(text, parameters).fetchall()
        )


class OnFiles(OnSqlite):
    """A file for each store: queries are read at once there where they are brief."""

    def __init__(self, folder: Path) -> None:
        self._files = (folder / f"{number}.db" for number in count(1))

    def store(self, path: Path | None) -> ViewStore:
        return super().store(path or next(self._files))


class OnPostgres:
    """A schema for each store, all in one database."""

    _numbers = count(1)

    def __init__(self, url: str) -> None:
        self.url = url

    def store(self, path: Path | None) -> ViewStore:
        name = str(next(self._numbers)) if path is None else blake2b(str(path).encode()).hexdigest()
        return PostgresViews(postgres.Database(f"{self.url}?schema=s{name[:32]}"))

    async def sql(
        self, store: PostgresViews, text: str, *parameters: object
    ) -> list[tuple[object, ...]]:
        numbers = count(1)
        text = re.sub(r"\?", lambda _: f"${next(numbers)}", text)

        async def job(connection: postgres.Connection) -> list[tuple[object, ...]]:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL search_path TO {store.database.schema}")
                return [tuple(row) for row in await connection.fetch(text, *parameters)]

        return await store.database.run(job)


class Current:
    """The one that worlds are made on."""

    backend: Backend = OnSqlite()

    @classmethod
    @contextmanager
    def on(cls, backend: Backend) -> Generator[None]:
        """Have worlds made on this one."""
        before, cls.backend = cls.backend, backend
        try:
            yield
        finally:
            cls.backend = before
