"""One run: contests one after the other, their entrants in turn, round by round."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final, TypeAlias

from msgspec import Struct

from bench.figures import Backend, Contest, Entrant, Figures, Missing, NotHere, Results, Row
from bench.places import Databases, Place, PostgresDatabases, SqliteFiles, place
from bench.scenarios import asking, catch_up, commands, growth, memory, readable, reading
from bench.setup import Setup, Sizes
from diptych.errors import ServerUnusable
from diptych.testing.servers import postgres

Scenario: TypeAlias = Callable[[Setup], Iterator[Contest]]
SCENARIOS: Final[dict[int, Scenario]] = {
    1: commands.orders_contests,
    2: commands.hot_contests,
    3: commands.latency_contests,
    4: catch_up.contests,
    5: readable.contests,
    6: reading.contests,
    7: asking.contests,
    9: memory.contests,
    8: growth.contests,  # the last one: the logs grow by it
}


class Run(Struct):
    """What came of a run. ``notes`` tell of the data, ``settings`` what the server says."""

    results: Results
    notes: list[str] = []
    settings: str = "no server"


def run(
    sizes: Sizes,
    rounds: int,
    only: Iterable[int] = (),
    backends: Sequence[Backend] = ("sqlite", "postgresql"),
    tell: Callable[[Contest, Results], None] = lambda contest, results: None,
) -> Run:
    """Measure the scenarios asked for (none: all) on these backends."""
    whole = Run(Results())
    wanted = set(only) or set(SCENARIOS)
    with ExitStack() as stack:
        setup = Setup(sizes, _places(stack, backends, whole))
        for number, contests in SCENARIOS.items():
            if number not in wanted:
                continue
            for contest in contests(setup):
                take_turns(contest, setup.backends[contest.backend], rounds, whole.results)
                tell(contest, whole.results)
        whole.notes += setup.notes
    return whole


def _places(stack: ExitStack, backends: Sequence[Backend], whole: Run) -> dict[Backend, Place]:
    places: dict[Backend, Place] = {}
    if "sqlite" in backends:
        places["sqlite"] = stack.enter_context(place(SqliteFiles()))
    if "postgresql" in backends:
        try:
            server = PostgresDatabases(stack.enter_context(postgres(durable=True)))
        except ServerUnusable as error:
            missing = Missing(0, "every scenario", "postgresql", "all", 0, str(error))
            whole.results.missing.append(missing)
        else:
            whole.settings = server.settings()
            places["postgresql"] = stack.enter_context(place(server))
    return places


def take_turns(contest: Contest, databases: Databases, rounds: int, results: Results) -> None:
    """Measure every entrant once in each round.

    The first round is thrown away, except where the contest itself says how many there are.
    """
    taken: dict[Entrant, list[Figures]] = {entrant: [] for entrant in contest.entrants}
    for turn in range(contest.rounds or rounds + 1):
        for entrant in list(taken):
            try:
                figures = measure(entrant, databases)
            except NotHere as error:
                del taken[entrant]
                results.miss(contest, entrant, str(error))
            else:
                if turn or contest.rounds:
                    taken[entrant].append(figures)
    for entrant, figures_of in taken.items():
        results.add(contest, entrant, figures_of)


def measure(entrant: Entrant, databases: Databases) -> Figures:
    """Measure one entrant once, at a place of its own.

    What all that was imported and measured before has left in memory is none of its business: the
    collector does not look through it.
    """
    gc.collect()
    gc.freeze()
    databases.settle()
    try:
        with place(databases) as here:
            return asyncio.run(entrant.measure(here))
    finally:
        gc.unfreeze()


__all__ = ["SCENARIOS", "Row", "Run", "measure", "run", "take_turns"]
