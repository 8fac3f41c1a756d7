"""Bugs for the workers of the runs: each function plants one in its process."""

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from diptych import Running
from diptych.log import Append, Appended, Outcome
from diptych.logs.postgres import PostgresLog
from diptych.logs.sqlite import SqliteLog
from diptych.messages import new_id
from diptych.read import status
from diptych.read.following import engine
from diptych.read.parking.retrying import Retry, _span_of
from diptych.read.presence import Presence, Sight
from diptych.read.stores.sqlite import SqliteViews, rows
from diptych.sql.gathering import Done
from diptych.sql.judge import Judge
from diptych.sql.sqlite import transaction
from torture.clocks import jumping
from torture.pauses import hasty

_plant = pytest.MonkeyPatch()


def unchecked_conditions() -> None:
    """Look at no condition."""
    _plant.setattr(Judge, "_check", lambda *_: None)


def early_answers() -> None:
    """Answer appends before they are committed."""
    begin = SqliteLog.begin_append

    def early(log: SqliteLog, batch: Sequence[Append], done: Done[list[Outcome]]) -> None:
        head = log._head()
        outcomes: list[Outcome] = []
        for one in batch:
            first = head + 1 if one.events else 0
            head += len(one.events)
            outcomes.append(Appended(first, head, rejection=one.rejection))
        begin(log, batch, lambda *_: None)
        asyncio.get_running_loop().call_soon(done, outcomes, None)

    _plant.setattr(SqliteLog, "begin_append", early)


def rows_before_checkpoint() -> None:
    """Commit rows and checkpoint apart, so that a kill may come in between."""

    async def apart(store: SqliteViews, changes: Sequence[Any]) -> list[bool]:
        prepared = [store.prepared(change) for change in changes]

        def put(connection: Any) -> None:
            with transaction(connection):
                for values in prepared:
                    for of, put, gone in values:
                        of.remove(connection, gone)
                        of.put(connection, put)

        def move(connection: Any) -> list[bool]:
            with transaction(connection):
                return [rows.move(connection, change) for change in changes]

        await store.database.write(put)
        await asyncio.sleep(0.02)
        return await store.database.write(move)

    _plant.setattr(SqliteViews, "apply", apart)


SLICES = "SELECT slices FROM diptych_checkpoints WHERE projection = ? AND slice = ?"


def unfenced_checkpoint() -> None:
    """Move checkpoints without looking where they stand; with the short lease of the run."""
    hasty()
    apart = " AND slices = ?"

    def move(connection: Any, change: Any) -> bool:
        before, after = change.before, change.after
        statement = rows.SQL["move"].partition(apart)[0]
        values = (after.position, after.event_id, after.count, f"{after.digest:032x}", None)
        given = (after.tallies, after.revision, before.projection, before.slice)
        connection.execute(statement, (*values, *given))
        for number, tally in change.blocks.items():
            block = (after.projection, after.slice, number, tally.count, f"{tally.digest:032x}")
            connection.execute(rows.SQL["put_block"], block)
        return True

    _plant.setattr(rows, "move", move)


def parked_after_rows() -> None:
    """Commit what a retry has applied, and that it is no longer parked, apart."""
    apply, change = Retry._apply, Retry._change

    async def apart(retry: Retry, span: Any, folded: Any) -> bool:
        async def without(*given: Any, unparked: object) -> Any:
            return await change(retry, *given)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(retry, "_change", without)
            if not await apply(retry, span, folded):
                return False
        places = tuple(parked.place for parked, _ in folded.done)
        span = _span_of(await retry._spans(), places[0][2])
        await retry._store.apply([await change(retry, span, [], (), (), places)])
        return True

    _plant.setattr(Retry, "_apply", apart)


def stamps_believed(plant: pytest.MonkeyPatch | None = None) -> None:
    """Tell who is there by what the clock of the day says of their stamps."""

    def judged(_: Presence, rows: Iterable[Sight], lease: float) -> Any:
        rows = list(rows)
        there = [row.worker for row in rows if row.age < lease]
        return there, [row.worker for row in rows if row.age >= lease]

    _jumping(plant).setattr(Presence, "judged", judged)


def rests_by_the_day(plant: pytest.MonkeyPatch | None = None) -> None:
    """Rest, after a step that another has made, until the clock of the day says a time."""
    clock = SimpleNamespace(monotonic=lambda: time.time())
    _jumping(plant).setattr(engine, "time", clock)


def ages_as_they_come(plant: pytest.MonkeyPatch) -> None:
    """Take an age for the difference of two times, whatever clocks these are from."""
    plant.setattr(status, "_age", lambda at: time.time() - at.timestamp())


def leaks() -> None:
    """Keep one of everything, now and then: a task, a thread, a descriptor; and every key."""
    kept: list[object] = []
    keys: dict[str, list[str]] = {}
    do, calls = Running.do, itertools.count()

    async def leaking(running: Running, *given: Any, **named: Any) -> Any:
        keys[new_id()] = [new_id()]
        if next(calls) % 50 == 0:
            kept.append(asyncio.create_task(asyncio.Event().wait()))
            kept.append(os.open(os.devnull, os.O_RDONLY))
            thread = threading.Thread(target=threading.Event().wait, daemon=True)
            thread.start()
        return await do(running, *given, **named)

    _plant.setattr(Running, "do", leaking)


def connections_kept() -> None:
    """Open a connection for each application, and never close it."""
    kept: list[object] = []
    close = PostgresLog.close

    async def careless(log: PostgresLog) -> None:
        kept.append(await log._database.connect())
        await close(log)

    _plant.setattr(PostgresLog, "close", careless)


def _jumping(plant: pytest.MonkeyPatch | None) -> pytest.MonkeyPatch:
    """Plant in the process that runs the others, which has its clock, or in one of them."""
    if plant is None:
        jumping()
    return plant or _plant
