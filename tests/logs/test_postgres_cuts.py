"""Connections that are cut at the worst moments: what is acknowledged is stored once."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import pytest

from diptych.errors import OutcomeUnknown, Unavailable
from diptych.log import Append, Appended, StoredEvent
from diptych.logs.postgres import PostgresLog, writing
from diptych.sql import postgres
from diptych.sql.postgres import Connection, Database
from diptych.testing.contracts.making import event, everything, put, refused
from diptych.testing.faults import Proxy
from tests.logs.on_postgres import (
    LONG,
    connected,
    marked,
    one,
    opened,
    quiet,
    unless,
    until,
    waiting_for_the_lock,
)
from tests.logs.rivals import Rivals

CUTS = 400
MARK = b'"mark"'  # in each call of the append function
COMMIT = b"COMMIT;"


async def nothing(connection: Connection, events: list[StoredEvent]) -> None:
    """Inline work, so that appends are transactions of several statements."""


async def test_four_hundred_cuts_lose_nothing_and_double_nothing(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four logs under load, each cut off 100 times, half of these when they commit.

    Every acknowledged append is stored once where it was said to be, every refused one never; and
    as the database can be reached, no caller is left in doubt.
    """
    for module in (writing, postgres):
        monkeypatch.setattr(module, "backoff", lambda _: random.uniform(0, 0.002))
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(postgres_url)) for _ in range(4)]
        logs = [
            await stack.enter_async_context(
                opened(proxy.url, patience=LONG, inside=nothing if n % 2 else None)
            )
            for n, proxy in enumerate(proxies)
        ]
        rivals = Rivals(logs)
        clients = [
            asyncio.create_task(_append_for_ever(rivals, log, random.Random(seed + n)))
            for n, log in enumerate(logs * 6)
        ]
        async with asyncio.timeout(4 * LONG):
            strikes = await asyncio.gather(
                *(
                    _cut(rivals, proxy, COMMIT if n % 2 else MARK, random.Random(seed + n))
                    for n, proxy in enumerate(proxies)
                )
            )
            for client in clients:
                client.cancel()
            ends = await asyncio.gather(*clients, return_exceptions=True)
            assert {type(end) for end in ends} == {asyncio.CancelledError}, ends
            for log in logs:
                await put(log, event())  # what was under way has ended
        assert sum(strikes) == CUTS
        assert await rivals.violations() == []
        assert len(rivals.answers) > CUTS


async def _append_for_ever(rivals: Rivals, log: PostgresLog, dice: random.Random) -> None:
    numbers = count()
    name = f"{rivals.name}:{dice.randrange(10**12)}"
    while True:
        tag = f"{name}:{next(numbers)}"
        events = [marked("cut", tag), *[marked("cut") for _ in range(dice.randrange(2))]]
        conditions = (unless(tag),) if dice.random() < 0.7 else ()
        key = tag if dice.random() < 0.3 else None
        append = Append(tuple(events), conditions, key, b"c")
        for _ in range(1 if dice.random() < 0.7 else 2):
            # The second time it is refused, unless it has a key, then it is answered again.
            if key is not None or conditions:
                outcomes = await log.append([append])
                rivals.answers.append((append, outcomes[0]))
            append = Append((marked("cut", tag),), conditions, key, b"c")


async def _cut(rivals: Rivals, proxy: Proxy, commit: bytes, dice: random.Random) -> int:
    """Cut 100 times, each time after some progress; return how often it was."""
    struck = 0
    while struck < CUTS // 4:
        before = len(rivals.answers)
        if struck % 4 < 2:
            fault = (proxy.cut_after if struck % 4 else proxy.cut_before)(commit)
            await fault.wait()
            struck += fault.struck
        else:
            struck += proxy.cut(1)
        while len(rivals.answers) < before + 4:
            await asyncio.sleep(dice.uniform(0, 0.004))
    return struck


# --- at each step ---------------------------------------------------------------------------------

STEPS = [b"BEGIN", b"FOR UPDATE", b"idempotency_keys", b".append(", MARK, COMMIT]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.decode())
@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
async def test_a_cut_at_any_step_stores_once(
    postgres_url: str, step: bytes, answered: bool
) -> None:
    """Wherever a transaction is cut, its events are stored once, and it is told where."""
    async with (
        Proxy(postgres_url) as proxy,
        opened(proxy.url, inside=nothing) as log,
        opened(postgres_url) as other,
    ):
        await put(log, event())
        await put(other, event())
        proxy.cut()  # statements are prepared anew, so their texts go over the wire
        fault = (proxy.cut_after if answered else proxy.cut_before)(step)
        batch = [Append((marked("step", "a:1"),), (unless("a:1"),), key="k", content=b"c")]
        assert await log.append(batch) == [Appended(3, 3)]
        assert fault.struck == 1
        [again] = await log.append(batch)
        assert again == Appended(3, 3, replayed=True)
        assert [e.position for e in await everything(other)] == [1, 2, 3]


# --- who comes late -------------------------------------------------------------------------------


async def company(*logs: PostgresLog) -> None:
    """Let logs meet, so that they expect each other's appends."""
    while not all(log._writer._company for log in logs):
        for log in logs:
            await put(log, event())
            await quiet(log)


async def test_a_call_that_arrives_after_its_repetition_stores_nothing(postgres_url: str) -> None:
    """The function's call of a lost connection reaches the server after the retry was answered."""
    async with Proxy(postgres_url) as proxy, opened(proxy.url) as log, opened(postgres_url) as by:
        await company(log, by)
        head = await by.head()
        fault = proxy.hold(MARK)
        mine = marked("late", "a:1")
        [outcome] = await log.append(one(mine, conditions=(unless("a:1"),)))
        assert outcome == Appended(head + 1, head + 1)
        await put(by, event())
        await fault.release()
        assert [e.id for e in await everything(by)].count(mine.id) == 1
        assert await by.head() == head + 2


async def test_a_call_that_arrives_after_a_refusal_stores_nothing(postgres_url: str) -> None:
    """The retry was refused, as another had come first: so is the call that comes late."""
    async with Proxy(postgres_url) as proxy, opened(proxy.url) as log, opened(postgres_url) as by:
        await company(log, by)
        head = await by.head()
        proxy.refuse()
        fault = proxy.hold(MARK)
        batch = one(marked("late", "a:1"), conditions=(unless("a:1"),))
        appending = asyncio.ensure_future(log.append(batch))
        await fault.wait()
        assert await put(by, event("Moved", "a:1")) == Appended(head + 1, head + 1)
        proxy.accept()
        [outcome] = await appending
        assert refused(outcome).position == head + 1
        await fault.release()
        assert await by.head() == head + 1


async def test_a_commit_that_arrives_late_is_waited_for(postgres_url: str) -> None:
    """COMMIT is under way on a lost connection: the retry waits for its lock, and finds it done."""
    async with (
        Proxy(postgres_url) as proxy,
        opened(proxy.url, inside=nothing) as log,
        connected(postgres_url) as admin,
    ):
        await put(log, event())
        fault = proxy.hold(COMMIT)
        appending = asyncio.ensure_future(log.append(one(marked("late"))))
        await waiting_for_the_lock(admin)
        await fault.release()
        assert await appending == [Appended(2, 2)]
        assert await log.head() == 2


async def test_a_call_in_doubt_may_be_stored_later(postgres_url: str) -> None:
    """Where nobody can find out, the caller is in doubt; his key tells him what has come of it."""
    async with Proxy(postgres_url) as proxy, opened(proxy.url, patience=0.2) as log:
        await put(log, event())
        await quiet(log)
        proxy.refuse()
        fault = proxy.hold(MARK)
        batch = one(marked("late", "a:1"), key="k", content=b"c")
        with pytest.raises(OutcomeUnknown):
            await log.append(batch)
        await fault.release()
        proxy.accept()
        assert await log.append(batch) == [Appended(2, 2, replayed=True)]
        assert await log.head() == 2


async def test_ids_of_others_are_not_taken_for_ones_own(postgres_url: str) -> None:
    """Somebody else stores one of the events that are in doubt: the rest is not lost."""
    async with Proxy(postgres_url) as proxy, opened(proxy.url) as log, opened(postgres_url) as by:
        await company(log, by)
        head = await by.head()
        shared, mine = marked("doubt"), marked("doubt")
        proxy.refuse()
        fault = proxy.cut_before(MARK)
        appending = asyncio.ensure_future(log.append(one(shared, mine)))
        await fault.wait()
        await by.append(one(shared))
        proxy.accept()
        assert await appending == [Appended(head + 2, head + 3)]
        assert [e.id for e in await everything(by)][head:] == [shared.id, shared.id, mine.id]


# --- when it stays away ---------------------------------------------------------------------------


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
async def test_only_what_was_in_flight_is_in_doubt(postgres_url: str, answered: bool) -> None:
    """The database stays away: what was sent is in doubt, the rest is known not to be stored."""
    async with Proxy(postgres_url) as proxy, opened(proxy.url, patience=0.2) as log:
        await put(log, event())
        await quiet(log)
        proxy.refuse()
        fault = (proxy.cut_after if answered else proxy.cut_before)(MARK)
        flying = asyncio.ensure_future(log.append(one(marked("flying"))))
        await fault.wait()
        proxy.cut()
        rest: list[Any] = [log.append(one(marked("rest"))) for _ in range(20)]
        rest += [log.head(), log.read(), log.recall(["k"]), log.wait(1, timeout=0)]
        outcomes = await asyncio.gather(flying, *rest, return_exceptions=True)
        assert type(outcomes[0]) is OutcomeUnknown
        assert {type(outcome) for outcome in outcomes[1:]} == {Unavailable}
        proxy.accept()
        head = 3 if answered else 2
        assert await put(log, event()) == Appended(head, head)


async def test_in_doubt_and_then_refused_is_still_in_doubt(postgres_url: str) -> None:
    """The server that comes back takes no writes: that says nothing of what was sent before."""
    name = postgres_url.rpartition("/")[2]
    async with (
        Proxy(postgres_url) as proxy,
        connected(postgres_url) as admin,
        opened(proxy.url, patience=0.2) as log,
    ):
        await put(log, event())
        await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        proxy.cut_after(MARK)
        with pytest.raises(OutcomeUnknown):
            await log.append(one(marked("doubt")))
        with pytest.raises(Unavailable, match="read-only"):
            await log.append(one(marked("clear")))
        assert await log.head() == 2


async def test_long_statements_have_a_limit_of_their_own(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds for work that is not brief, and is lifted when the connection comes back."""
    monkeypatch.setattr(postgres, "COMMAND_SECONDS", 0.2)
    database = Database(postgres_url, patience=0.1, silence=LONG)
    with pytest.raises(Unavailable, match="TimeoutError"):
        await database.run(lambda c: c.execute("SELECT pg_sleep(60)"), again=False)
    for brief in (False, True):
        await database.run(lambda c: c.execute("SELECT 1"), brief=brief)
    await database.run(lambda c: c.execute("SELECT pg_sleep(0.4)"), brief=True)
    await database.close()


async def test_of_two_connections_the_silent_one_is_given_up(postgres_url: str) -> None:
    """One timer serves both, each has its own time; and a new connection is made."""
    async with Proxy(f"{postgres_url}?connections=2") as proxy:
        database = Database(proxy.url, patience=0.1, silence=0.3)
        await asyncio.gather(*(database.run(lambda c: c.execute("SELECT 1")) for _ in range(2)))
        async with database.lease(brief=True) as first:
            with pytest.raises(Unavailable):
                await database.run(
                    lambda c: c.execute("SELECT pg_sleep(60)"), again=False, brief=True
                )
            assert first.is_closed()
        async with database.lease(brief=True) as third:
            assert await third.fetchval("SELECT 1") == 1
        await database.close()


async def test_a_silent_network_is_given_up(postgres_url: str) -> None:
    """Nothing is cut and nothing comes back: after ``silence`` seconds that counts as lost."""
    async with Proxy(postgres_url) as proxy, opened(proxy.url, patience=0.5, silence=0.3) as log:
        await asyncio.gather(log.head(), log.head(), log.head())
        for _ in range(3):
            await put(log, event())
            await quiet(log)
        proxy.swallow()
        appending = log.append(one(marked("silent")))
        outcomes = await asyncio.gather(appending, log.head(), log.read(), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, Unavailable, Unavailable]
        proxy.restore()

        async def back() -> bool:
            try:
                return await log.head() > 0
            except Unavailable:
                return False

        await until(back)
        await put(log, event())
        stored = await everything(log)
        assert [e.position for e in stored] == list(range(1, len(stored) + 1))
        assert len(stored) in (4, 5)


async def test_a_frozen_writer_does_not_keep_the_lock(postgres_url: str) -> None:
    """A client that goes silent while it holds the lock is thrown out by the server."""

    async def freeze(connection: Connection, events: list[StoredEvent]) -> None:
        proxy.swallow()

    async with (
        Proxy(postgres_url) as proxy,
        opened(proxy.url, inside=freeze, silence=1.0, patience=0.2) as frozen,
        opened(postgres_url, patience=LONG) as log,
    ):
        appending = asyncio.ensure_future(put(frozen, event()))
        async with connected(postgres_url) as admin:

            async def holds_it() -> bool:
                found = await admin.fetch(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
                    "AND state = 'idle in transaction'"
                )
                return bool(found)

            await until(holds_it)
            assert isinstance(await put(log, event()), Appended)
            with pytest.raises((OutcomeUnknown, Unavailable)):
                await appending
        assert await log.head() == 1
