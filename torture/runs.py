"""The runs by name. One call of a run is one round; a campaign is any number of them."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from torture.backends import Backend
from torture.clocks import JUMPS, clocks
from torture.cuts import CUTS, cuts
from torture.disk_full import disk_full
from torture.failover import failover
from torture.histories import histories
from torture.interleavings import BLOCK, interleavings
from torture.kill import KILLS, kill
from torture.pauses import PAUSES, pauses
from torture.power import power
from torture.processes import processes
from torture.races import SHAPES, races
from torture.rebuilds import KILLS as REBUILT
from torture.rebuilds import rebuilds
from torture.retries import KILLS as RETRIED
from torture.retries import retries
from torture.server import server
from torture.soak import soak, soak_for

Drawn: TypeAlias = Callable[[Backend, random.Random], Awaitable[Sequence[object]]]
Round: TypeAlias = Callable[[Backend, random.Random, int], Awaitable[Sequence[object]]]
"""Gets a source of chance and the round's number."""

Lasting: TypeAlias = Callable[[Backend, random.Random, float], Awaitable[Sequence[object]]]
"""Gets a source of chance, and for how many seconds it is to last."""

BACKENDS = SQLITE, POSTGRESQL = "sqlite", "postgresql"


class Run(Struct, frozen=True):
    """A run: what one round does, how many things it counts for, and where it can be had.

    ``lasting``: what is done in place of rounds where a campaign has its seconds.
    """

    round: Round
    unit: str
    units: int = 1
    backends: tuple[str, ...] = (SQLITE, POSTGRESQL)
    lasting: Lasting | None = None


def _by_chance(run: Drawn) -> Round:
    return lambda backend, rng, _: run(backend, rng)


def _in_order(run: Callable[[Backend, int], Awaitable[Sequence[object]]]) -> Round:
    return lambda backend, _, number: run(backend, number)


RUNS: dict[str, Run] = {
    "histories": Run(_by_chance(histories), "histories"),
    "races": Run(_by_chance(races), "races", len(SHAPES)),
    "processes": Run(_by_chance(processes), "rounds"),
    "kill": Run(_by_chance(kill), "kills", KILLS),
    "pauses": Run(_by_chance(pauses), "pauses", PAUSES),
    "clocks": Run(_by_chance(clocks), "jumps", JUMPS),
    "rebuilds": Run(_by_chance(rebuilds), "kills", REBUILT),
    "retries": Run(_by_chance(retries), "kills", RETRIED),
    "soak": Run(_by_chance(soak), "soaks", lasting=soak_for),
    "power": Run(_by_chance(power), "power cuts", 20, (SQLITE,)),
    "disk_full": Run(_by_chance(disk_full), "full disks", 1, (SQLITE,)),
    "cuts": Run(_by_chance(cuts), "cuts", CUTS, (POSTGRESQL,)),
    "server": Run(_by_chance(server), "crashes", 1, (POSTGRESQL,)),
    "failover": Run(failover, "failovers", 1, (POSTGRESQL,)),
    "interleavings": Run(_in_order(interleavings), "interleavings", BLOCK, (POSTGRESQL,)),
}


async def one_round(
    run: Run, make: Callable[[Path], Backend], seed: int, number: int, seconds: float = 0.0
) -> list[str]:
    """Do a round in a folder of its own; return what does not hold, in words.

    A run that can last does so for ``seconds``, where they are given. The seed and the number say
    what is tried; what runs beside what is the machine's affair.
    """
    rng = random.Random(f"{seed}:{number}")
    with tempfile.TemporaryDirectory(prefix="diptych-torture-") as folder:
        backend = make(Path(folder))
        if run.lasting is not None and seconds:
            found = await run.lasting(backend, rng, seconds)
        else:
            found = await run.round(backend, rng, number)
        return [str(violation) for violation in found]
