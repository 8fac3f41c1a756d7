"""PostgreSQL killed under load, and started again: what was acknowledged is there.

SIGKILL of all its processes takes what they hold in memory, also what of the write-ahead log was
not written yet. It does not test fsync: what was written, the system keeps.
"""

from __future__ import annotations

import asyncio
import random

from diptych.testing.checker import Violation
from diptych.testing.history import History
from torture.backends import Backend
from torture.load import Load, check_application, check_log, on_application, on_logs, opened


async def server(backend: Backend, rng: random.Random) -> list[Violation]:
    """Kill the server under the load of a log's clients, or of an application; check everything."""
    history, log = History(), backend.new_log()
    if rng.random() < 0.5:
        # Impatient ones give up before the server is back: the outcome stays unknown.
        patience = rng.choice((0.1, 5.0))
        async with (
            opened([log] * rng.choice((1, 3)), patience=patience) as logs,
            on_logs(logs, history, rng) as load,
        ):
            await _kill(backend, load, rng)
        return await check_log(log, history)
    views = rng.choice(backend.new_views(log))
    async with on_application(log, views, history, rng) as load:
        await _kill(backend, load, rng)
    return await check_application(log, views, history.calls)


async def _kill(backend: Backend, load: Load, rng: random.Random) -> None:
    await load.more(rng.randint(5, 150))
    await backend.kill()
    await asyncio.sleep(rng.choice((0.0, 0.0, 0.5)))
    await backend.restart()
    await load.more(rng.randint(10, 60))
