"""What a run needs of a database: a new log, opened here or in another process; a kill, a restart.

PostgreSQL joins by a class beside `Sqlite`, its URL in `open_log`, and its name in `backend`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from diptych.app.running import sqlite_path
from diptych.log import Log
from diptych.logs.sqlite import SqliteLog


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


async def open_log(url: str, *, remembered: int = 25_000) -> Log:
    """Open the log of a URL. ``remembered``: how many events' tags an adapter keeps in memory."""
    path = sqlite_path(url, "log")
    assert path is not None
    return await SqliteLog.open(path, remembered=remembered, poll=0.005)


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


@contextmanager
def backend(name: str, folder: Path) -> Generator[Backend]:
    """Have a backend, for as long as a run takes."""
    if name != "sqlite":
        raise SystemExit(f"There is no backend {name!r}; there is: sqlite")
    yield Sqlite(folder)
