"""The runs, in their quick size. Campaigns are unlimited: ``make torture``."""

from collections.abc import Callable
from pathlib import Path

import pytest

from torture.backends import Sqlite
from torture.power.vfs import Unusable, shim
from torture.runs import RUNS, one_round

SEED = 2026

QUICK = {"histories": 200, "races": 67, "processes": 6, "kill": 20, "power": 25, "disk_full": 3}
"""Rounds. One of races has 3 races, one of kill 2 kills, one of power 20 power cuts."""


def backends() -> list[Callable[[Path], Sqlite]]:
    """What the runs are done on."""
    return [Sqlite]


@pytest.mark.parametrize("backend", backends(), ids=lambda made: made.name)
@pytest.mark.parametrize("name", QUICK)
async def test_a_run_finds_nothing(name: str, backend: Callable[[Path], Sqlite]) -> None:
    """No violation, in any round."""
    if name == "power":
        try:
            shim()
        except Unusable as error:
            pytest.skip(f"no VFS of ours in this Python: {error}")
    for number in range(QUICK[name]):
        found = await one_round(RUNS[name], backend, SEED, number)
        assert not found, f"python -m torture --run {name} --seed {SEED}, round {number}"


def test_every_run_has_a_quick_size() -> None:
    assert QUICK.keys() == RUNS.keys()
