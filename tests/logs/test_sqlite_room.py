"""Room in SQLite's write-ahead log: commits that find it, and what must not come of making it."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from diptych.logs.sqlite import SqliteLog
from diptych.sql.room import LEAST, SMALL, Room
from diptych.testing.contracts.making import event, everything, put

FRAME = 4096 + 24
"""Bytes of a page in the write-ahead log."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def log(path: Path) -> AsyncIterator[SqliteLog]:
    log = await SqliteLog.open(path)
    yield log
    await log.close()


def size(path: Path) -> int:
    wal = path.with_name(path.name + "-wal")
    return wal.stat().st_size if wal.exists() else 0


async def rest(log: SqliteLog) -> None:
    """Wait until the writing thread has done what it does after a job."""
    await log._database.write(lambda _: None)


async def test_commits_find_room(log: SqliteLog, path: Path) -> None:
    """Hundreds of commits make the file longer a few times only."""
    sizes: list[int] = []
    for number in range(300):
        await put(log, event("Moved", f"a:{number}"))
        await rest(log)
        sizes.append(size(path))
    longer = sum(a != b for a, b in pairwise(sizes))
    before = sum(s <= LEAST for s in sizes)
    assert before < 60
    assert longer < before + 10
    assert sizes[-1] > 300 * 3 * FRAME


async def test_what_was_written_for_room_is_nowhere(log: SqliteLog, path: Path) -> None:
    """The database has no more pages and tables than the events need; a copy has all events."""
    for number in range(150):
        await put(log, event("Moved", f"a:{number}"))
    await rest(log)
    assert size(path) > 2 * LEAST
    # As after a crash: nobody has closed these files, and what was rolled back lies in them.
    copy = path.with_name("copy.db")
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", f"{copy}{end}")
    with sqlite3.connect(copy) as shell:
        assert shell.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert shell.execute("SELECT name FROM sqlite_master WHERE name = 'room'").fetchall() == []
        assert shell.execute("SELECT count(*) FROM events").fetchone() == (150,)
        shell.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shell.close()
    assert copy.stat().st_size < 200_000
    assert len(await everything(log)) == 150


async def test_who_stores_little_does_not_wait_for_room(log: SqliteLog, path: Path) -> None:
    """A few commits take what they need of the disk."""
    for number in range(5):
        await put(log, event("Moved", f"a:{number}"))
    await rest(log)
    assert size(path) < LEAST


async def test_large_commits_are_left_alone(log: SqliteLog, path: Path) -> None:
    """They cost what they do by their length: room for them would double it."""
    for number in range(20):
        events = [event("Moved", f"a:{number}-{n}") for n in range(400)]
        await asyncio.gather(*(put(log, e) for e in events))
        await rest(log)
    assert size(path) > LEAST
    pragma = "PRAGMA wal_checkpoint(PASSIVE)"
    _, frames, _ = await log._database.write(lambda c: c.execute(pragma).fetchone())
    assert size(path) == 32 + frames * FRAME  # nothing beyond what commits have written


def test_no_room_while_another_writes(path: Path) -> None:
    """Nobody waits for the lock; room is made at a later commit."""
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (x)")
    while size(path) <= LEAST:
        writer.execute("INSERT INTO t VALUES (zeroblob(9000))")
    room = Room(path)
    room.keep()
    before = size(path)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO t VALUES (1)")
    room._size = before - 1
    room.keep()
    assert size(path) == before
    assert not room.enough
    writer.execute("COMMIT")
    room.keep()
    assert size(path) > before + SMALL
    writer.close()


def test_the_last_space_is_for_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that is nearly full no room is made; there is when there is space again."""
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (x)")
    writer.execute("INSERT INTO t VALUES (zeroblob(300000))")
    before = size(path)
    room = Room(path)
    with monkeypatch.context() as patched:
        nearly_full = shutil.disk_usage(path.parent)._replace(free=before * 15)
        patched.setattr(shutil, "disk_usage", lambda _: nearly_full)
        room._size = before - 1
        room.keep()
    assert size(path) == before
    assert not room.enough
    room.keep()
    assert size(path) > before
    writer.close()


def test_a_full_disk_ends_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where room cannot be made, it is not tried again, and nobody is told."""
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (x)")
    writer.execute("INSERT INTO t VALUES (zeroblob(300000))")

    def full(*_: object, **__: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(sqlite3, "connect", full)
    room = Room(path)
    room._size = size(path) - 1
    room.keep()
    assert room.enough
    writer.close()
