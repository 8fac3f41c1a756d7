"""Inline projections: in the append's own transaction, never with a hole."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from diptych.errors import ForeignCheckpoint, ProjectionFailed
from diptych.log import Append, Refused, StoredEvent
from diptych.logs.sqlite import SqliteLog, read_inside
from diptych.read.following.engine import Engine
from diptych.read.following.inline import Inline
from diptych.read.parking.steering import Steering
from diptych.read.projections import Keyed, fold_events, projection
from diptych.read.proving.rowcheck import verify_rows
from diptych.read.proving.verify import verify
from diptych.read.select import select
from diptych.read.stores.sqlite import SqliteViews
from diptych.sql.sqlite import Database
from tests.read.world import (
    Account,
    Moved,
    Order,
    Placed,
    account,
    all_recorded,
    append,
    both,
    codec,
    keyed,
    new_event,
    order,
    orders,
    placed,
)

pytestmark = pytest.mark.filterwarnings("ignore::diptych.errors.SqliteVersionWarning")


def inline_orders() -> Keyed:
    return projection(order, Order, inline=True)


def inline_accounts() -> Keyed:
    return projection(account, Account, key=both, inline=True)


class Shared:
    """Log and views in one database."""

    def __init__(self, path: Path, projections: list[Keyed], *, inline: bool = True) -> None:
        self.database = Database(path)
        self.projections = projections
        self.codec = codec()
        self.store = SqliteViews(self.database, owned=False)
        self.inline = inline
        self.log: SqliteLog
        self.engine: Engine

    def gap(self, connection: Any, after: int, until: int) -> list[StoredEvent]:
        assert isinstance(connection, sqlite3.Connection)
        return read_inside(connection, after, until)

    async def open(self) -> None:
        inside = Inline(
            self.codec,
            lambda: self.log.identity,
            self.projections,
            self.store.inside,
            self.gap,
        )
        self.log = await SqliteLog.open(self.database, inside=inside if self.inline else None)
        self.engine = Engine(self.log, self.codec, self.store, self.projections)
        await self.engine.open()

    async def close(self) -> None:
        await self.log.close()
        await self.database.close()

    async def check(self) -> None:
        records = await all_recorded(self.log)
        for one in self.projections:
            rows = (await self.store.all(select(one.view))).rows
            assert {one.definition.key_of(r): r for r in rows} == fold_events(one, records, {})
            position = (await self.store.checkpoints())[one.name][0].position
            assert position == await self.log.head()
        verdicts = await verify(self.log, self.codec, self.store, self.projections)
        assert all(v.ok for v in verdicts), verdicts


@asynccontextmanager
async def shared(path: Path, *projections: Keyed, inline: bool = True) -> AsyncGenerator[Shared]:
    found = Shared(path, list(projections), inline=inline)
    await found.open()
    try:
        yield found
    finally:
        await found.close()


async def test_an_inline_view_is_current_when_the_append_returns(tmp_path: Path) -> None:
    async with shared(tmp_path / "a.db", inline_orders(), inline_accounts()) as app:
        for n in range(30):
            await append(app.log, *placed(n), Moved("a", f"k{n % 3}", n))
            found = (await app.store.get(Order, f"o{n}")).rows
            assert found == [Order(f"o{n}", "ada", Decimal(n) / 100, "placed")]
        await app.check()


async def test_what_cannot_be_folded_is_not_appended(tmp_path: Path) -> None:
    def picky(row: Order | None, event: Placed) -> Order | None:
        if event.customer == "bad":
            raise ValueError("no")
        return Order(event.order, event.customer, event.total, "placed")

    async with shared(tmp_path / "a.db", projection(picky, Order, inline=True)) as app:
        await append(app.log, *placed(1))
        batch = [
            Append(tuple(new_event(e) for e in placed(n, customer=c)))
            for n, c in ((2, "ada"), (3, "bad"), (4, "ada"))
        ]
        outcomes = await app.log.append(batch)
        refused = [o for o in outcomes if isinstance(o, Refused)]
        assert [o.reason for o in refused] == ["failed"]
        assert isinstance(refused[0].error, ProjectionFailed)
        await app.check()
        assert sorted(keyed((await app.store.all(select(Order))).rows, "order")) == [
            "o1", "o2", "o4",
        ]  # fmt: skip


async def test_events_of_a_process_without_it_are_folded_first(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with shared(path, inline_accounts()) as app:
        await append(app.log, Moved("a", "b", 1))
        other = await SqliteLog.open(path)
        for first in range(0, 2500, 100):
            events = [new_event(Moved("a", f"k{n % 5}", n)) for n in range(first, first + 100)]
            await other.append([Append((event,)) for event in events])
        await other.close()
        await append(app.log, Moved("a", "b", 1))
        await app.check()


async def test_a_new_inline_projection_is_caught_up_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with shared(path, inline_accounts(), inline=False) as app:
        await append(app.log, *[Moved("a", "b", n) for n in range(50)])
    async with shared(path, inline_accounts(), inline_orders()) as app:
        await app.engine.catch_up()
        await append(app.log, *placed(1), Moved("a", "b", 1))
        await app.check()


async def test_a_gap_that_cannot_be_read_is_never_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with shared(path, inline_accounts()) as app:
        await append(app.log, Moved("a", "b", 1))
        other = await SqliteLog.open(path)
        await append(other, Moved("a", "b", 2), Moved("a", "b", 3))
        await other.close()
        app.gap = lambda connection, after, until: read_inside(connection, after + 1, until)  # type: ignore[method-assign]
        inline = Inline(app.codec, app.log.identity, app.projections, app.store.inside, app.gap)

        def job(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            try:
                event = msgspec.structs.replace(read_inside(connection, 2, 3)[0], position=4)
                inline(connection, [event])
            finally:
                connection.execute("ROLLBACK")

        with pytest.raises(ForeignCheckpoint, match="has yet to apply"):
            await app.database.write(job)


async def test_without_a_checkpoint_nothing_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with shared(path, inline_orders()) as app:
        await append(app.log, *placed(1))
        await app.database.write(lambda c: c.execute("DELETE FROM diptych_checkpoints"))
        [outcome] = await app.log.append([Append((new_event(placed(2)[0]),))])
        assert isinstance(outcome, Refused)
        assert isinstance(outcome.error, ForeignCheckpoint)
        assert await app.log.head() == 1


async def test_inline_and_async_projections_live_side_by_side(tmp_path: Path) -> None:
    async with shared(tmp_path / "a.db", inline_accounts(), orders()) as app:
        await app.engine.start()
        for n in range(20):
            await append(app.log, *placed(n), Moved("a", "b", n))
        await app.engine.catch_up()
        await app.engine.stop()
        await app.check()


async def test_rows_changed_by_hand_are_made_anew_while_commands_come(tmp_path: Path) -> None:
    """As the finding's remedy says."""
    async with shared(tmp_path / "a.db", inline_orders(), inline_accounts()) as app:
        for n in range(30):
            await append(app.log, *placed(n), Moved("a", f"k{n % 3}", n))
        with sqlite3.connect(tmp_path / "a.db") as database:
            where = "WHERE \"order\" IN ('o1', 'o2')"
            database.execute(f"UPDATE \"order\" SET customer = 'eve' {where}")
        database.close()
        steering = Steering(app.log, app.codec, [app.engine])
        found = await verify_rows(app.log, app.codec, app.store, app.projections[0])
        assert (found.differing, "rewind order`" in found.remedy) == (2, True)

        async def more() -> None:
            for n in range(30, 60):
                await append(app.log, *placed(n))

        done, _ = await asyncio.gather(steering.rewind("order"), more())
        assert (done.position, done.before >= 60) == (0, True)
        await app.engine.catch_up()
        await app.check()
        assert (await verify_rows(app.log, app.codec, app.store, app.projections[0])).ok


async def test_an_inline_projection_whose_fold_fails_is_not_put_back(tmp_path: Path) -> None:
    """Every command would be refused."""

    def picky(row: Order | None, event: Placed) -> Order | None:
        if event.order == "o3":
            raise ValueError("no")
        return order(row, event)

    path = tmp_path / "a.db"
    async with shared(path, inline_orders()) as app:
        await append(app.log, *placed(*range(9)))
    async with shared(path, projection(picky, Order, name="order", inline=True)) as app:
        before = await app.store.checkpoints()
        with pytest.raises(ProjectionFailed, match="fails on an event") as told:
            await Steering(app.log, app.codec, [app.engine]).rewind("order")
        assert told.value.facts["position"] == 4
        assert await app.store.checkpoints() == before
        await append(app.log, *placed(9))
        assert (await app.store.get(Order, "o9")).rows


async def test_a_checkpoint_that_was_changed_by_hand_is_named_and_rewound(tmp_path: Path) -> None:
    async with shared(tmp_path / "a.db", inline_orders()) as app:
        await append(app.log, *placed(1, 2))
        damage = "UPDATE diptych_checkpoints SET digest = 'zz'"
        await app.database.write(lambda connection: connection.execute(damage).fetchall())
        (outcome,) = await app.log.append([Append((new_event(placed(3)[0]),))])
        assert isinstance(outcome, Refused)
        assert "changed by hand" in str(outcome.error)
        await Steering(app.log, app.codec, [app.engine]).rewind("order")
        await append(app.log, *placed(3))
        (verdict,) = await verify(app.log, app.codec, app.store, app.projections)
        assert (verdict.ok, verdict.count) == (True, 3)
