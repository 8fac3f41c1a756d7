"""Workers are paused past their lease, and wake up as if nothing had happened.

Others must have taken over meanwhile, and what the sleeper still believes must harm nobody.

    python -m torture.pauses 200 sqlite|postgresql

pauses with the lease that applications have, and says how long the others took.
"""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from diptych.app.databases import Where
from diptych.errors import DiptychError
from diptych.read.following import crew
from diptych.read.stores.postgres import PostgresViews
from diptych.read.stores.sqlite import SqliteViews
from diptych.sql import postgres, sqlite
from diptych.testing.checker import Violation
from diptych.testing.history import History
from diptych.testing.recording import AppRecorder
from torture import backends
from torture.application import ACCOUNTS, BalanceOf, Move, accounts, customer
from torture.backends import Backend
from torture.load import Load, check_application
from torture.processes import start, worker

PAUSES = 3
WORKERS = 3
LEASE = 0.5

HASTY = f"{__name__}:hasty"


def hasty() -> None:
    """Give this process's workers a short lease, and have them share anew all the time."""
    defaults = crew.Crew.__init__.__kwdefaults__
    assert defaults is not None
    defaults["lease"] = LEASE
    crew.__dict__.update(BEAT_SECONDS=LEASE / 5, FAR=100, NEAR=20)


async def pauses(
    backend: Backend,
    rng: random.Random,
    *bug: str,
    number: int = PAUSES,
    lease: float = LEASE,
    took: list[float] | None = None,
) -> list[Violation]:
    """Pause one of three workers, again and again, while an application writes and reads.

    ``took`` is told how long it was until all that was written after a pause could be read.
    """
    log = backend.new_log()
    views = backend.new_views(log)[0]
    app = accounts()
    with tempfile.TemporaryDirectory(prefix="diptych-torture-") as folder, ExitStack() as stack:
        history = History()
        async with app.open(log=log, views=views, projections=False) as running:
            plant = bug or ((HASTY,) if lease == LEASE else ())
            workers = [
                stack.enter_context(
                    worker("projections", Path(folder) / f"{n}", log, views, n, *plant)
                )
                for n in range(WORKERS)
            ]
            await asyncio.to_thread(start, workers)
            recorder = AppRecorder(running, history, "client")
            work = Load()
            async with asyncio.TaskGroup() as group:
                for client in range(3):
                    mine = random.Random(rng.random())
                    each = recorder.of(f"client-{client}")
                    group.create_task(work.repeat(partial(customer, each, client, mine)))
                store = _store(views)
                for _ in range(number):
                    victim = rng.choice(workers)
                    await work.more(rng.randint(1, 30))
                    seconds = await _pause(recorder.of("reader"), store, victim, lease, rng)
                    if took is not None:
                        took.append(seconds)
                work.ended.set()
                await store.database.close()
        for process in workers:
            process.kill()
            process.wait()
        return await check_application(log, views, history.calls)


async def _pause(
    app: AppRecorder,
    store: SqliteViews | PostgresViews,
    victim: subprocess.Popen[str],
    lease: float,
    rng: random.Random,
) -> float:
    victim.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        # SQLite has one lock for writers. Whoever sleeps with it in hand keeps all from writing,
        # so it is woken after a while.
        while time.monotonic() - began < 4 * lease:
            try:
                a, b = rng.sample(range(ACCOUNTS), 2)
                receipt = await app.do(Move(f"a{a}", f"a{b}", 1))
                for account in range(ACCOUNTS):
                    query = BalanceOf(f"a{account}")
                    await app.ask(query, after=receipt.token, wait=4 * lease, strict=True)
                break
            except DiptychError:
                await asyncio.sleep(0.01)
        took = time.monotonic() - began
        while any(one.pid == victim.pid for one in await store.workers(lease)):
            if time.monotonic() - began > 4 * lease:
                break
            await asyncio.sleep(lease / 20)
    finally:
        victim.send_signal(signal.SIGCONT)
    return took


def _store(views: str) -> SqliteViews | PostgresViews:
    where = Where.parse(views, "views")
    if where.path is not None:
        return SqliteViews(sqlite.Database(where.path))
    return PostgresViews(postgres.Database(where.url))


async def _measure(number: int, kind: str) -> Sequence[Violation]:
    took: list[float] = []
    with tempfile.TemporaryDirectory() as folder, backends.backend(kind, Path(folder)) as backend:
        found = await pauses(
            backend, random.Random(1), number=number, lease=crew.LEASE_SECONDS, took=took
        )
    took.sort()
    print(f"{len(took)} pauses on {kind}, {len(found)} violations")
    p99 = took[-1 - len(took) // 100]
    print(f"take-over: median {statistics.median(took):.2f} s, p99 {p99:.2f} s")
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(bool(asyncio.run(_measure(int(sys.argv[1]), sys.argv[2]))))
