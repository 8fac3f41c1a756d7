"""A lock that somebody holds on to is waited for, but not for ever."""

from __future__ import annotations

import asyncio

import pytest

from diptych.errors import Unavailable
from diptych.log import Append, Appended, StoredEvent
from diptych.logs.postgres.writing import InsideAppend
from diptych.sql.postgres import Connection
from diptych.testing.contracts.making import event, put
from tests.logs.on_postgres import SCHEMA, connected, locked, opened, quiet, sessions


async def no_work(connection: Connection, events: list[StoredEvent]) -> None:
    """Have appends be transactions of several statements."""


@pytest.mark.parametrize("known", [False, True], ids=["at first", "later"])
@pytest.mark.parametrize("inside", [None, no_work], ids=["async", "inline"])
async def test_a_lock_that_is_never_released_is_told(
    postgres_url: str, known: bool, inside: InsideAppend | None
) -> None:
    """A console left open in a transaction: there is an end, an error with its holder, no event."""
    async with (
        opened(postgres_url, silence=0.5, patience=0.2, inside=inside) as log,
        connected(postgres_url) as admin,
    ):
        stored = 0
        if known:
            await put(log, event())
            await quiet(log)
            stored = 1
        async with locked(f"{postgres_url}?application_name=console"):
            outcomes = await asyncio.gather(
                *(put(log, event()) for _ in range(3)), log.head(), return_exceptions=True
            )
            for outcome in outcomes[:3]:
                assert type(outcome) is Unavailable
                assert "nothing was stored" in str(outcome)
                assert ", console" in outcome.facts["held_by"]
                assert outcome.facts["state"].startswith("idle in transaction, ")
            assert outcomes[3] == stored
            assert not [s for s in await sessions(admin) if s["wait_event_type"] == "Lock"]
        assert await put(log, event()) == Appended(stored + 1, stored + 1)


async def test_the_callers_transaction_keeps_its_own_limit(postgres_url: str) -> None:
    """What is appended within it does not change how long its other statements wait for locks."""
    async with (
        opened(postgres_url) as log,
        connected(postgres_url) as connection,
        connection.transaction(),
    ):
        await connection.execute("SET LOCAL lock_timeout = '7s'")
        within = await log.within(connection)
        await within.append(Append((event(),)))
        assert await connection.fetchval("SHOW lock_timeout") == "7s"
        assert await connection.fetchval(f"SELECT head FROM {SCHEMA}.log") == 1
