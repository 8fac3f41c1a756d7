"""Notifications are hints: coalesced, outside of the appends, and not missed when they are lost."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from diptych.errors import LogUnusable
from diptych.sql.postgres import Connection, Database
from diptych.testing.contracts.making import event, put
from tests.logs.on_postgres import LONG, connected, listener, opened, quiet, throw_out
from tests.logs.pooler import pooled
from tests.logs.test_postgres_crashes import Balances, Deposit, make_app
from tests.pgbouncer import PgBouncer


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of PostgreSQL from now on, in order."""
    found: list[str] = []
    connect = Database.connect

    async def listened_to(database: Database) -> Connection:
        connection = await connect(database)
        connection.add_query_logger(lambda record: found.append(record.query))
        return connection

    monkeypatch.setattr(Database, "connect", listened_to)
    return found


async def test_notifications_are_fewer_than_appends(postgres_url: str) -> None:
    """Many appends one after the other tell others of the last head, seldom of one between."""
    async with opened(postgres_url) as log, connected(postgres_url) as other:
        heard: list[int] = []
        last = asyncio.Event()

        def hear(_connection: Any, _pid: int, _channel: str, head: object) -> None:
            heard.append(int(str(head)))
            if heard[-1] == 200:
                last.set()

        await other.add_listener(log._channel, hear)
        for _ in range(200):
            await put(log, event())
        await asyncio.wait_for(last.wait(), LONG)
        assert len(heard) < 150
        assert heard == sorted(set(heard))


async def test_a_notification_is_no_part_of_an_append(
    postgres_url: str, statements: list[str]
) -> None:
    """It is a statement of its own, in a transaction of its own, after that of the append."""
    async with opened(postgres_url) as log:
        for _ in range(5):
            await put(log, event())
            await quiet(log)
    appends = [t for t in statements if t.startswith(("SELECT head, since", "WITH moved"))]
    notes = [n for n, text in enumerate(statements) if "pg_notify" in text]
    assert (len(appends), len(notes)) == (5, 5)
    for number in notes:
        before = [s for s in statements[:number] if s.startswith("BEGIN") or s == "COMMIT;"]
        assert before[-1:] in ([], ["COMMIT;"])
        assert "append" not in statements[number]


async def test_nothing_is_left_of_a_log_that_was_closed(postgres_url: str) -> None:
    """A process that opens and closes applications does not collect what listened for them."""

    async def once() -> weakref.ref[Database]:
        async with opened(postgres_url) as log:
            await put(log, event())
            waiting = asyncio.create_task(log.wait(1, timeout=LONG))
            while not log._waker.listening:
                await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            return weakref.ref(log._database)

    left = await once()
    gc.collect()
    assert left() is None


async def test_a_lost_listener_costs_one_poll(postgres_url: str) -> None:
    """The session that listens is ended, and what is appended just then is found by looking."""
    async with opened(postgres_url, poll=0.02) as log, opened(postgres_url) as other:
        for n in range(5):
            waiting = asyncio.ensure_future(log.wait(n))
            async with connected(postgres_url) as admin:
                await throw_out(admin, [await listener(admin)])
            await put(other, event())
            assert await asyncio.wait_for(waiting, LONG) == n + 1


async def test_behind_a_pooler_nothing_belongs_to_a_session(
    postgres_url: str, statements: list[str]
) -> None:
    """With ``pooled=1`` nothing listens and no statement has a name; waits look by themselves."""
    async with pooled(postgres_url) as pooler:
        url = f"{pooler.url}?pooled=1"
        async with opened(url, poll=0.02) as log, opened(url) as other:
            for n in range(5):
                waiting = asyncio.ensure_future(log.wait(n))
                await asyncio.gather(*(log.head() for _ in range(3)))
                await put(other, event())
                assert await asyncio.wait_for(waiting, LONG) == n + 1
        assert not [text for text in statements if "LISTEN" in text]
        assert pooler.complaints == []
        assert pooler.transactions > 10


async def test_an_application_works_behind_a_pooler(postgres_url: str) -> None:
    """Commands, projections, queries and the proof need no session either."""
    async with pooled(postgres_url) as pooler:
        await _deposit_and_ask(f"{pooler.url}?pooled=1")
        assert pooler.complaints == []


async def test_an_application_works_behind_pgbouncer(bouncer: PgBouncer, postgres_url: str) -> None:
    """In transaction mode, with fewer sessions than the application has connections."""
    await _deposit_and_ask(f"{bouncer.url(postgres_url)}?pooled=1")


async def _deposit_and_ask(url: str) -> None:
    async with make_app().open(log=url, views=url) as app:
        receipts = await asyncio.gather(*(app.do(Deposit(f"{n % 3}", 1)) for n in range(60)))
        last = max(receipts, key=lambda receipt: receipt.last)
        answer = await app.ask(Balances(), after=last.token, wait=LONG, strict=True)
        assert [row.deposits for row in answer.value] == [20, 20, 20]
        assert [verdict.ok for verdict in await app.verify()] == [True]


@pytest.mark.parametrize("strict", [True, False])
async def test_a_pooler_without_the_setting_is_told(postgres_url: str, strict: bool) -> None:
    """Who forgets ``pooled=1`` gets an error that names it, whatever the pooler stumbles over."""
    async with pooled(postgres_url, strict=strict) as pooler:
        with pytest.raises(LogUnusable, match="pooled=1"):
            async with opened(pooler.url) as log:
                await put(log, event())


async def test_pgbouncer_without_the_setting_is_told(bouncer: PgBouncer, postgres_url: str) -> None:
    """The real one refuses what we say of a session when it begins."""
    with pytest.raises(LogUnusable, match="pooled=1"):
        async with opened(bouncer.url(postgres_url)):
            pass
