"""What every view store does within a handler's transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date

from diptych.errors import CheckpointMoved, DefinitionError
from diptych.read.port import Session, ViewStore
from diptych.read.select import column, select
from diptych.testing.contracts.views.making import (
    Counter,
    Everything,
    Leg,
    Level,
    StoreMaker,
    error_of,
    put,
    sample,
    step,
)


async def names(store: ViewStore) -> list[str]:
    """Return the names of all counters."""
    return sorted(row.name for row in (await store.all(select(Counter))).rows)


class Planted(Exception):
    """What a handler raises."""


class SessionContract(StoreMaker):
    """Rows and checkpoint of a session are one transaction, and nobody sees half of it."""

    async def test_a_session_reads_what_it_has_written(self) -> None:
        """By key and by select; once it has ended, everybody does."""
        async with self.new_store() as store:
            await put(store, Counter("old", 1))
            async with store.session() as tx:
                await tx.put(Counter("a", 1))
                await tx.put(Counter("a", 2))
                await tx.put(Counter("b", 3))
                await tx.delete(Counter, "old")
                await tx.delete(Counter, "absent")
                assert await tx.get(Counter, "a") == Counter("a", 2)
                assert await tx.get(Counter, "old") is None
                assert await tx.all(select(Counter).order_by(Counter.name)) == [
                    Counter("a", 2),
                    Counter("b", 3),
                ]
                assert await tx.rows(
                    select(column(Counter.value)).where(column(Counter.name).in_(["b", "c"]))
                ) == [(3,)]
                day = date(2026, 1, 1)
                await tx.put(Leg(1, day, Level.LOW, "x"))
                assert await tx.get(Leg, (1, day, Level.LOW)) == Leg(1, day, Level.LOW, "x")
                await tx.put(sample("k"))
                assert await tx.get(Everything, "k") == sample("k")
            assert await names(store) == ["a", "b"]

    async def test_statements_tell_how_many_rows_they_touched(self) -> None:
        """Insert, update and delete of SQLAlchemy Core."""
        from sqlalchemy import delete, insert, update

        async with self.new_store() as store, store.session() as tx:
            rows = [{"name": f"c{n}", "value": n} for n in range(5)]
            assert await tx.execute(insert(Counter).values(rows)) == 5
            more = update(Counter).where(column(Counter.value) > 2).values(value=10)
            assert await tx.execute(more) == 2
            assert await tx.execute(delete(Counter).where(column(Counter.value) < 2)) == 2
            assert await tx.execute(delete(Counter).where(column(Counter.name) == "absent")) == 0
            assert len(await tx.all(select(Counter))) == 3

    async def test_a_session_that_raises_leaves_nothing(self) -> None:
        """Neither rows nor the checkpoint; what was raised is what one gets."""
        async with self.new_store() as store:
            before = await store.checkpoints()
            for error in (Planted("no"), OSError("not of the database"), TimeoutError()):

                async def work(error: Exception) -> None:
                    async with store.session() as tx:
                        await tx.move(step(before["counter"][0], Counter("a", 1)))
                        await tx.put(Counter("b", 1))
                        raise error

                assert await error_of(work(error), Planted, OSError) is error
            assert await names(store) == []
            assert await store.checkpoints() == before
            await put(store, Counter("c", 1))
            assert await names(store) == ["c"]

    async def test_a_session_that_is_cancelled_leaves_nothing(self) -> None:
        """Neither rows nor an open transaction: the next ones work."""
        async with self.new_store() as store:
            for _ in range(12):  # more often than there are connections
                inside = asyncio.Event()

                async def work(inside: asyncio.Event) -> None:
                    async with store.session() as tx:
                        at = (await tx.get(Counter, "a")) or Counter("a", 0)
                        await tx.put(Counter("a", at.value + 1))
                        inside.set()
                        await asyncio.Event().wait()

                task = asyncio.create_task(work(inside))
                await inside.wait()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert task.cancelled()
            assert await names(store) == []
            await put(store, Counter("a", 1))
            async with store.session() as tx:
                await tx.put(Counter("b", 1))
            assert await names(store) == ["a", "b"]

    async def test_the_checkpoint_moves_with_the_rows_or_not_at_all(self) -> None:
        """From where it does not stand, ``CheckpointMoved``."""
        async with self.new_store() as store:
            stale = (await store.checkpoints())["counter"][0]
            change = step(stale, Counter("not written by moving", 1))
            async with store.session() as tx:
                await tx.move(change)
                await tx.put(Counter("a", 1))
            assert (await store.checkpoints())["counter"][0] == change.after

            async def again() -> None:
                async with store.session() as tx:
                    await tx.put(Counter("b", 1))
                    await tx.move(step(stale))

            error = await error_of(again(), CheckpointMoved)
            assert error.facts["projection"] == "counter"
            assert await names(store) == ["a"]

    async def test_of_two_sessions_from_one_checkpoint_one_is_kept(self) -> None:
        """They take effect one after the other."""
        async with self.new_store() as store:
            other = await self.same(store) or store
            at = (await store.checkpoints())["counter"][0]

            async def work(one: ViewStore, name: str) -> bool:
                try:
                    async with one.session() as tx:
                        await tx.move(step(at))
                        await tx.put(Counter(name, 1))
                except CheckpointMoved:
                    return False
                return True

            kept = await asyncio.gather(work(store, "a"), work(other, "b"), work(store, "c"))
            assert kept.count(True) == 1
            assert await names(store) == ["abc"[kept.index(True)]]
            if other is not store:
                await other.close()

    async def test_a_session_writes_its_own_views_only(self) -> None:
        """Once it was told which: ``put`` and ``delete`` of another are refused."""
        async with self.new_store() as store:

            async def write(tx: Session) -> None:
                await tx.put(Counter("a", 1))

            async def remove(tx: Session) -> None:
                await tx.delete(Counter, "a")

            async def run(work: Callable[[Session], Awaitable[None]]) -> None:
                async with store.session() as tx:
                    tx.own([Leg])
                    await work(tx)

            for work in (write, remove):
                await error_of(run(work), DefinitionError)
