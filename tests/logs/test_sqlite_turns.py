"""The event loop stands still while the writing thread needs the interpreter, and no longer."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from diptych.log import Append, Appended, NewEvent, Outcome
from diptych.logs.sqlite import SqliteLog
from diptych.messages import new_id
from diptych.sql import turns
from diptych.sql.gathering import settle

FOR_EVER = 60.0


@pytest.fixture
async def log(tmp_path: Path) -> AsyncGenerator[SqliteLog]:
    """A log in a file of its own."""
    log = await SqliteLog.open(tmp_path / "log.db")
    yield log
    await log.close()


def batch(count: int = turns.LEAST) -> list[Append]:
    return [
        Append((NewEvent(new_id(), "Moved", (f"a:{n}",), b'{"n":1}', b"{}"),)) for n in range(count)
    ]


def begin(log: SqliteLog, appends: Sequence[Append]) -> asyncio.Future[list[Outcome]]:
    answer: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
    log.begin_append(appends, partial(settle, answer))
    return answer


def traced(log: SqliteLog, on: Any) -> None:
    log._database._writer.connection.set_trace_callback(on)


async def test_a_large_batch_is_inserted_before_the_loop_goes_on(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SECONDS", FOR_EVER)
    statements: list[str] = []
    traced(log, statements.append)

    answer = begin(log, batch())

    assert any(one.startswith("INSERT INTO events") for one in statements)
    assert all(isinstance(one, Appended) for one in await answer)


async def test_the_loop_goes_on_while_a_large_batch_is_committed(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SECONDS", FOR_EVER)
    gone_on = threading.Event()
    beside: list[bool] = []
    traced(log, lambda sql: beside.append(gone_on.wait(10)) if sql == "COMMIT" else None)

    answer = begin(log, batch())
    gone_on.set()

    assert all(isinstance(one, Appended) for one in await answer)
    assert beside == [True]


async def test_the_loop_goes_on_while_another_process_holds_the_lock(
    log: SqliteLog, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    answer = begin(log, batch())
    other.execute("ROLLBACK")  # the loop's own thread does it: it has gone on
    other.close()

    assert all(isinstance(one, Appended) for one in await answer)


async def test_the_loop_goes_on_while_the_thread_does_something_else(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SECONDS", FOR_EVER)
    gone_on = threading.Event()
    busy = log._database.write(lambda _: gone_on.wait(10))

    answer = begin(log, batch())
    gone_on.set()

    assert await busy
    assert all(isinstance(one, Appended) for one in await answer)
    assert not log._database.is_writing


async def test_a_batch_that_fails_lets_the_loop_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over: list[bool] = []
    monkeypatch.setattr(
        turns.Turn, "wait", lambda turn: over.append(turn._lock.acquire(timeout=10))
    )

    def inside(connection: Any, stored: Any) -> None:
        raise OSError("planted")

    log = await SqliteLog.open(tmp_path / "inside.db", inside=inside)
    outcomes = await begin(log, batch())
    assert {getattr(one, "reason", "") for one in outcomes} == {"failed"}
    assert over == [True]
    await log.close()
