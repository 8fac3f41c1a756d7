"""Several processes on one SQLite file: conditions and order hold, and nothing is lost."""

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from diptych.logs.sqlite import SqliteLog
from diptych.testing.contracts.making import everything, fill, only, positions, put, refused
from tests.house.paths import ROOT

LONG = 60.0


@contextmanager
def worker(*arguments: object) -> Generator[subprocess.Popen[str], None, None]:
    """Run a worker; kill it in the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.logs.worker", *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the worker has died"
    return json.loads(line)


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


async def test_of_two_processes_exactly_one_wins_each_seat(tmp_path: Path) -> None:
    """Two processes race for 400 seats: each is taken once, and positions have no hole."""
    path, rounds = tmp_path / "log.db", 400
    await (await SqliteLog.open(path)).close()
    with worker("race", path, rounds) as one, worker("race", path, rounds) as other:
        assert (said(one), said(other)) == ("ready", "ready")
        start(one)
        start(other)
        wins, others = said(one), said(other)
    assert not set(wins) & set(others)
    assert set(wins) | set(others) == {str(n) for n in range(rounds)}
    log = await SqliteLog.open(path)
    stored = await everything(log)
    await log.close()
    assert [e.position for e in stored] == list(range(1, rounds + 1))
    by_tag = {e.tags[0].removeprefix("seat:"): e.position for e in stored}
    assert by_tag == wins | others


async def test_what_others_append_is_minded(tmp_path: Path) -> None:
    """A log that has appended sees, in its conditions, what another one appended since."""
    ours = await SqliteLog.open(tmp_path / "log.db", remembered=50)
    theirs = await SqliteLog.open(tmp_path / "log.db")
    await fill(ours, 3, "Moved", "a:1")
    for by_them in (1, 10, 49, 60, 200):  # few are read into memory, many are not
        before = await ours.head()
        await fill(theirs, by_them, "Moved", "b:1")
        assert (
            refused(await put(ours, conditions=(only("b:1", after=before),))).position == before + 1
        )
        assert refused(await put(ours, conditions=(only("b:1", after=before + by_them - 1),)))
        await put(ours, conditions=(only("b:1", after=before + by_them),))
        await fill(ours, 1, "Moved", "a:1")
        assert refused(await put(theirs, conditions=(only("a:1", after=before),)))
    assert await positions(ours) == list(range(1, await theirs.head() + 1))
    await ours.close()
    await theirs.close()


async def test_those_who_open_a_new_file_together_share_one_log(tmp_path: Path) -> None:
    """Six processes that open a file which is not there yet find one identity."""
    path = tmp_path / "log.db"
    with (
        worker("identity", path) as a,
        worker("identity", path) as b,
        worker("identity", path) as c,
        worker("identity", path) as d,
        worker("identity", path) as e,
        worker("identity", path) as f,
    ):
        assert len({said(process) for process in (a, b, c, d, e, f)}) == 1


async def test_another_process_wakes_a_waiter(tmp_path: Path) -> None:
    """A wait ends when another process has appended."""
    log = await SqliteLog.open(tmp_path / "log.db", poll=0.01)
    with worker("once", tmp_path / "log.db"):
        assert await log.wait(0, timeout=LONG) == 1
    await log.close()


@pytest.mark.parametrize("acknowledged", [1, 40, 150])
async def test_what_was_acknowledged_survives_kill(tmp_path: Path, acknowledged: int) -> None:
    """After kill -9 of a writing process every acknowledged append is there, and none is torn."""
    path = tmp_path / "log.db"
    ids: list[str] = []
    for _ in range(2):
        with worker("fill", path) as process:
            for _ in range(acknowledged):
                ids += said(process)
            process.kill()
            assert process.stdout is not None
            for line in process.stdout:  # what it had said before it died
                if line.endswith("]\n"):
                    ids += json.loads(line)
    log = await SqliteLog.open(path)
    stored = await everything(log)
    assert [e.position for e in stored] == list(range(1, len(stored) + 1))
    assert set(ids) <= {e.id for e in stored}
    assert all(one.tags != two.tags for one, two in zip(stored[::2], stored[1::2], strict=True))
    for one, two in zip(stored[::2], stored[1::2], strict=True):
        answer = (await log.recall([one.id]))[one.id]
        assert (answer.first, answer.last) == (one.position, two.position)
    await log.close()


def test_a_forked_process_is_refused(tmp_path: Path) -> None:
    """A log that was opened before a fork is refused in the child, and works on in the parent."""
    with worker("fork", tmp_path / "log.db") as process:
        assert [said(process) for _ in range(4)] == ["log-unusable"] * 4
        assert said(process) == 1
