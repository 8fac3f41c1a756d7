"""The runs, in their quick size. Campaigns are unlimited: ``make torture``."""

from collections.abc import Callable
from pathlib import Path

import pytest

from diptych.testing.servers import PostgresServer, postgres
from torture.backends import Backend, Postgres, Sqlite
from torture.power.vfs import Unusable, shim
from torture.runs import POSTGRESQL, RUNS, SQLITE, one_round

SEED = 2026

QUICK = {
    ("histories", SQLITE): 200,
    ("histories", POSTGRESQL): 80,
    ("races", SQLITE): 67,
    ("races", POSTGRESQL): 67,
    ("processes", SQLITE): 6,
    ("processes", POSTGRESQL): 3,
    ("kill", SQLITE): 20,
    ("kill", POSTGRESQL): 6,
    ("power", SQLITE): 25,
    ("disk_full", SQLITE): 3,
    ("cuts", POSTGRESQL): 20,
    ("server", POSTGRESQL): 10,
    ("interleavings", POSTGRESQL): 14,
}
"""Rounds. One of races has 3 races, one of kill 2 kills, one of power 20 power cuts, one of cuts
20 cuts, one of interleavings 66 of them."""


async def nothing_is_found(name: str, make: Callable[[Path], Backend], backend: str) -> None:
    for number in range(QUICK[name, backend]):
        found = await one_round(RUNS[name], make, SEED, number)
        again = f"python -m torture --run {name} --backend {backend} --seed {SEED}, round {number}"
        assert not found, again


@pytest.mark.parametrize("name", [name for name, backend in QUICK if backend == SQLITE])
async def test_a_run_finds_nothing_on_sqlite(name: str) -> None:
    """No violation, in any round."""
    if name == "power":
        try:
            shim()
        except Unusable as error:
            pytest.skip(f"no VFS of ours in this Python: {error}")
    await nothing_is_found(name, Sqlite, SQLITE)


@pytest.mark.parametrize(
    "name", [name for name, backend in QUICK if backend == POSTGRESQL and name != "server"]
)
async def test_a_run_finds_nothing_on_postgresql(
    name: str, postgres_server: PostgresServer
) -> None:
    """No violation, in any round."""
    await nothing_is_found(name, Postgres(postgres_server).within, POSTGRESQL)


async def test_crashes_of_postgresql_lose_nothing() -> None:
    """No violation, whenever a durable server is killed."""
    with postgres(durable=True) as server:
        await nothing_is_found("server", Postgres(server).within, POSTGRESQL)


def test_every_run_has_a_quick_size() -> None:
    assert set(QUICK) == {(name, backend) for name, run in RUNS.items() for backend in run.backends}
