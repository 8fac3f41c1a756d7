"""What a run needs of a database: a new log, for any process here; a kill, a restart."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from diptych.app.databases import Where
from diptych.log import Log
from diptych.logs.postgres import PostgresLog
from diptych.logs.sqlite import SqliteLog
from diptych.sql.postgres import PATIENCE, Database
from diptych.testing.servers import PostgresServer, postgres


class Backend(Protocol):
    """A kind of log that is tortured."""

    name: str
    version: str

    def within(self, folder: Path) -> Backend:
        """Return the same, with what it keeps in files below a folder."""
        ...

    def new_log(self) -> str:
        """Return the URL of a new, empty log, good for every process of this machine."""
        ...

    def new_views(self, log: str) -> list[str]:
        """Return URLs for the views of a log: those beside it first, then those in it."""
        ...

    async def kill(self) -> bool:
        """Kill the server with all that it has in memory; False: there is none."""
        ...

    async def restart(self) -> None:
        """Start the server again."""
        ...


async def open_log(url: str, *, remembered: int = 25_000, patience: float = PATIENCE) -> Log:
    """Open the log of a URL. ``remembered``: how many events' tags an adapter keeps in memory.

    ``patience`` (seconds): how long a server that is away is waited for.
    """
    where = Where.parse(url, "log")
    if where.path is not None:
        return await SqliteLog.open(where.path, remembered=remembered, poll=0.005)
    log = await PostgresLog.open(
        database := Database(url, patience=patience), remembered=remembered, poll=0.05
    )
    close = log.close

    async def close_both() -> None:
        await close()
        await database.close()

    log.close = close_both  # type: ignore[method-assign]
    return log


class Sqlite:
    """Logs in files below a folder."""

    name = "sqlite"
    version = f"SQLite {sqlite3.sqlite_version}"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def within(self, folder: Path) -> Sqlite:
        """Return the same, below another folder."""
        return Sqlite(folder)

    def new_log(self) -> str:
        """Return the URL of a file that is not there yet."""
        return f"sqlite:///{self.folder / uuid4().hex}.db"

    def new_views(self, log: str) -> list[str]:
        """Return the URL of a file beside the log's, and the log's own."""
        return [log.removesuffix(".db") + "-views.db", log]

    async def kill(self) -> bool:
        """There is no server."""
        return False

    async def restart(self) -> None:
        """There is no server."""


class Postgres:
    """Logs in schemas of a server's database, which is made anew when it holds many."""

    name = "postgresql"
    MOST = 100

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.version = f"PostgreSQL {server.version}"
        self.url = server.new_database()
        self._made = 0
        self._folder = Path()

    def within(self, folder: Path) -> Postgres:
        """Return the same, with SQLite views below another folder."""
        self._folder = folder
        if self._made > self.MOST:
            self.server.drop_database(self.url)
            self.url = self.server.new_database()
            self._made = 0
        return self

    def new_log(self) -> str:
        """Return the URL of a schema that is not there yet."""
        self._made += 1
        return f"{self.url}?schema=log_{uuid4().hex}"

    def new_views(self, log: str) -> list[str]:
        """Return the URLs of a schema, of an SQLite file, and of the log's own schema."""
        return [
            log.replace("schema=log_", "schema=views_"),
            f"sqlite:///{self._folder / uuid4().hex}-views.db",
            log,
        ]

    async def kill(self) -> bool:
        """Send SIGKILL to all of the server's processes."""
        await asyncio.to_thread(self.server.kill)
        return True

    async def restart(self) -> None:
        """Start the server: it recovers."""
        await asyncio.to_thread(self.server.start)


@contextmanager
def backend(name: str, folder: Path) -> Generator[Backend]:
    """Have a backend, for as long as a run takes."""
    match name:
        case "sqlite":
            yield Sqlite(folder)
        case "postgresql":
            with postgres(durable=True) as server:
                yield Postgres(server)
        case _:
            raise SystemExit(f"There is no backend {name!r}; there are: sqlite, postgresql")
