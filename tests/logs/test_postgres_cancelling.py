"""Callers that are cancelled at any point leave nothing behind, and harm nobody."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from asyncpg import connect_utils

from diptych.errors import Unavailable
from diptych.log import Append, EventQuery
from diptych.sql.postgres import Connection, Database
from diptych.testing.contracts.making import appended, event, everything, put
from diptych.testing.faults import Proxy
from tests.logs.on_postgres import (
    LONG,
    connected,
    locked,
    marked,
    opened,
    sessions,
    unless,
    until,
    waiting_for_the_lock,
)
from tests.logs.test_postgres_crashes import Balances, Deposit, all_applied, make_app

TIMES = 400


async def cancelled(call: Awaitable[Any], dice: random.Random) -> None:
    """Cancel a call after a random number of the loop's rounds, or of some milliseconds."""
    task: asyncio.Future[Any] = asyncio.ensure_future(call)
    if dice.random() < 0.5:
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(dice.uniform(0, 0.006))
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and not isinstance(task.exception(), Unavailable):
        task.result()


async def open_transactions(admin: asyncpg.Connection[Any]) -> list[asyncpg.Record]:
    """Return the sessions that have begun something and do not go on."""
    return [s for s in await sessions(admin) if (s["state"] or "").startswith("idle in trans")]


async def test_cancelled_calls_of_the_log_leave_nothing_behind(postgres_url: str) -> None:
    """Hundreds of calls of all kinds, cancelled amid connecting, waiting, judging and storing."""
    dice = random.Random(seed := random.randrange(10**9))
    print(f"seed {seed}")
    async with (
        Proxy(f"{postgres_url}?connections=3", delay=0.0005) as proxy,
        opened(proxy.url, patience=LONG, remembered=50) as log,
        connected(postgres_url) as admin,
    ):
        await put(log, event("Moved", "a:1"))
        batches = [
            [Append((marked("c", f"n:{n}", "a:1"), marked("c", f"n:{n}")), (unless(f"n:{n}"),))]
            for n in range(TIMES)
        ]
        calls: list[Callable[[int], Awaitable[Any]]] = [
            lambda n: log.append(batches[n]),
            lambda n: log.append(batches[n]),
            lambda n: log.read(limit=10),
            lambda n: log.read(EventQuery.of(["Moved"], ["a:1"])),
            lambda n: log.read(EventQuery.of([], ["a:1"])),
            lambda n: log.head(),
            lambda n: log.recall([f"{n}"]),
            lambda n: log.wait(10**9),
        ]
        tasks = len(asyncio.all_tasks())
        for start in range(0, TIMES, 8):
            group = [cancelled(dice.choice(calls)(n), dice) for n in range(start, start + 8)]
            await asyncio.gather(*group)
            if start % 40 == 0:
                proxy.cut(1)

        async def at_rest() -> bool:
            return not log._database._leased and not await open_transactions(admin)

        await until(at_rest)
        assert len(await sessions(admin)) <= 3 + 1
        assert all(not c.is_in_transaction() for c in log._database._idle)
        await asyncio.gather(*(log.head() for _ in range(10)))
        last = appended(await put(log, event())).last
        stored = await everything(log)
        assert [e.position for e in stored] == list(range(1, last + 1))
        halves = Counter(e.tags[0] for e in stored if e.tags and e.tags[0].startswith("n:"))
        assert set(halves.values()) == {2}

        async def settled() -> bool:
            return len(asyncio.all_tasks()) <= tasks + 4  # of the proxy: two more connections

        await until(settled)


async def test_cancelled_commands_and_queries_leave_nothing_behind(postgres_url: str) -> None:
    """Hundreds of callers of an application go away: views and log are right, and all goes on."""
    dice = random.Random(seed := random.randrange(10**9))
    print(f"seed {seed}")
    async with (
        make_app().open(log=postgres_url, views=postgres_url) as app,
        connected(postgres_url) as admin,
    ):
        last = await app.do(Deposit("0", 1))
        calls: list[Callable[[int], Awaitable[Any]]] = [
            lambda n: app.do(Deposit(f"{n % 5}", 1), key=f"k{n}"),
            lambda n: app.do(Deposit(f"{n}", 1)),
            lambda n: app.ask(Balances(), after=last.token),
            lambda n: app.status(),
            lambda n: app.catch_up(),
            lambda n: app.verify(),
        ]
        for start in range(0, TIMES, 8):
            group = [cancelled(dice.choice(calls)(n), dice) for n in range(start, start + 8)]
            await asyncio.gather(*group)
        last = await app.do(Deposit("0", 1))
        answer = await app.ask(Balances(), after=last.token, wait=LONG, strict=True)
        assert sum(row.deposits for row in answer.value) == answer.as_of
        await all_applied(app)
        assert [verdict.ok for verdict in await app.verify()] == [True]

        async def at_rest() -> bool:
            return not await open_transactions(admin)

        await until(at_rest)


async def test_a_cancelled_waiter_for_the_lock_does_not_hold_up_others(postgres_url: str) -> None:
    """Who is cancelled while his append waits for the lock leaves it to those beside him."""
    async with opened(postgres_url) as log, connected(postgres_url) as admin:
        await put(log, event())
        async with locked(postgres_url):
            calls = [asyncio.ensure_future(put(log, event())) for _ in range(3)]
            await waiting_for_the_lock(admin)
            calls[0].cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert await log.head() == 4


async def test_a_connection_amid_a_transaction_is_not_handed_on(postgres_url: str) -> None:
    """A job that is cancelled in its transaction costs its connection, and nothing stays open."""
    async with opened(postgres_url) as log, connected(postgres_url) as admin:
        begun = asyncio.Event()

        async def job(connection: Connection) -> None:
            await connection.execute("BEGIN")
            begun.set()
            await connection.execute("SELECT pg_sleep(3600)")

        task = asyncio.ensure_future(log._database.run(job))
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not log._database._leased

        async def gone() -> bool:
            return not [s for s in await sessions(admin) if s["state"] != "idle"]

        await until(gone)
        assert await put(log, event()) is not None


async def test_who_is_cancelled_while_a_socket_is_connected_leaves_no_complaint(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command may end just when its process begins to listen: asyncio has nothing to tell."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    calls: list[asyncio.Future[Any]] = []

    def cancel(*_: object) -> None:
        calls[-1].cancel()

    monkeypatch.setattr(connect_utils.TLSUpgradeProto, "connection_made", cancel)
    database = Database(postgres_url)
    async with connected(f"{postgres_url}?sslmode=disable") as admin:
        for call in (database.connect, lambda: database.run(lambda c: c.fetchval("SELECT 1"))):
            calls.append(asyncio.ensure_future(call()))
            await asyncio.wait(calls)
            assert calls[-1].cancelled()

        async def gone() -> bool:
            return not await sessions(admin)

        await until(gone)
    await database.close()
    calls.clear()  # what they raised holds the futures
    gc.collect()
    assert complaints == []
