"""The runs, in their quick size. Campaigns are unlimited: ``make torture``."""

from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from diptych.testing.servers import postgres
from torture.backends import Backend, Postgres, Sqlite
from torture.power.vfs import Unusable, shim
from torture.runs import POSTGRESQL, RUNS, SQLITE, Run, one_round

SEED = 2026

QUICK = {
    ("histories", SQLITE): 200,
    ("histories", POSTGRESQL): 40,
    ("races", SQLITE): 67,
    ("races", POSTGRESQL): 34,
    ("processes", SQLITE): 6,
    ("processes", POSTGRESQL): 3,
    ("kill", SQLITE): 20,
    ("kill", POSTGRESQL): 6,
    ("pauses", SQLITE): 2,
    ("pauses", POSTGRESQL): 2,
    ("clocks", SQLITE): 2,
    ("clocks", POSTGRESQL): 2,
    ("soak", SQLITE): 1,
    ("soak", POSTGRESQL): 1,
    ("rebuilds", SQLITE): 2,
    ("rebuilds", POSTGRESQL): 2,
    ("retries", SQLITE): 3,
    ("retries", POSTGRESQL): 3,
    ("power", SQLITE): 25,
    ("disk_full", SQLITE): 3,
    ("cuts", POSTGRESQL): 20,
    ("server", POSTGRESQL): 10,
    ("failover", POSTGRESQL): 3,
    ("interleavings", POSTGRESQL): 14,
}
"""Rounds. One of races has 3 races, one of kill and of rebuilds 2 kills, one of retries 3, one
of pauses 3 pauses, one of clocks 5 jumps, one of soak 12 laps, one of power 20 power cuts, one of
cuts 20 cuts, one of interleavings 66 of them. Three of failover are its three kinds."""


@pytest.fixture
def make(
    name: str, backend: str, request: pytest.FixtureRequest
) -> Generator[Callable[[Path], Backend]]:
    """Give what makes the backend in a folder."""
    if name == "power":
        try:
            shim()
        except Unusable as error:
            pytest.skip(f"no VFS of ours in this Python: {error}")
    if backend == SQLITE:
        yield Sqlite
    elif name == "server":
        with postgres(durable=True) as crashing:
            yield Postgres(crashing).within
    else:
        yield Postgres(request.getfixturevalue("postgres_server")).within


@pytest.mark.parametrize(("name", "backend"), QUICK)
async def test_a_run_finds_nothing(
    name: str, backend: str, make: Callable[[Path], Backend]
) -> None:
    """No violation, in any round."""
    for number in range(QUICK[name, backend]):
        found = await one_round(RUNS[name], make, SEED, number)
        again = f"python -m torture --run {name} --backend {backend} --seed {SEED}, round {number}"
        assert not found, again


async def test_a_run_that_can_last_does_so_when_it_is_told_for_how_long() -> None:
    """A soak of many rounds would begin anew with each."""

    async def asked(*_: object) -> list[str]:
        return ["a round"]

    async def lasting(_: object, __: object, seconds: float) -> list[str]:
        return [f"{seconds} s"]

    for run, seconds, found in (
        (Run(asked, "rounds", lasting=lasting), 9000.0, "9000.0 s"),
        (Run(asked, "rounds", lasting=lasting), 0.0, "a round"),
        (Run(asked, "rounds"), 9000.0, "a round"),
    ):
        assert await one_round(run, Sqlite, SEED, 0, seconds) == [found]


def test_every_run_has_a_quick_size() -> None:
    assert set(QUICK) == {(name, backend) for name, run in RUNS.items() for backend in run.backends}
