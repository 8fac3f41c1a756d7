"""Which interleavings are played in which round, and the round."""

from __future__ import annotations

import random
from collections.abc import Iterable

from diptych.log import Append
from diptych.logs.postgres import PostgresLog
from diptych.testing.checker import Violation, check_history
from diptych.testing.history import History
from diptych.testing.recording import Recorder
from torture.backends import Backend, open_log
from torture.clients import event
from torture.interleavings.orders import how_many, order
from torture.interleavings.scripts import FOURS, SIX, Player, Script
from torture.interleavings.sessions import Stage

BLOCK = 66
"""How many are played on one log, one after the other, and checked together."""

SCRIPTS = (SIX, *FOURS)
ROUNDS = [how_many(script.counts) // BLOCK for script in SCRIPTS]


def played_in(number: int) -> tuple[Script, range]:
    """Return what a round plays: a script, and the numbers of its orders. After all, all anew."""
    number %= sum(ROUNDS)
    which = 0
    while number >= ROUNDS[which]:
        number -= ROUNDS[which]
        which += 1
    return SCRIPTS[which], range(number * BLOCK, (number + 1) * BLOCK)


async def interleavings(backend: Backend, number: int) -> list[Violation]:
    """Play the next interleavings, and check all of them."""
    script, numbers = played_in(number)
    return await play(backend.new_log(), script, numbers)


async def play(url: str, script: Script, numbers: Iterable[int]) -> list[Violation]:
    """Play the orders of these numbers, one after the other."""
    history = History()
    log = await open_log(url)
    try:
        async with Stage.on(url) as stage:
            sessions = [stage.new() for _ in script.programs]
            logs = [await PostgresLog.open(session.database) for session in sessions]
            recorders = [
                Recorder(known, history, f"session-{number}") for number, known in enumerate(logs)
            ]
            for recorder in recorders * 2:  # each gets to know the log, and that there are others
                await recorder.append([Append((event(random.Random(0)),))])
            for number in numbers:
                fresh = [PostgresLog(s.database, log.identity) for s in sessions]
                head, place = await log.head(), str(number)
                players = [
                    Player(session, known, Recorder(new, history, known.client), place, head)
                    for session, known, new in zip(sessions, recorders, fresh, strict=True)
                ]
                programs = [p(player) for p, player in zip(script.programs, players, strict=True)]
                steps = order(script.counts, number)
                await stage.play(list(zip(sessions, programs, strict=True)), steps)
                for one in fresh:
                    await one.close()
            for known in logs:
                await known.close()
        return await check_history(history, log)
    finally:
        await log.close()
