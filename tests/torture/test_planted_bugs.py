"""The runs find the bugs that they are there to find."""

import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from diptych.logs.sqlite import writing
from diptych.sql.judge import Judge
from diptych.sql.sqlite import Database
from diptych.testing.checker import Violation
from tests.torture import plants
from torture.backends import Sqlite
from torture.clocks import clocks
from torture.kill import kill
from torture.pauses import pauses
from torture.power import power
from torture.power.disk import Disk
from torture.power.vfs import Operation, Unusable, shim
from torture.processes import processes
from torture.races import races
from torture.retries import retries
from torture.soak import Sample, growths, soak


def points(found: list[Violation]) -> set[int]:
    return {violation.point for violation in found}


@pytest.fixture
def power_cuts() -> None:
    """Skip where a VFS of ours cannot be had."""
    try:
        shim()
    except Unusable as error:
        pytest.skip(f"no VFS of ours in this Python: {error}")


async def finds(
    point: int, run: Callable[[random.Random], Awaitable[list[Violation]]], rounds: int = 10
) -> bool:
    """Whether a run comes to break a point within some rounds; others may break before."""
    for number in range(rounds):
        if point in points(await run(random.Random(f"planted:{number}"))):
            return True
    return False


async def clocks_find(backend: Sqlite, text: str, *planted: str) -> bool:
    """Whether jumping clocks come to find something within some rounds."""
    for number in range(10):
        rng = random.Random(f"planted:{number}")
        found = await clocks(backend, rng, *planted, patience=3.0)
        if any(text in str(each) for each in found):
            return True
    return False


@pytest.mark.usefixtures("power_cuts")
@pytest.mark.parametrize("mode", ["OFF", "NORMAL"])
async def test_missing_fsync(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: commits are not synced. A kill cannot show that; a power cut does."""
    connect = Database._connect

    def careless(database: Database, *, writing: bool = False) -> object:
        connection = connect(database, writing=writing)
        if writing:
            connection.execute(f"PRAGMA synchronous = {mode}")
        return connection

    monkeypatch.setattr(Database, "_connect", careless)
    assert await finds(1, lambda rng: power(Sqlite(tmp_path), rng))


@pytest.mark.usefixtures("power_cuts")
async def test_an_answer_before_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the commit comes with the next append, after the answer."""
    append = writing.Writer.append

    def late(writer: writing.Writer, connection: object, batches: object) -> object:
        connection.execute("PRAGMA synchronous = OFF")  # type: ignore[attr-defined]
        try:
            return append(writer, connection, batches)  # type: ignore[arg-type]
        finally:
            connection.execute("PRAGMA synchronous = FULL")  # type: ignore[attr-defined]

    monkeypatch.setattr(writing.Writer, "append", late)
    assert await finds(1, lambda rng: power(Sqlite(tmp_path), rng))


async def test_races_find_unchecked_conditions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: conditions are not looked at, so all who race have won."""
    monkeypatch.setattr(Judge, "_check", lambda *_: None)
    assert await finds(6, lambda rng: races(Sqlite(tmp_path), rng))


@pytest.mark.parametrize(
    ("bug", "point"),
    [(plants.early_answers, 1), (plants.rows_before_checkpoint, 9)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_a_kill_finds(bug: object, point: int, tmp_path: Path) -> None:
    """Bugs that only the death of the process brings to light."""
    planted = f"tests.torture.plants:{getattr(bug, '__name__', '')}"
    assert await finds(point, lambda rng: kill(Sqlite(tmp_path), rng, planted))


async def test_processes_find_unchecked_conditions(tmp_path: Path) -> None:
    """Bug: conditions are not looked at, in other processes than the one that checks."""
    planted = "tests.torture.plants:unchecked_conditions"
    assert await finds(6, lambda rng: processes(Sqlite(tmp_path), rng, planted))


async def test_pauses_find_an_unfenced_checkpoint(tmp_path: Path) -> None:
    """Bug: a worker that wakes up goes on as if it were still the only one."""
    planted = "tests.torture.plants:unfenced_checkpoint"
    assert await finds(9, lambda rng: pauses(Sqlite(tmp_path), rng, planted), 60)


@pytest.mark.parametrize("bug", [plants.stamps_believed, plants.rests_by_the_day])
async def test_clocks_find_what_goes_by_the_clock_of_the_day(
    bug: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: who is dead, or how long one rests, is told by a clock that jumps."""
    bug(monkeypatch)
    planted = f"tests.torture.plants:{bug.__name__}"
    assert await clocks_find(Sqlite(tmp_path), "", planted)


async def test_clocks_find_an_age_below_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the age of what was written by a clock that was ahead is told as it comes."""
    plants.ages_as_they_come(monkeypatch)
    assert await clocks_find(Sqlite(tmp_path), "span is -")


async def test_a_soak_finds_what_is_kept(tmp_path: Path) -> None:
    """Bug: tasks, threads and descriptors are left behind, and a cache has no bound."""
    found = await soak(Sqlite(tmp_path), random.Random(1), "tests.torture.plants:leaks")
    grown = {text.partition(" grow on")[0] for text in found if " grow on" in text}
    assert {"tasks", "threads", "descriptors", "blocks"} <= grown
    assert any("_asyncio.Task" in text for text in found if text.startswith("objects"))


FLAT = Sample(0, 50_000_000, 200_000, 5, 3, 20, 4)


def laps(number: int, **growth: Callable[[int], float]) -> list[Sample]:
    """Samples of so many laps, of 200 commands each, in which some figures grow with the lap."""
    return [
        replace(
            FLAT,
            commands=200 * (lap + 1),
            **{name: getattr(FLAT, name) + int(grown(lap)) for name, grown in growth.items()},
        )
        for lap in range(number)
    ]


@pytest.mark.parametrize("number", [12, 13, 200])
@pytest.mark.parametrize(
    ("name", "lap"),
    [
        ("tasks", 1),
        ("threads", 1),
        ("descriptors", 1),
        ("connections", 1),
        ("memory", 5_000_000),
        ("blocks", 400),
    ],
)
def test_a_growth_is_found_when_it_goes_on(name: str, lap: int, number: int) -> None:
    """And not where it is a cache that has been filled, nor before the laps that count."""
    (found,) = growths(laps(number, **{name: lambda at: at * lap}))
    assert found.startswith(f"{name} grow on")
    full = number // 2
    assert growths(laps(number, **{name: lambda at: min(at, full) * lap})) == []
    assert growths(laps(number, **{name: lambda at: (at == number // 4 - 1) * lap * 99})) == []
    assert growths(laps(number, **{name: lambda at: at % 2 * lap})) == []


async def test_retries_find_what_is_applied_and_still_parked(tmp_path: Path) -> None:
    """Bug: that an effect is no longer parked is committed after it was applied."""
    planted = "tests.torture.plants:parked_after_rows"
    for number in range(10):
        rng = random.Random(f"planted:{number}")
        if any("not proved" in text for text in await retries(Sqlite(tmp_path), rng, planted)):
            return
    pytest.fail("it was not found")


# --- the model of the disk ------------------------------------------------------------------------


def left(disk: Disk) -> set[tuple[tuple[str, bytes], ...]]:
    return {tuple(sorted(disk.after_cut(random.Random(number)).items())) for number in range(400)}


def test_what_is_not_synced_may_be_lost_torn_or_there() -> None:
    """Every combination comes up: old, new, and sectors of both."""
    disk = Disk({"a": b"o" * 1024})
    disk.do([Operation("write", "a", 0, b"n" * 1024)])
    found = {content for files in left(disk) for _, content in files}
    old, new = b"o" * 512, b"n" * 512
    assert found == {old + old, new + new, old + new, new + old}


def test_what_is_synced_is_there() -> None:
    """After a sync there is one possibility."""
    disk = Disk({"a": b"old"})
    disk.do([Operation("write", "a", 1, b"--"), Operation("sync", "a")])
    assert left(disk) == {(("a", b"o--"),)}


def test_a_deleted_journal_may_come_back() -> None:
    """Until the folder is synced, by the first sync of a journal that was opened."""
    disk = Disk({"a-journal": b"x"})
    disk.do([Operation("delete", "a-journal")])
    assert left(disk) == {(), (("a-journal", b"x"),)}
    disk.do([Operation("open", "a-wal", 7), Operation("sync", "a-wal", 7)])
    assert left(disk) == {(("a-wal", b""),)}
