"""A full disk: errors that say so, nothing corrupt, and work goes on when there is space again.

On a small tmpfs where the machine lets us mount one; elsewhere SQLite is told of a limit.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from diptych.errors import DiptychError, Unavailable
from diptych.log import Append
from diptych.logs.sqlite import SqliteLog
from diptych.sql.sqlite import Database
from diptych.testing.checker import Violation, check_history
from diptych.testing.history import History
from diptych.testing.recording import Recorder
from torture.backends import Backend
from torture.clients import Client, event

SIZE_KIB = 1536


@contextmanager
def small_disk(folder: Path) -> Generator[bool]:
    """Mount a small tmpfs on a folder; False where that is not allowed."""
    folder.mkdir()
    options = f"size={SIZE_KIB}k,mode=700"
    command = ["mount", "-t", "tmpfs", "-o", options, "diptych-torture", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


async def disk_full(backend: Backend, rng: random.Random) -> list[Violation]:
    """Fill the disk under load three times; each time make space, and go on."""
    folder = Path(backend.new_log().removeprefix("sqlite:///")).with_suffix("")
    with small_disk(folder) as mounted:
        return await _fill(folder, rng, mounted=mounted)


async def _fill(folder: Path, rng: random.Random, *, mounted: bool) -> list[Violation]:
    database = Database(folder / "log.db")
    log = await SqliteLog.open(database)
    history, errors = History(), Counter[str]()
    recorder = Recorder(log, history)
    found: list[Violation] = []
    try:
        for _ in range(3):
            free = await _take_space(folder, database, rng, mounted=mounted)
            errors.clear()
            while not errors:
                await asyncio.gather(*(_write(recorder, rng, errors) for _ in range(4)))
            if set(errors) - {Unavailable.code}:
                found.append(Violation(3, "A full disk gives other errors", dict(errors)))
            await free()
            await Client(recorder, rng, ["k1", "k2", "k3"]).work(20)
            await recorder.append([Append((event(rng),))])  # raises when work does not resume
            (sound,) = await database.read(lambda c: c.execute("PRAGMA integrity_check").fetchone())
            if sound != "ok":
                found.append(Violation(1, "The file is damaged", {"found": sound}))
        return found + await check_history(history, log)
    finally:
        await log.close()
        await database.close()


async def _write(log: Recorder, rng: random.Random, errors: Counter[str]) -> None:
    batch = [Append(tuple([event(rng) for _ in range(10)])) for _ in range(4)]
    try:
        await log.append(batch)
    except DiptychError as error:
        errors[error.code] += 1
    except Exception as error:
        errors[type(error).__name__] += 1


async def _take_space(
    folder: Path, database: Database, rng: random.Random, *, mounted: bool
) -> Callable[[], Awaitable[object]]:
    """Leave little space; return what gives it back."""
    if mounted:
        ballast = folder / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        os.truncate(ballast, max(0, ballast.stat().st_size - rng.randrange(4096, 262_144)))

        async def remove() -> None:
            ballast.unlink()
            await _checkpoint(database)

        return remove

    def limit(pages: int) -> Callable[[sqlite3.Connection], object]:
        return lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    (pages,) = await database.read(lambda c: c.execute("PRAGMA page_count").fetchone())
    await database.write(limit(pages + rng.randrange(1, 64)))

    async def lift() -> None:
        await database.write(limit(1_000_000))

    return lift


async def _checkpoint(database: Database) -> None:
    """Make the write-ahead log short again: the disk is small."""
    await database.write(lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
