"""Where work is done: a fresh folder for each measurement, with fresh databases of one backend."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from diptych.testing.servers import PostgresServer
from diptych.testing.servers.postgresql import execute

BUILD = Path(__file__).parents[1] / "build" / "bench"


class Databases(Protocol):
    """Makes databases of one backend."""

    def make(self, folder: Path) -> str:
        """Make an empty one, return its URL."""
        ...

    def drop(self, url: str) -> None:
        """Remove one with all it holds."""
        ...

    def settle(self) -> None:
        """Finish what earlier work has left to be done in the background."""
        ...

    def size(self, url: str) -> int:
        """Return how many bytes one takes on the disk."""
        ...


class SqliteFiles:
    """SQLite: a database is a file in the folder of the measurement."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def make(self, folder: Path) -> str:
        return f"sqlite:///{folder}/{next(self._numbers)}.db"

    def drop(self, url: str) -> None:
        for end in ("", "-wal", "-shm"):
            Path(file_of(url) + end).unlink(missing_ok=True)

    def settle(self) -> None:
        pass

    def size(self, url: str) -> int:
        files = [Path(file_of(url) + end) for end in ("", "-wal")]
        return sum(file.stat().st_size for file in files if file.exists())


class PostgresDatabases:
    """PostgreSQL: a database of a server that was started for this run."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server

    def make(self, folder: Path) -> str:
        return self.server.new_database()

    def drop(self, url: str) -> None:
        self.server.drop_database(url)

    def settle(self) -> None:
        execute(self.server.url, "CHECKPOINT", None)

    def size(self, url: str) -> int:
        name = urlsplit(url).path.removeprefix("/")
        return int(execute(url, f"SELECT pg_database_size('{name}')", None))

    def settings(self) -> str:
        """Return the version and the settings that make it durable, as the server says."""
        names = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers")
        values = [f"{name} {execute(self.server.url, f'SHOW {name}', None)}" for name in names]
        return ", ".join([self.server.version, *values])


class Place:
    """What one measurement gets: a folder of its own, and databases made in it."""

    def __init__(self, databases: Databases, folder: Path) -> None:
        self.databases = databases
        self.folder = folder
        self._made: list[str] = []

    def database(self) -> str:
        """Return the URL of a new and empty database."""
        url = self.databases.make(self.folder)
        self._made.append(url)
        return url

    def clear(self) -> None:
        """Remove all that was made here."""
        for url in self._made:
            self.databases.drop(url)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def place(databases: Databases) -> Generator[Place]:
    """Give a place to work at, and clear it in the end."""
    BUILD.mkdir(parents=True, exist_ok=True)
    here = Place(databases, Path(tempfile.mkdtemp(prefix="run-", dir=BUILD)))
    try:
        yield here
    finally:
        here.clear()


def file_of(url: str) -> str:
    """Return the file of a sqlite:/// URL."""
    return url.removeprefix("sqlite:///")
