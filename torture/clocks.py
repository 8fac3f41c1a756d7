"""The clock of the day jumps under load: by seconds, hours and years, forward and back.

In one process of several, in all of them at once, in PostgreSQL's server, while processes append
and others, of which nobody can tell by their ids whether they live, share the projections and are
killed. What is written must be readable soon whatever clocks say, and all be sound in the end.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import asyncpg

from diptych import Running
from diptych.codec import time_of
from diptych.errors import DiptychError
from diptych.read.following import crew
from diptych.read.status import Status
from diptych.testing.checker import Violation
from diptych.testing.history import History, load
from diptych.testing.recording import AppRecorder
from torture.application import ACCOUNTS, BalanceOf, Move, Open, accounts, customer
from torture.backends import Backend
from torture.clock import Clock
from torture.load import Load, check_application
from torture.pauses import LEASE, hasty
from torture.processes import start, worker

JUMPS = 5
KINDS = ("application", "projections", "projections")
CLIENTS = 3
PATIENCE = 10.0
"""Within so many seconds others take over, and what was written can be read."""

HOUR = 3600.0
YEAR = 365 * 24 * HOUR
NEAR = (2.0, -2.0, 60.0, -60.0)
FAR = (HOUR, -HOUR, 30 * 24 * HOUR, -30 * 24 * HOUR, 10 * YEAR, -10 * YEAR, 170 * YEAR)
SHORTLY_AFTER_1970 = 10.0

JUMPING = f"{__name__}:jumping"

_NUMBER = re.compile(r"^[a-z_]+(?:\{.*\})? (\S+)$", re.MULTILINE)


def jumping() -> None:
    """Have this process go by the clock beside its history, and be on a host of its own.

    So nobody can look for its process: that it is dead is told by its lease alone.
    """
    Clock(_beside(Path(sys.argv[2]))).wear()
    crew.__dict__["host"] = lambda: f"host-{os.getpid()}"
    hasty()


async def clocks(
    backend: Backend, rng: random.Random, *bug: str, patience: float = PATIENCE
) -> list[Violation | str]:
    """Have clocks jump, and workers die; return what does not hold."""
    log = backend.new_log()
    views = rng.choice([url for url in backend.new_views(log) if url != log])
    found: list[Violation | str] = []
    with tempfile.TemporaryDirectory(prefix="diptych-torture-") as name, ExitStack() as stack:
        folder = Path(name)
        mine = Clock(folder / "clock")
        stack.enter_context(mine.worn())
        stack.enter_context(_hastily())
        crowd = stack.enter_context(_Crowd(folder, log, views, rng, bug or (JUMPING,)).kept())
        history = History()
        shared = rng.random() < 0.5
        async with (
            _server_clock(log) as server,
            accounts(fresh_within=2.0).open(log=log, views=views, projections=shared) as running,
        ):
            jumps = _Jumps(rng, mine, crowd, server)
            recorder = AppRecorder(running, history, "client")
            for account in range(ACCOUNTS):
                await recorder.do(Open(f"a{account}"))
            await asyncio.to_thread(crowd.fill)
            work = Load()
            async with asyncio.TaskGroup() as group:
                for client in range(CLIENTS):
                    one = recorder.of(f"client-{client}")
                    step = partial(customer, one, client, random.Random(rng.random()))
                    group.create_task(work.repeat(step))
                for number in range(JUMPS + 1):
                    await work.more(rng.randint(1, 20))
                    # Who is killed has stamped its row by the clock that was, most likely.
                    if number and rng.random() < 0.5:
                        crowd.kill_one()
                    await (jumps.back() if number == JUMPS else jumps.jump(number))
                    # There are events now, most likely, that no view has yet.
                    found += _nonsense(await running.status(), await running.metrics())
                    if rng.random() < 0.3:
                        with suppress(DiptychError):
                            await running.verify()  # and note when that was
                    found += await _goes_on(recorder.of("reader"), rng, patience)
                    found += _nonsense(await running.status(), "")
                    if found:
                        break
                    await asyncio.to_thread(crowd.fill)
                work.ended.set()
            if not found:
                found += await _settled(running, len(KINDS) + shared, patience)
                found += await _stamped(running)
        stack.pop_all().close()  # the others are dead, and all clocks right
        if found:
            return found
        calls = [*history.calls, *load(*folder.glob("*.jsonl"))]
        return [*found, *await check_application(log, views, calls)]


# --- processes and their clocks -------------------------------------------------------------------


class _Crowd:
    """Processes on one log, one of each of ``KINDS``; who was killed is replaced by ``fill``."""

    def __init__(
        self, folder: Path, log: str, views: str, rng: random.Random, plant: Sequence[str]
    ) -> None:
        self._folder = folder
        self._addresses = log, views
        self._rng = rng
        self._plant = plant
        self._made = 0
        self._stack = ExitStack()
        self._living: dict[int, tuple[subprocess.Popen[str], Clock]] = {}

    @contextmanager
    def kept(self) -> Generator[_Crowd]:
        """Have them until the end of the block."""
        with self._stack:
            try:
                yield self
            finally:
                self.kill()

    @property
    def clocks(self) -> list[Clock]:
        """The clocks of those who live."""
        return [clock for _, clock in self._living.values()]

    def fill(self) -> None:
        """Start those who are not there, and wait until they are at work."""
        new: list[subprocess.Popen[str]] = []
        for place, kind in enumerate(KINDS):
            if place not in self._living:
                self._made += 1
                path = self._folder / f"{self._made}.jsonl"
                clock = Clock(_beside(path))
                arguments = (kind, path, *self._addresses, self._rng.random(), *self._plant)
                process = self._stack.enter_context(worker(*arguments))
                self._living[place] = process, clock
                new.append(process)
        start(new)
        for process in new:  # or its answers would fill the pipe, and then it would stand still
            threading.Thread(target=_drain, args=(process,), daemon=True).start()

    def kill_one(self) -> None:
        """Kill one of them."""
        process, _ = self._living.pop(self._rng.choice(sorted(self._living)))
        process.kill()
        process.wait()

    def kill(self) -> None:
        """Kill all of them."""
        while self._living:
            self.kill_one()


class _Jumps:
    """Sets clocks: this process's, those of the others, the server's."""

    def __init__(
        self, rng: random.Random, mine: Clock, crowd: _Crowd, server: asyncpg.Connection | None
    ) -> None:
        self._rng = rng
        self._mine = mine
        self._crowd = crowd
        self._server = server

    async def jump(self, number: int) -> None:
        """Set some clocks, or all; the first jump of a round is far, and in all."""
        rng = self._rng
        everyone = [self._mine, *self._crowd.clocks]
        if number == 0:
            await self._set(everyone, self._far(), server=True)
        elif (kind := rng.random()) < 0.4:
            await self._set(everyone, self._any(), server=True)
        elif kind < 0.6:
            await self._set(everyone, 0.0, server=True)
        elif kind < 0.8:
            await self._set([rng.choice(everyone)], self._any())
        else:
            for clock in everyone:
                await self._set([clock], self._any())
            await self._set([], self._any(), server=True)

    async def back(self) -> None:
        """Set all clocks right."""
        await self._set([self._mine, *self._crowd.clocks], 0.0, server=True)

    async def _set(self, clocks: Sequence[Clock], offset: float, *, server: bool = False) -> None:
        for clock in clocks:
            clock.offset = offset
        if server and self._server is not None:
            await self._server.execute("UPDATE torture.clock SET seconds = $1", offset)

    def _any(self) -> float:
        return self._rng.choice(NEAR) if self._rng.random() < 0.3 else self._far()

    def _far(self) -> float:
        to_1970 = SHORTLY_AFTER_1970 - Clock.real()
        return self._rng.choice((*FAR, to_1970))


def _beside(history: Path) -> Path:
    return history.with_suffix(".clock")


def _drain(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    with suppress(ValueError):  # it is closed in the end
        while process.stdout.readline():
            pass


@contextmanager
def _hastily() -> Generator[None]:
    """Give the workers of this process a short lease."""
    defaults = crew.Crew.__init__.__kwdefaults__
    assert defaults is not None
    before, beat = dict(defaults), crew.__dict__["BEAT_SECONDS"]
    hasty()
    try:
        yield
    finally:
        defaults.update(before)
        crew.__dict__["BEAT_SECONDS"] = beat


SERVER_CLOCK = """
CREATE SCHEMA IF NOT EXISTS torture;
CREATE TABLE IF NOT EXISTS torture.clock (seconds float8 NOT NULL);
DELETE FROM torture.clock;
INSERT INTO torture.clock VALUES (0);
CREATE OR REPLACE FUNCTION torture.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
'SELECT pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => seconds)
 FROM torture.clock';
CREATE OR REPLACE FUNCTION torture.now() RETURNS timestamptz LANGUAGE sql STABLE AS
'SELECT pg_catalog.now() + pg_catalog.make_interval(secs => seconds) FROM torture.clock';
DO $$ BEGIN
    EXECUTE format(
        'ALTER DATABASE %I SET search_path = torture, pg_catalog, public', current_database()
    );
END $$;
"""
"""Functions that are found before the server's own, in all sessions that begin from now on."""


@asynccontextmanager
async def _server_clock(log: str) -> AsyncGenerator[asyncpg.Connection | None]:
    """Plant the server's clock; None: there is no server."""
    if not log.startswith("postgresql:"):
        yield None
        return
    url = log.partition("?")[0]
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(SERVER_CLOCK)
        yield connection
        await connection.execute("UPDATE torture.clock SET seconds = 0")
    finally:
        await connection.close()


# --- what must hold -------------------------------------------------------------------------------


async def _goes_on(app: AppRecorder, rng: random.Random, patience: float) -> list[str]:
    """Write, and read it from every slice there is an account in."""
    end, last = time.monotonic() + patience, None
    while last is None or time.monotonic() < end:
        try:
            a, b = rng.sample(range(ACCOUNTS), 2)
            receipt = await app.do(Move(f"a{a}", f"a{b}", 1))
            for account in range(ACCOUNTS):
                query = BalanceOf(f"a{account}")
                await app.ask(query, after=receipt.token, wait=patience, strict=True)
        except DiptychError as error:
            last = error
            await asyncio.sleep(0.01)
        else:
            return []
    return [f"{patience:.0f} s after a jump what was written cannot be read: {last}"]


async def _settled(running: Running, workers: int, patience: float) -> list[str]:
    """With all clocks right, and nobody writing but one application, all is as if nothing had been.

    Everyone who projects is counted, and none that is dead; what has one slice is one worker's.
    """
    end = time.monotonic() + patience
    while True:
        status = await running.status()
        wrong = [
            f"{one.projection} is {one.state}, shared by {one.workers} of {workers}"
            for one in status
            if one.workers != min(workers, one.spans[-1].last + 1)
            or one.state in ("refused", "failed", "paused")
        ]
        if not wrong or time.monotonic() > end:
            return wrong + _nonsense(status, "")
        await asyncio.sleep(LEASE / 10)


def _nonsense(status: Sequence[Status], metrics: str) -> list[str]:
    """Say which figures no clock may lead to."""
    figures: list[tuple[str, float]] = []
    for one in status:
        figures += [(f"{one.projection} lag", one.lag), ("lag_seconds", one.lag_seconds)]
        figures += [(f"{one.projection} span", span.lag_seconds) for span in one.spans]
        if one.proved is not None:
            figures.append((f"{one.projection} proved age", one.proved.age))
        if (fresh := one.freshness) is not None:
            known = (fresh.met, fresh.burn_5m, fresh.burn_1h)
            figures += [(f"{one.projection} freshness", each or 0.0) for each in known]
            figures.append((f"{one.projection} met", 1.0 - (fresh.met or 0.0)))
    figures += [("a metric", float(number)) for number in _NUMBER.findall(metrics)]
    return [
        f"{name} is {figure}" for name, figure in figures if figure < 0 or not math.isfinite(figure)
    ]


async def _stamped(running: Running) -> list[str]:
    """Make sure that clocks have jumped: the log's times say so."""
    page = await running.log.read(limit=1_000_000)
    times = [at for at in map(time_of, page.events) if at is not None]
    apart = (max(times) - min(times)).total_seconds()
    return [] if apart > HOUR / 2 else [f"no clock has jumped: all times lie within {apart} s"]
