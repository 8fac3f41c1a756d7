"""Room in SQLite's write-ahead log for the commits to come, made while nobody waits.

A commit that makes the file longer has the file system write its own journal before the fsync
returns; one that is written over what is there has not, and takes half the time. So where a small
commit has made the file longer, the next ones are given room: more pages are written than a
transaction keeps in memory, so they go to the file, and are rolled back. All is SQLite's own doing.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

CHECKPOINT: Final = 16_000
"""Pages in the write-ahead log from which SQLite moves them into the database and begins anew."""

LEAST: Final = 262_144
"""Bytes of the file below which none is made: who stores little is not to wait for it."""

MOST_AT_ONCE: Final = 8_388_608
"""Bytes; some 20 ms. The file is doubled until then."""

SMALL: Final = 65_536
"""Bytes: a commit that is longer costs what it does by its length, as room for it would."""

LARGEST: Final = CHECKPOINT * 4096
"""Bytes beyond which none is made: the file is used from its start again before that."""

SHARE: Final = 16
"""No more than this part of what is free on the disk: whoever needs the last of it comes first."""

_UNKEPT: Final = 8
"""Pages that the transaction keeps in memory."""


class Room:
    """Makes room in the write-ahead log of one file, between its writer's transactions."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self._size = 0
        self.enough = False

    def keep(self) -> None:
        """Make room if the last commit has found none. Nothing is wrong when that fails."""
        with suppress(OSError):
            size = self._log.stat().st_size
            if size >= LARGEST:
                self.enough = True
            elif size > LEAST and 0 < size - self._size <= SMALL:
                length = min(size, MOST_AT_ONCE, LARGEST - size)
                if shutil.disk_usage(self._log.parent).free < length * SHARE:
                    return
                try:
                    self._make(length)
                except sqlite3.Error as error:
                    # Another process writes: at the next commit, then. Else the disk may be full.
                    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
                    self.enough = code & 0xFF != sqlite3.SQLITE_BUSY
                size = self._log.stat().st_size
            self._size = size

    def _make(self, length: int) -> None:
        # Not by the writer's own connection, which would have to forget all the pages it keeps.
        # Nor by one that makes the file: it may be gone from its place.
        name = f"{self._path.absolute().as_uri()}?mode=rw"
        with closing(
            sqlite3.connect(name, uri=True, timeout=0, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA cache_size = {_UNKEPT}")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE room (filled)")
            connection.execute("INSERT INTO room VALUES (zeroblob(?))", (length,))
            connection.execute("ROLLBACK")
        # Or the next commit would wait for all of it. SQLite holds no lock on this file, which
        # would be gone when another descriptor of it is closed.
        file = os.open(self._log, os.O_RDWR)
        try:
            os.fsync(file)
        finally:
            os.close(file)
