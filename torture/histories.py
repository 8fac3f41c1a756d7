"""Random concurrent histories, checked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from diptych.log import Log
from diptych.testing.checker import Violation, check_history
from diptych.testing.history import History
from diptych.testing.recording import Recorder
from torture.backends import Backend, open_log
from torture.clients import Client, follow


async def histories(backend: Backend, rng: random.Random) -> list[Violation]:
    """Let 4 to 16 clients loose on a log that is opened once to three times; check the history."""
    url = backend.new_log()
    logs: list[Log] = []
    try:
        for _ in range(rng.choice((1, 1, 2, 3))):
            logs.append(await open_log(url, remembered=rng.choice((3, 20, 25_000))))
        return await history_of(logs, rng, clients=rng.randint(4, 16), calls=rng.randint(4, 12))
    finally:
        for log in logs:
            await log.close()


async def history_of(
    logs: Sequence[Log], rng: random.Random, *, clients: int, calls: int
) -> list[Violation]:
    """Let clients loose on logs that are one; check what they say."""
    history = History()
    keys = [f"key-{number}" for number in range(clients)]
    recorders = [
        Recorder(rng.choice(logs), history, f"client-{number}") for number in range(clients + 2)
    ]
    done = asyncio.Event()
    readers = [
        asyncio.create_task(follow(log, f"reader-{n}", random.Random(rng.random()), done))
        for n, log in enumerate(recorders[clients:])
    ]
    try:
        await asyncio.gather(
            *(
                Client(log, random.Random(rng.random()), keys).work(calls)
                for log in recorders[:clients]
            )
        )
    finally:
        done.set()
        outcomes = await asyncio.gather(*readers, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return await check_history(history, logs[0])
