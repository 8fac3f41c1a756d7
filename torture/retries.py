"""Kill -9 in the midst of a retry of what is parked, at any statement, again and again.

After each kill what is there is proved, and each key has seen a part of its events without a hole,
the rest of which wait in their order. In the end all are applied, each once, in the log's order.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Generator
from contextlib import contextmanager

from diptych import Running, select
from diptych.codec import Codec
from diptych.read.parking.desk import Parked
from torture.backends import Backend
from torture.processes import worker
from torture.retrier import FAULT, Note, Noted, Trail, trails

KILLS = 3
EVENTS = 60
NAMES = 5
LATEST = 60
"""At which statement one dies at the latest; some are through before that."""


async def retries(backend: Backend, rng: random.Random, *bug: str) -> list[str]:
    """Park events, kill those who retry them, retry them; return what does not hold."""
    log = backend.new_log()
    views = rng.choice(backend.new_views(log))
    slices = rng.choice((1, 4))
    kind = rng.choice(("fold", "key"))
    app = trails(slices)
    found: list[str] = []
    with _fault(kind):
        async with app.open(log=log, views=views) as running:
            await _note(running, rng, 0)
            await running.catch_up()
    for turn in range(1, KILLS + 1):
        arguments = (rng.randint(1, LATEST), log, views, slices, *bug)
        with worker(*arguments, program="torture.retrier") as process:
            code = await asyncio.to_thread(process.wait)
        if code not in (0, -signal.SIGKILL):
            found.append(f"one who retries has failed with {code}")
        async with app.open(log=log, views=views, projections=False) as running:
            found += await _verified(running)
            found += await _complete(running, kind)
        if found:
            return found
        # What comes meanwhile queues behind what is parked still, some of it poison too.
        with _fault(rng.choice((kind, ""))):
            async with app.open(log=log, views=views) as running:
                await _note(running, rng, turn)
                await running.catch_up()
    async with app.open(log=log, views=views) as running:
        await running.catch_up()
        await running.parked.retry()
        found += await _verified(running)
        found += [f"{key.key} is parked still" for key in await running.parked.keys()]
        found += await _complete(running, "fold")
        found += [f"{rows}" for rows in await running.verify_rows() if not rows.ok]
    return found


@contextmanager
def _fault(kind: str) -> Generator[None]:
    """Have the application's fold or key fail, here."""
    os.environ[FAULT] = kind
    try:
        yield
    finally:
        del os.environ[FAULT]


async def _note(running: Running, rng: random.Random, turn: int) -> None:
    def name() -> str:
        return f"n{rng.randrange(NAMES)}"

    notes = [Note(name(), name(), turn * EVENTS + n) for n in range(EVENTS)]
    await asyncio.gather(*(running.do(note) for note in notes))


async def _verified(running: Running) -> list[str]:
    return [f"not proved: {verdict.reason}" for verdict in await running.verify() if not verdict.ok]


async def _complete(running: Running, kind: str) -> list[str]:
    """Hold what keys have seen, and what waits behind it, against the log."""
    due: dict[str, list[int]] = {}
    codec = Codec()
    codec.register([Noted])
    number_at: dict[int, int] = {}
    (status,) = await running.status()
    page = await running.log.read(until=status.position, limit=1_000_000)
    for stored in page.events:
        event = codec.event(stored)
        assert isinstance(event, Noted)
        number_at[stored.position] = event.number
        for name in dict.fromkeys((event.source, event.target)):
            due.setdefault(name, []).append(event.number)
    rows = {row.name: row.seen for row in await running.views.all(select(Trail))}
    found: list[str] = []
    for name, numbers in due.items():
        seen = rows.get(name, [])
        if kind == "key":  # what has no key holds up nothing: it is missing until it is retried
            rest = iter(numbers)
            whole = all(number in rest for number in seen)
        else:
            waits = [number_at[one.position] for one in await _parked(running, name)]
            whole = seen + waits == numbers
        if not whole:
            found.append(f"{name} has seen {seen}, and waits for less than the rest of {numbers}")
    return found


async def _parked(running: Running, name: str) -> list[Parked]:
    keys = await running.parked.keys()
    if not any(one.key == f'"{name}"' for one in keys):
        return []
    return await running.parked.show("trail", name)
