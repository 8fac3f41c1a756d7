"""The checker finds bugs of readers, views, answers and commands: each test plants one."""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from diptych import DiptychError, Running
from diptych.log import Append, Appended, Outcome, Page, Refused
from diptych.logs.memory import MemoryLog
from diptych.logs.sqlite import reading
from diptych.read.following import follower
from diptych.read.port import Found
from diptych.read.queries import Views
from diptych.read.stores.sqlite import SqliteViews, rows
from diptych.sql.sqlite import transaction
from diptych.testing.checker import Violation, check_history, check_views
from diptych.testing.history import History
from diptych.testing.recording import AppRecorder
from tests.checker.planting import finds, finds_on_sqlite, points
from torture.application import BalanceOf, Move, Open, accounts
from torture.clients import event

# --- pages ----------------------------------------------------------------------------------------


async def test_a_watermark_read_last() -> None:
    """Bug: what was appended between the page and the watermark is skipped."""

    class WatermarkLast(MemoryLog):
        async def read(self, *args: Any, **options: Any) -> Page:
            page = await super().read(*args, **options)
            await asyncio.sleep(0)
            if len(page.events) < options.get("limit", 1000) and options.get("until") is None:
                return Page(page.events, upto=max(page.upto, await self.head()))
            return page

    assert await finds(8, WatermarkLast)


async def test_a_missing_order_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: pages are in whatever order the database finds convenient."""
    monkeypatch.setattr(reading, "_position", lambda event: event.id[::-1])
    assert await finds_on_sqlite(8, tmp_path)


async def test_positions_that_become_visible_out_of_order() -> None:
    """Bug: the newest event is visible before the one below it."""

    class OutOfOrder(MemoryLog):
        async def read(self, *args: Any, **options: Any) -> Page:
            page = await super().read(*args, **options)
            hidden = len(self._events) - 1
            if len(self._events) % 5 == 4:
                return Page([e for e in page.events if e.position != hidden], page.upto)
            return page

    assert await finds(8, OutOfOrder)


async def test_a_filter_that_lets_too_much_through() -> None:
    """Bug: of several tags one is enough."""

    class AnyTag(MemoryLog):
        async def read(self, query: Any = None, **options: Any) -> Page:
            if query is not None:
                items = [replace(i, tags=frozenset(sorted(i.tags)[:1])) for i in query.items]
                query = replace(query, items=tuple(items))
            return await super().read(*([] if query is None else [query]), **options)

    assert await finds(8, AnyTag)


async def test_a_reader_that_skips() -> None:
    """Bug: a subscriber goes on from the head, not from where it was."""
    history, log = History(), MemoryLog()
    recorded = [await log.read(after=0)]
    for _ in range(3):
        await log.append([Append((event(random.Random(1)),))])
        recorded.append(await log.read(after=await log.head() - 1))
    history.saw("relay", recorded[1].events, after=0, upto=1)
    assert await check_history(history, log, alone=False) == []
    history.saw("relay", recorded[3].events, after=2, upto=3)
    assert points(await check_history(history, log, alone=False)) == {8}


# --- views ----------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(folder: Path, *, projections: bool = False) -> AsyncGenerator[Running]:
    log, views = f"sqlite:///{folder}/log.db", f"sqlite:///{folder}/views.db"
    async with accounts().open(log=log, views=views, projections=projections) as running:
        yield running


async def work(running: Running, seed: int, commands: int = 12) -> None:
    rng = random.Random(seed)
    for number in range(4):
        with suppress(DiptychError):
            await running.do(Open(f"a{number}"))
    for _ in range(commands):
        source, target = rng.sample(range(4), 2)
        await running.do(Move(f"a{source}", f"a{target}", rng.randint(1, 20)))


async def test_sound_views(tmp_path: Path) -> None:
    """Nothing is found on views without a bug, before they are built and after."""
    async with opened(tmp_path) as running:
        await work(running, 1)
        assert await check_views(running) == []
        await running.catch_up()
        assert await check_views(running) == []


async def test_a_checkpoint_that_is_a_position_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: after a restore the log has gone on differently, and the views go on upon it."""

    async def trust(*_: object) -> None:
        """Believe any checkpoint."""

    async with opened(tmp_path) as running:
        await work(running, 1)
    shutil.copy(tmp_path / "log.db", tmp_path / "backup.db")
    async with opened(tmp_path) as running:
        await work(running, 2)
        await running.catch_up()
    shutil.copy(tmp_path / "backup.db", tmp_path / "log.db")
    with monkeypatch.context() as planted:
        planted.setattr(follower, "refuse_foreign", trust)
        async with opened(tmp_path) as running:
            await work(running, 3, 30)
            await running.catch_up()
    async with opened(tmp_path) as running:
        assert points(await check_views(running)) == {9}


async def test_a_checkpoint_before_its_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the checkpoint is committed first, and the process dies before the rows are."""

    def checkpoint_only(connection: sqlite3.Connection, change: Any, _values: Any) -> bool:
        return rows.move(connection, change)

    async with opened(tmp_path) as running:
        await work(running, 1)
        with monkeypatch.context() as planted:
            planted.setattr("diptych.read.stores.sqlite.apply_prepared", checkpoint_only)
            await running.catch_up()
    async with opened(tmp_path) as running:
        await work(running, 2)
        await running.catch_up()
        assert points(await check_views(running)) == {9}


async def test_an_effect_before_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the rows are committed first, and the process dies before the checkpoint is."""

    async def rows_only(store: SqliteViews, changes: Sequence[Any]) -> list[bool]:
        def job(connection: sqlite3.Connection) -> list[bool]:
            with transaction(connection):
                for change in changes:
                    for of, put, _ in store.prepared(change):
                        of.put(connection, put)
            raise sqlite3.OperationalError("killed")

        return await store.database.write(job)

    async with opened(tmp_path) as running:
        await work(running, 1)
        with monkeypatch.context() as planted:
            planted.setattr(SqliteViews, "apply", rows_only)
            with pytest.raises(DiptychError):
                await running.catch_up()
        await running.catch_up()
        assert points(await check_views(running)) == {9}


async def test_an_unfenced_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: two workers move one checkpoint, and neither looks whether it has moved."""
    unfenced = rows.SQL["move"].partition(" AND slices = ?")[0]

    def move(connection: sqlite3.Connection, change: Any) -> bool:
        after, before = change.after, change.before
        connection.execute(
            unfenced,
            (
                after.position,
                after.event_id,
                after.count,
                f"{after.digest:032x}",
                None if after.time is None else after.time.isoformat(),
                after.tallies,
                after.revision,
                before.projection,
                before.slice,
            ),
        )
        for number, tally in change.blocks.items():
            values = (before.projection, 0, number, tally.count, f"{tally.digest:032x}")
            connection.execute(rows.SQL["put_block"], values)
        return True

    async with opened(tmp_path) as one, opened(tmp_path) as other:
        await work(one, 1)
        await one.catch_up()
        await other.catch_up()
        await work(one, 2)
        with monkeypatch.context() as planted:
            planted.setattr(rows, "move", move)
            changes: list[Any] = []
            apply = SqliteViews.apply

            async def late(store: SqliteViews, given: Sequence[Any]) -> list[bool]:
                changes.append((store, given))  # paused before its transaction
                return [True] * len(given)

            planted.setattr(SqliteViews, "apply", late)
            await other.catch_up()
            planted.setattr(SqliteViews, "apply", apply)
            await one.catch_up()
            await work(one, 3)
            await one.catch_up()
            for store, given in changes:
                await apply(store, given)
        assert points(await check_views(one)) == {9}


# --- answers --------------------------------------------------------------------------------------


async def asked(folder: Path, bug: pytest.MonkeyPatch) -> tuple[set[int], set[int]]:
    """Ask for what commands did, with their tokens, on a bug; check by positions, and by values."""
    history = History()
    async with opened(folder, projections=True) as running:
        app = AppRecorder(running, history)
        for number in range(4):
            await app.do(Open(f"a{number}"))
        for number in range(20):
            receipt = await app.do(Move(f"a{number % 4}", f"a{(number + 1) % 4}", number + 1))
            await app.ask(BalanceOf(f"a{number % 4}"), after=receipt.token)
        bug.undo()
        await running.catch_up()
        by_value = await check_views(running, history, answers=[BalanceOf])
        return points(await check_history(history, running.log)), points(by_value)


async def at_once(views: Any, _engine: Any, names: set[str], read: Any) -> Found:
    """Wait for nothing."""
    found: Found = await read()
    views._note(names, found.positions)
    return found


async def test_sound_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found on answers without a bug."""
    assert await asked(tmp_path, monkeypatch) == (set(), set())


async def test_an_answer_before_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the query does not wait for its token."""
    monkeypatch.setattr(Views, "_fresh", at_once)
    assert await asked(tmp_path, monkeypatch) == ({10}, set())


async def test_an_answer_that_claims_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the query does not wait, and says that it had reached the token."""

    def claim(views: Views, _names: set[str], _positions: dict[str, int]) -> None:
        views.as_of = views._position

    monkeypatch.setattr(Views, "_note", claim)
    monkeypatch.setattr(Views, "_fresh", at_once)
    assert await asked(tmp_path, monkeypatch) == (set(), {10})


# --- commands -------------------------------------------------------------------------------------


async def done(monkeypatch: pytest.MonkeyPatch, append: Any) -> list[Violation]:
    """Do commands on a log in memory with an ``append`` that bears a bug."""
    monkeypatch.setattr(MemoryLog, "append", append)
    history = History()
    async with accounts().open(log="memory:", views="memory:", projections=False) as running:
        app = AppRecorder(running, history)
        for number in range(12):
            with suppress(DiptychError):
                await app.do(Open(f"a{number}"), key=f"key-{number}")
            with suppress(DiptychError):
                await app.do(Open(f"a{number}"), key=f"key-{number}")
        return await check_history(history, running.log)


_append = MemoryLog.append


async def test_sound_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found on commands without a bug."""
    assert await done(monkeypatch, _append) == []


async def test_a_command_acknowledged_and_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the answer is given before the append, which then is not made."""

    async def early(log: MemoryLog, batch: Sequence[Append]) -> list[Outcome]:
        if len(log._events) == 3:
            return [Appended(4, 4) for _ in batch]
        return await _append(log, batch)

    assert 1 in points(await done(monkeypatch, early))


async def test_a_command_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the append is made again after a lost answer, with new ids and without its key."""

    async def twice(log: MemoryLog, batch: Sequence[Append]) -> list[Outcome]:
        outcomes = await _append(log, batch)
        again = [
            replace(append, key=None, conditions=(), rejection=None)
            for append in batch
            if append.events
        ]
        await _append(log, again)
        return outcomes

    assert points(await done(monkeypatch, twice)) & {1, 4}


async def test_a_command_that_failed_and_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a conflict is answered to a command that was stored."""

    async def refusing(log: MemoryLog, batch: Sequence[Append]) -> list[Outcome]:
        outcomes = await _append(log, batch)
        return [
            Refused("failed", error=ValueError("lost")) if len(log._events) == 2 else outcome
            for outcome in outcomes
        ]

    assert 3 in points(await done(monkeypatch, refusing))
