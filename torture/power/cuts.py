"""The run: work on a log (or a whole application), cut the power anywhere, look at what is left.

Tested are our own code paths, on Python's own ``sqlite3``: schema, PRAGMAs, statements, the order
of transactions and answers, checkpoints of the write-ahead log, the log's file and that of views
(which is not synced at each commit). Not tested are disks that lie about a sync, a file system
that loses its own records, and bytes that rot.

The history's clock counts what was done to the files, so that of every call it is known whether
it had been answered when the power was cut.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

from msgspec.structs import replace

from diptych import Running
from diptych.errors import DiptychError
from diptych.log import Append
from diptych.logs.sqlite import SqliteLog
from diptych.sql.sqlite import Database
from diptych.testing.checker import Violation, check_history, check_views
from diptych.testing.history import Call, History
from diptych.testing.recording import AppRecorder, Recorder
from torture.application import BalanceOf, Move, Open, accounts
from torture.backends import Backend
from torture.clients import Client, event
from torture.power.disk import Disk
from torture.power.vfs import Recording, recorded

GENERATIONS = 4
CUTS = 5
"""Cuts of each generation; the last one's remains are what the next generation works on."""


async def power(backend: Backend, rng: random.Random) -> list[Violation]:
    """Cut the power twenty times, over four generations of one log."""
    del backend  # SQLite, in a folder of our own
    with tempfile.TemporaryDirectory(prefix="diptych-power-") as folder:
        kind = _OfApplication if rng.random() < 0.4 else _OfLog
        return await kind(Path(folder).resolve(), rng).run()


class _Cuts:
    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder = folder
        self.rng = rng
        self.calls: list[Call] = []
        self.time = 0

    async def run(self) -> list[Violation]:
        """Work, cut, check; go on with what is left."""
        found: list[Violation] = []
        files: dict[str, bytes] = {}
        for generation in range(GENERATIONS):
            work = self.folder / f"work-{generation}"
            work.mkdir()
            before = _place(files, work)
            began = self.time
            with recorded(work) as recording:
                history = History(clock=lambda r=recording, b=began: b + r.clock())  # type: ignore[misc]
                await self.work(work, history)
            operations = recording.operations
            disk, done = Disk({str(path): text for path, text in before.items()}), 0
            calls: list[Call] = []
            for cut in sorted(_cut(recording, self.rng) for _ in range(CUTS)):
                disk.do(operations[done:cut])
                done = cut
                left = disk.after_cut(self.rng)
                files = {Path(name).name: content for name, content in left.items()}
                calls = [*self.calls, *until(history.calls, began + cut)]
                found += await self.look(files, calls, f"{generation}-{cut}")
            self.calls, self.time = calls, began + done + 1
        return found

    async def work(self, folder: Path, history: History) -> None:
        """Work on what is there."""
        raise NotImplementedError

    async def look(
        self, files: dict[str, bytes], calls: Sequence[Call], name: str
    ) -> list[Violation]:
        """Check what a cut has left."""
        folder = self.folder / f"cut-{name}-{self.rng.randrange(10**9)}"
        folder.mkdir()
        _place(files, folder)
        facts = {"cut": name, "files": {n: len(content) for n, content in files.items()}}
        try:
            found = await self.check(folder, calls)
            for path in folder.glob("*.db"):
                with sqlite3.connect(path) as connection:
                    (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
                connection.close()
                if sound != "ok":
                    found.append(Violation(1, "The file is damaged", {"found": sound}))
        except (DiptychError, sqlite3.Error) as error:
            found = [Violation(1, "What is left cannot be used", {"why": error})]
        return [replace(one, facts={**one.facts, **facts}) for one in found]

    async def check(self, folder: Path, calls: Sequence[Call]) -> list[Violation]:
        """Open what a cut has left, and check it."""
        raise NotImplementedError


class _OfLog(_Cuts):
    """Random clients on a log, which checkpoints often, is closed and opened again."""

    async def work(self, folder: Path, history: History) -> None:
        rng = self.rng
        for _ in range(rng.choice((1, 1, 2))):
            database = Database(folder / "log.db")
            if rng.random() < 0.6:
                pages = rng.choice((1, 4, 20))
                await database.write(_pragma(f"wal_autocheckpoint = {pages}"))
            log = await SqliteLog.open(database, remembered=rng.choice((3, 25_000)))
            recorder = Recorder(log, history)
            keys = ["k1", "k2", "k3", "k4"]
            clients = [Client(recorder, random.Random(rng.random()), keys) for _ in range(4)]
            await asyncio.gather(*(client.work(rng.randint(2, 8)) for client in clients))
            if rng.random() < 0.3:
                await database.write(_pragma("wal_checkpoint(TRUNCATE)"))
            await log.close()
            await database.close()

    async def check(self, folder: Path, calls: Sequence[Call]) -> list[Violation]:
        log = await SqliteLog.open(folder / "log.db")
        try:
            found = await check_history(calls, log)
            await log.append([Append((event(self.rng),))])  # raises when work does not go on
            return found
        finally:
            await log.close()


class _OfApplication(_Cuts):
    """Commands and queries, with views in a file of their own or in the log's."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        super().__init__(folder, rng)
        self.together = rng.random() < 0.4

    def open(self, folder: Path, *, projections: bool) -> AbstractAsyncContextManager[Running]:
        """Open the application on what is in a folder."""
        log = f"sqlite:///{folder}/log.db"
        views = log if self.together else f"sqlite:///{folder}/views.db"
        app = accounts(inline=self.together)
        return app.open(log=log, views=views, projections=projections)

    async def work(self, folder: Path, history: History) -> None:
        rng = self.rng
        async with self.open(folder, projections=True) as running:
            app = AppRecorder(running, history)

            async def client(number: int) -> None:
                for _ in range(8):
                    a, b = rng.sample(range(4), 2)
                    with suppress(DiptychError):
                        await app.do(Open(f"a{a}"))
                    with suppress(DiptychError):
                        key = f"{number}-{rng.randrange(20)}" if rng.random() < 0.5 else None
                        receipt = await app.do(Move(f"a{a}", f"a{b}", 7), key=key)
                        await app.ask(BalanceOf(f"a{a}"), after=receipt.token)

            await asyncio.gather(*(client(number) for number in range(4)))

    async def check(self, folder: Path, calls: Sequence[Call]) -> list[Violation]:
        async with self.open(folder, projections=False) as running:
            found = await check_history(calls, running.log)
            found += await check_views(running)
            await running.catch_up()
            return found + await check_views(running, calls, answers=[BalanceOf])


def _pragma(text: str) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute(f"PRAGMA {text}").fetchone()


def _place(files: dict[str, bytes], folder: Path) -> dict[Path, bytes]:
    """Write files, but for the shared-memory index, which does not outlive a machine."""
    placed: dict[Path, bytes] = {}
    for name, content in files.items():
        if not name.endswith("-shm"):
            (folder / name).write_bytes(content)
            placed[folder / name] = content
    return placed


def _cut(recording: Recording, rng: random.Random) -> int:
    """Choose when: anywhere, or around a sync, where most depends on it."""
    operations = recording.operations
    syncs = [index for index, one in enumerate(operations) if one.kind == "sync"]
    if syncs and rng.random() < 0.6:
        return min(len(operations), max(0, rng.choice(syncs) + rng.choice((-1, 0, 1, 2))))
    return rng.randint(0, len(operations))


def until(calls: Sequence[Call], cut: int) -> list[Call]:
    """Return the calls as they were when the power was cut: what had no answer is unknown."""
    begun = [call for call in calls if call.start <= cut]
    return [
        call
        if call.end is not None and call.end <= cut
        else replace(call, end=None, outcome="unknown", answer=None)
        for call in begun
    ]
