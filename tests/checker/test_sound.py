"""On logs without a bug the checker finds nothing, whatever their clients do."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

from diptych.log import Append, Outcome
from diptych.logs.memory import MemoryLog
from diptych.testing.checker import check_history
from diptych.testing.history import AppendRequest, History, Outcomes
from diptych.testing.recording import Recorder
from torture.clients import Client
from torture.histories import history_of

HISTORIES = 300


class Slow(MemoryLog):
    """A sound log whose appends take a while, before or after they take place."""

    async def append(self, batch: Sequence[Append]) -> list[Outcome]:
        if len(batch) % 2:
            await asyncio.sleep(0)
        outcomes = await super().append(batch)
        await asyncio.sleep(0)
        return outcomes


async def test_nothing_is_found_in_memory() -> None:
    """Three hundred random histories on the specification are sound."""
    for number in range(HISTORIES):
        rng = random.Random(f"sound:{number}")
        assert (
            await history_of([MemoryLog() if number % 2 else Slow()], rng, clients=6, calls=8) == []
        )


async def test_the_clients_do_everything() -> None:
    """In a few histories every kind of answer comes up, so that none is left unchecked."""
    seen: Counter[str] = Counter()
    for number in range(20):
        history = History()
        log = Recorder(Slow(), history)
        await Client(log, random.Random(number), ["k1", "k2", "k3"]).work(30)
        for call in history.calls:
            seen[f"{call.operation} {call.outcome}"] += 1
            if isinstance(call.request, AppendRequest) and isinstance(call.answer, Outcomes):
                for answer in call.answer.outcomes:
                    seen[answer.refused or ("replayed" if answer.replayed else "appended")] += 1
        assert await check_history(history, log.log) == []
    wanted = {"appended", "replayed", "conflict", "unfounded", "key-reused", "append unknown"}
    wanted |= {"append failed", "recall ok", "read ok", "wait ok", "head ok"}
    assert wanted <= seen.keys(), seen
