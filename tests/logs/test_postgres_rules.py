"""Each rule for SQL logs has its reason: without it, racing writers find the bug.

The rules are those of the append function, of the statement that stores a batch at one head, and of
the transaction that judges under the lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from importlib.resources import files
from typing import Any

import asyncpg
import pytest

from diptych.log import Appended, StoredEvent
from diptych.logs.postgres import PostgresLog, statements, writing
from diptych.logs.postgres.checking import Legs
from diptych.sql import connecting, postgres
from diptych.sql.postgres import Connection
from diptych.testing.contracts.making import event, put
from diptych.testing.faults import Proxy
from tests.logs.on_postgres import (
    SCHEMA,
    connected,
    has_told,
    locked,
    marked,
    one,
    opened,
    until,
    waiting_for_the_lock,
)
from tests.logs.rivals import Rivals

ROUNDS = 3
AT_BARRIER = 2

FUNCTION = (files("diptych.logs.postgres") / "schema" / "6_append.sql").read_text()
LOCK = f"SELECT l.head INTO base FROM {SCHEMA}.log AS l FOR UPDATE;"
LEGS = "IF cardinality(leg_tag) > 0 AND EXISTS ("
KEYS = f"IF EXISTS (SELECT FROM {SCHEMA}.idempotency_keys AS k WHERE k.key = ANY (keys)) THEN"


def changed(text: str, *changes: tuple[str, str]) -> str:
    """Change a text, which must be there to be changed."""
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text


def function(*changes: tuple[str, str]) -> str:
    """Return the append function with changes."""
    return changed(FUNCTION.replace("{schema}", SCHEMA), *changes)


def text_between(start: str, end: str) -> str:
    """Return a part of the function, from one text to before another."""
    text = FUNCTION.replace("{schema}", SCHEMA)
    begin = text.index(start)
    return text[begin : text.index(end, begin)]


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The appends that had to be tried again, by the number of the attempt."""
    found: list[int] = []

    def again(attempt: int) -> float:
        found.append(attempt)
        return 0.0

    monkeypatch.setattr(writing, "backoff", again)
    return found


@pytest.fixture
async def planted(postgres_url: str, tries: list[int]) -> AsyncIterator[Any]:
    """Race on three logs, with another append function; return what is wrong, or was raised."""
    async with AsyncExitStack() as stack:

        async def race(sql: str = "") -> str:
            logs = [await stack.enter_async_context(opened(postgres_url)) for _ in range(3)]
            for log in logs:
                await put(log, event())  # they have met each other
            if sql:
                async with connected(postgres_url) as connection:
                    await connection.execute(sql)
            rivals = Rivals(logs)
            try:
                await rivals.rounds(AT_BARRIER, postgres_url)
                await rivals.rounds(ROUNDS)
            except Exception as error:
                return f"raised: {error}"
            return "; ".join(await rivals.violations() + ["had to be repeated"] * len(tries))

        yield race


async def test_sound_writers_break_no_rule(planted: Any) -> None:
    """Without a planted bug these races find none."""
    assert await planted() == ""


async def test_lock_and_check_in_one_statement(planted: Any) -> None:
    """Bug: the ranges are looked at by the statement that waits for the lock."""
    check = text_between(LEGS, "IF cardinality(keys) > 0 THEN")
    condition = check.removeprefix("IF ").partition(" THEN\n")[0]
    sql = function(
        (check, check.replace(condition, "found")),
        (LOCK, LOCK.replace("l.head INTO base", f"l.head, {condition} INTO base, found")),
        ("    base bigint;", "    base bigint;\n    found bool;"),
    )
    assert "taken" in await planted(sql)


async def test_no_lock(planted: Any) -> None:
    """Bug: the head is read without a lock."""
    assert await planted(function((LOCK, LOCK.replace(" FOR UPDATE", ""))))


async def test_unconditional_appends_that_skip_the_lock(planted: Any) -> None:
    """Bug: what has no condition does not wait for the others."""
    skipping = f"""IF cardinality(leg_tag) = 0 AND cardinality(keys) = 0 THEN
        SELECT l.head INTO base FROM {SCHEMA}.log AS l;
    ELSE {LOCK} END IF;"""
    assert await planted(function((LOCK, skipping)))


async def test_no_check_of_the_ranges(planted: Any) -> None:
    """Bug: what others have appended since the judgement is not looked at."""
    assert "taken" in await planted(function((LEGS, "IF false AND EXISTS (")))


async def test_ranges_that_are_not_given(planted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the conditions judged from memory are not handed to the function."""
    monkeypatch.setattr(Legs, "note", lambda *_: None)
    assert "taken" in await planted()


async def test_alone_is_ignored(planted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a judgement for exactly one head is taken for one that holds for later heads."""
    monkeypatch.setattr(writing, "next_of", lambda *_: None)  # all by the function
    assert "taken" in await planted(function(("IF alone OR base", "IF base")))


@pytest.mark.parametrize(
    "locked_head",
    [
        "WHERE one = 1",
        f"WHERE (SELECT head FROM {SCHEMA}.log) = $1::bigint",
    ],
    ids=["none", "before the lock"],
)
async def test_another_head_than_judged_on(
    planted: Any, monkeypatch: pytest.MonkeyPatch, locked_head: str
) -> None:
    """Bug: what is judged for one head is stored at any, or at what it was before the lock."""
    for name, count in (("append_next", "$2"), ("append_one", "1")):
        text = changed(statements._NAMED[name], ("WHERE head = $1::bigint", locked_head))
        text = text.replace("RETURNING 1", f"RETURNING head - {count} AS base")
        text = text.replace("$1 +", "base +")
        monkeypatch.setitem(statements._NAMED, name, text + " WHERE $1::bigint > 0")
    assert await planted()


async def test_keys_that_are_not_looked_up(planted: Any) -> None:
    """Bug: ON CONFLICT DO NOTHING in the place of the look-up: the event is stored again."""
    insert = text_between("FROM unnest(keys,", "END IF;\n    IF cardinality(ids)")
    sql = function(
        (KEYS, "IF false THEN"),
        (insert, insert.replace("rejection);", "rejection)\n        ON CONFLICT DO NOTHING;")),
    )
    assert "key" in await planted(sql)


async def test_a_stable_function(planted: Any) -> None:
    """Bug: STABLE, so that all statements see what the caller's did; PostgreSQL refuses it."""
    assert await planted(function(("plpgsql VOLATILE", "plpgsql STABLE")))


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_another_isolation_of_the_function(
    planted: Any, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """Bug: the function's statements all see what was committed before it waited for the lock."""
    settings = connecting.settings
    monkeypatch.setattr(
        postgres,
        "settings",
        lambda silence: settings(silence) | {"default_transaction_isolation": level},
    )
    assert await planted()


async def at_the_lock(url: str, plant: Callable[[PostgresLog], None] = lambda _: None) -> str:
    """Have two logs that know nothing yet wait for the lock; return what was wrong, or raised."""
    async with opened(url) as a, opened(url) as b, connected(url) as admin:
        for log in (a, b):
            plant(log)
        async with locked(url):
            calls = [asyncio.ensure_future(put(log, event())) for log in (a, b)]
            await waiting_for_the_lock(admin, 2)
        try:
            answers = await asyncio.gather(*calls)
        except Exception as error:
            return f"raised: {error}"
        positions = sorted(answer.last for answer in answers if isinstance(answer, Appended))
        return "" if positions == [1, 2] else f"positions {positions}"


async def test_sound_writers_at_the_lock(postgres_url: str, tries: list[int]) -> None:
    """Without a planted bug those who judge under the lock take their turns."""
    assert (await at_the_lock(postgres_url), tries) == ("", [])


@pytest.mark.parametrize("level", ["repeatable_read", "serializable"])
async def test_another_isolation_under_the_lock(
    postgres_url: str, tries: list[int], monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """Bug: what is judged under the lock is what was there before it was waited for.

    PostgreSQL notices, as the head has moved, and the batch is judged once more.
    """
    transaction: Any = asyncpg.Connection.transaction

    def isolated(connection: Any, **options: Any) -> Any:
        return transaction(connection, **{**options, "isolation": level})

    monkeypatch.setattr("asyncpg.Connection.transaction", isolated)
    assert await at_the_lock(postgres_url) or tries


async def test_judged_before_the_lock(postgres_url: str) -> None:
    """Bug: the transaction judges first, and waits for the lock when it stores."""

    def plant(log: PostgresLog) -> None:
        log._sql.lock_head = log._sql.head

    assert "has not appended" in await at_the_lock(postgres_url, plant)


# --- what it takes a failure to see ---------------------------------------------------------------


async def refuse_bad(connection: Connection, events: list[StoredEvent]) -> None:
    if any("bad:1" in stored.tags for stored in events):
        raise ValueError


@pytest.mark.parametrize("planted_bug", [False, True])
async def test_positions_from_a_sequence(postgres_url: str, planted_bug: bool) -> None:
    """Bug: a sequence leaves a hole where a transaction is rolled back; the head leaves none."""
    async with opened(postgres_url, inside=refuse_bad) as log:
        await put(log, event())
        if planted_bug:
            async with connected(postgres_url) as connection:
                await connection.execute(f"CREATE SEQUENCE {SCHEMA}.positions START 2")
                await connection.execute(
                    function(("SELECT base + e.place,", f"SELECT nextval('{SCHEMA}.positions'),"))
                )
        for tag in ("good:1", "bad:1", "good:1"):
            await put(log, event("Moved", tag))
        assert bool(await Rivals([log]).violations()) is planted_bug


@pytest.mark.parametrize("planted_bug", [False, True])
async def test_ids_that_are_not_looked_for(postgres_url: str, planted_bug: bool) -> None:
    """Bug: a call that arrives late, after it was repeated, is not known again by its ids."""
    async with (
        Proxy(postgres_url) as proxy,
        opened(proxy.url) as log,
        opened(postgres_url) as other,
    ):
        for each in (log, other) * 2:  # they know of each other, and append by one call
            await put(each, event())
            await until(partial(has_told, each))
        assert log._writer._company
        if planted_bug:
            async with connected(postgres_url) as connection:
                await connection.execute(function(("e.id = ANY (ids)", "false")))
        fault = proxy.hold(b"late")
        [outcome] = await log.append(one(marked("late", "a:1")))
        await fault.release()
        assert isinstance(outcome, Appended)
        late = [e for e in (await other.read()).events if b"late" in bytes(e.data)]
        assert len(late) == (2 if planted_bug else 1)


@pytest.mark.parametrize("planted_bug", [False, True])
async def test_ids_that_are_not_looked_for_under_the_lock(
    postgres_url: str, planted_bug: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: after a lost connection the batch is judged anew, not found to be stored."""
    if planted_bug:

        async def nothing(*_: object) -> None:
            await asyncio.sleep(0)

        monkeypatch.setattr(writing.Writer, "_stored_after_all", nothing)
    async with Proxy(postgres_url) as proxy, opened(proxy.url) as log:
        await put(log, event())
        proxy.cut_after(b"once")
        new = marked("once", "a:1")
        [outcome] = await log.append(one(new))
        rivals = Rivals([log])
        rivals.answers.append((one(new)[0], outcome))
        assert bool(await rivals.violations()) is planted_bug
