"""Inline projections on the event loop: within an append's transaction on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import count
from typing import Any, cast

import asyncpg
import pytest

from diptych.errors import ForeignCheckpoint, ProjectionFailed
from diptych.log import Append, Outcome, StoredEvent
from diptych.logs.memory import MemoryLog
from diptych.messages import Event
from diptych.read.following.engine import Engine
from diptych.read.following.inline import AsyncInline
from diptych.read.port import Change
from diptych.read.projections import Keyed, fold_events, projection
from diptych.read.proving.verify import verify
from diptych.read.select import select
from diptych.read.stores.postgres import PostgresViews
from diptych.sql.postgres import Connection, Database
from diptych.testing.servers import PostgresServer
from tests.read.world import (
    Account,
    Moved,
    Noted,
    Order,
    Placed,
    account,
    all_recorded,
    append,
    both,
    codec,
    order,
    orders,
    placed,
)

numbers = count(1)


def inline_orders() -> Keyed:
    return projection(order, Order, inline=True)


def inline_accounts() -> Keyed:
    return projection(account, Account, key=both, inline=True)


class Planted(Exception):
    """What an append is rolled back by."""


def rolled_back(inside: AsyncInline) -> Any:
    """Fold, and then fail."""

    async def fold(connection: Any, events: list[StoredEvent]) -> None:
        await inside(connection, events)
        raise Planted

    return fold


class Ledger(MemoryLog):
    """A log whose appends are transactions of PostgreSQL: before they commit, nobody sees them."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.inside: AsyncInline | None = None
        self._appending = asyncio.Lock()

    async def append(self, batch: Sequence[Append]) -> list[Outcome]:
        async with self._appending, self.database.lease() as connection:
            before = len(self._events)
            outcomes = await super().append(batch)
            new = self._events[before:]
            del self._events[before:]
            await connection.execute("BEGIN")
            try:
                if self.inside is not None:
                    await self.inside(connection, new)
                await connection.execute("COMMIT")
            except BaseException:
                await connection.execute("ROLLBACK")
                raise
            self._events += new
            return outcomes

    async def gap(self, connection: Connection, after: int, until: int) -> list[StoredEvent]:
        assert connection.is_in_transaction()
        return self._events[after:until]


class Shared:
    """Log and views in one database; ``joined`` is another process with the same projections."""

    def __init__(self, url: str, projections: Sequence[Keyed]) -> None:
        self.database = Database(url)
        self.store = PostgresViews(self.database, owned=False)
        self.log = Ledger(self.database)
        self.codec = codec()
        self.projections = list(projections)
        self.engine = Engine(self.log, self.codec, self.store, self.projections)

    def joined(self, cache_rows: int = 100) -> AsyncInline:
        return AsyncInline(
            self.codec,
            lambda: self.log.identity,
            self.projections,
            self.store.inside,
            self.log.gap,
            cache_rows=cache_rows,
        )

    async def check(self) -> None:
        records = await all_recorded(self.log)
        for one in self.projections:
            rows = (await self.store.all(select(one.view))).rows
            assert {one.definition.key_of(r): r for r in rows} == fold_events(one, records, {})
            position = (await self.store.checkpoints())[one.name][0].position
            assert position == await self.log.head()
        verdicts = await verify(self.log, self.codec, self.store, self.projections)
        assert all(v.ok for v in verdicts), verdicts


@pytest.fixture(scope="module")
def url(postgres_server: PostgresServer) -> str:
    """Give the URL of a database for these tests."""
    return postgres_server.new_database()


@asynccontextmanager
async def shared(url: str, *projections: Keyed) -> AsyncGenerator[Shared]:
    found = Shared(f"{url}?schema=i{next(numbers)}", projections)
    await found.engine.open()
    found.log.inside = found.joined()
    try:
        yield found
    finally:
        await found.database.close()


async def test_an_inline_view_is_current_when_the_append_returns(url: str) -> None:
    async with shared(url, inline_orders(), inline_accounts()) as app:
        for n in range(30):
            await append(app.log, *placed(n), Moved("a", f"k{n % 3}", n))
            found = (await app.store.get(Order, f"o{n}")).rows
            assert found == [Order(f"o{n}", "ada", Decimal(n) / 100, "placed")]
        await app.check()


async def test_processes_that_append_in_turn_do_not_trust_what_they_remember(url: str) -> None:
    async with shared(url, inline_accounts(), inline_orders()) as app:
        processes = [app.joined(cache) for cache in (100, 100, 1)]
        for n in range(90):
            app.log.inside = processes[n * n % 7 % 3]
            unused: list[Event] = [Noted("x")] * (n % 3)
            await append(app.log, Moved("a", f"k{n % 4}", n), *unused, *placed(n % 9))
        await app.check()


async def test_an_append_that_is_rolled_back_is_forgotten(url: str) -> None:
    """Whatever others append in its place, of as many events."""

    async with shared(url, inline_accounts()) as app:
        ours, theirs = app.joined(), app.joined()
        for n in range(20):
            app.log.inside = rolled_back(ours)
            with pytest.raises(Planted):
                await append(app.log, Moved("a", "b", 1000))
            app.log.inside = theirs if n % 2 else ours
            event: Event = Moved("a", "c", n) if n % 3 else Noted("x")
            await append(app.log, event)
            app.log.inside = ours
            await append(app.log, Moved("b", "c", n))
        await app.check()


async def test_what_cannot_be_folded_is_not_appended(url: str) -> None:
    def picky(row: Order | None, event: Placed) -> Order | None:
        if event.customer == "bad":
            raise ValueError("no")
        return Order(event.order, event.customer, event.total, "placed")

    async with shared(url, inline_accounts(), projection(picky, Order, inline=True)) as app:
        await append(app.log, *placed(1), Moved("a", "b", 1))
        for n in range(3):
            with pytest.raises(ProjectionFailed, match="the append did not take place"):
                await append(app.log, Moved("a", "b", 1), *placed(n, customer="bad"))
            await append(app.log, *placed(n + 10), Moved("a", "b", 1))
        await app.check()


async def test_a_fold_that_fails_on_remembered_rows_is_tried_on_those_of_the_database(
    url: str,
) -> None:
    def strict(row: Account | None, event: Moved) -> Account | None:
        moves = row.moves if row else 0
        if event.amount != moves:
            raise ValueError(f"{event.amount} after {moves}")
        return Account(event.source, 0, moves + 1)

    one = projection(strict, Account, key=lambda e: e.source, inline=True)
    async with shared(url, one) as app:
        ours, theirs = app.joined(), app.joined()
        app.log.inside = ours
        await append(app.log, Moved("a", "x", 0))
        app.log.inside = rolled_back(ours)
        with pytest.raises(Planted):
            await append(app.log, Moved("a", "x", 1))
        app.log.inside = theirs
        await append(app.log, Moved("b", "x", 0))
        app.log.inside = ours  # it stands at the right position, with another row of a
        await append(app.log, Moved("a", "x", 1))
        await app.check()


async def test_events_of_a_process_without_it_are_folded_first(url: str) -> None:
    async with shared(url, inline_accounts()) as app:
        await append(app.log, Moved("a", "b", 1))
        with_it, app.log.inside = app.log.inside, None
        await append(app.log, *[Moved("a", f"k{n % 5}", n) for n in range(2500)])
        app.log.inside = with_it
        await append(app.log, Moved("a", "b", 1))
        await app.check()


async def test_an_append_waits_for_an_engine_that_fills_the_gap(url: str) -> None:
    """It does not fail because the checkpoint was moved under its hands."""
    async with shared(url, inline_accounts()) as app:
        with_it, app.log.inside = app.log.inside, None
        await append(app.log, Moved("a", "b", 1))
        app.log.inside = with_it
        steps: list[Change] = []

        async def applied(changes: Sequence[Change]) -> list[bool]:
            steps.extend(changes)
            return [True for _ in changes]

        app.engine.spans.store = cast(Any, Instead(app.store, applied))
        await app.engine.catch_up()
        async with app.store.session() as engine:
            await engine.move(steps[0])
            for row in steps[0].writes[0].rows:
                await engine.put(row)
            appending = asyncio.create_task(append(app.log, Moved("a", "b", 2)))
            while not await app.database.run(lambda c: c.fetch(WAITING)):
                await asyncio.sleep(0)
            assert not appending.done()
        assert await appending == 2
        await app.check()


WAITING = (
    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


class Instead:
    """A store whose steps are made by somebody else."""

    def __init__(self, real: PostgresViews, apply: Any) -> None:
        self._real = real
        self.apply = apply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


async def test_a_gap_that_cannot_be_read_is_never_passed_over(url: str) -> None:
    async with shared(url, inline_accounts()) as app:
        await append(app.log, Moved("a", "b", 1))
        with_it, app.log.inside = app.log.inside, None
        await append(app.log, Moved("a", "b", 2), Moved("a", "b", 3))
        app.log.inside = with_it
        assert with_it is not None

        async def reader(connection: Any, after: int, until: int) -> list[StoredEvent]:
            return await app.log.gap(connection, after + 1, until)

        with_it._gap_reader = reader
        with pytest.raises(ForeignCheckpoint, match="has yet to apply"):
            await append(app.log, Moved("a", "b", 4))


async def test_without_a_checkpoint_nothing_is_appended(url: str) -> None:
    async with shared(url, inline_orders()) as app:
        await append(app.log, *placed(1))
        schema = app.database.schema
        await app.database.run(lambda c: c.execute(f"DELETE FROM {schema}.diptych_checkpoints"))
        with pytest.raises(ForeignCheckpoint, match="has no checkpoint"):
            await append(app.log, *placed(2))
        assert await app.log.head() == 1


async def test_inline_and_async_projections_live_side_by_side(url: str) -> None:
    async with shared(url, inline_accounts(), orders()) as app:
        await app.engine.start()
        for n in range(20):
            await append(app.log, *placed(n), Moved("a", "b", n))
        await app.engine.catch_up()
        await app.engine.stop()
        await app.check()


async def test_an_append_takes_one_round_trip_for_each_inline_projection(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as no other process appends, and rows are remembered."""
    async with shared(url, inline_accounts(), inline_orders()) as app:
        await append(app.log, *placed(1), Moved("a", "b", 1))
        asked: list[str] = []
        connections: Any = asyncpg.Connection
        fetch = connections._execute

        async def counting(connection: Any, query: str, *args: Any, **options: Any) -> Any:
            asked.append(query)
            return await fetch(connection, query, *args, **options)

        monkeypatch.setattr("asyncpg.Connection._execute", counting)
        await append(app.log, *placed(1), Moved("a", "b", 2))
        assert len([sql for sql in asked if sql.startswith("WITH moved0")]) == 2
        assert len(asked) == 2
        monkeypatch.undo()
        await app.check()
