"""What an attacker found in the log on PostgreSQL, each with the test that keeps it away."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from diptych.errors import Invalid, LogUnusable, ProjectionFailed, Unavailable
from diptych.log import (
    Append,
    Appended,
    Condition,
    EventQuery,
    QueryItem,
    Refused,
    StoredEvent,
)
from diptych.logs.postgres import PostgresLog
from diptych.logs.postgres.writing import moved
from diptych.messages import LONGEST_TEXT
from diptych.sql.migrations import Schema
from diptych.sql.postgres import Connection
from diptych.testing.contracts.making import appended, event, fill, positions, put, refused
from diptych.testing.faults import Proxy
from diptych.write.answers import refusal
from tests.logs.on_postgres import (
    LONG,
    SCHEMA,
    connected,
    locked,
    opened,
    sessions,
    throw_out,
    unless,
    until,
    waiting_for_the_lock,
)

# --- judged without the lock ----------------------------------------------------------------------


async def test_nothing_but_an_old_condition_is_still_checked(postgres_url: str) -> None:
    """An append without events, on which a rejection rests, minds matches that are long past."""
    async with opened(postgres_url, remembered=3) as log:
        await put(log, event("Moved", "a:1"))
        for _ in range(3):
            await fill(log, 10)  # a batch is remembered as a whole, and so is the one before
        answer = await put(log, conditions=(unless("a:1"),))
        assert refused(answer).position == 1


async def test_a_refusal_names_the_first_match_however_old(postgres_url: str) -> None:
    """A batch in which all is refused tells the oldest match, not one that is remembered."""
    async with opened(postgres_url, remembered=3) as log:
        await put(log, event("Moved", "a:1"))
        for _ in range(3):
            await fill(log, 10)
        await put(log, event("Moved", "a:1"))
        answer = await put(log, event(), conditions=(unless("a:1"),))
        assert refused(answer).position == 1


def test_first_answers_move_with_the_appends_they_repeat() -> None:
    """Where others were faster, a key repeated in the batch is answered as it was at first."""
    first = [Appended(0, 5), Appended(0, 5, replayed=True), Appended(6, 7)]
    again = Appended(6, 7, replayed=True)
    [[*all_moved]] = moved([[*first, again, Appended(2, 3, replayed=True)]], 5, 10)
    assert all_moved == [
        Appended(0, 15),
        Appended(0, 15, replayed=True),
        Appended(16, 17),
        Appended(16, 17, replayed=True),
        Appended(2, 3, replayed=True),
    ]


async def test_a_log_that_has_lost_events_is_refused(postgres_url: str) -> None:
    """A process whose events a failover has lost refuses to go on; one that is opened anew does."""
    async with opened(postgres_url) as log, opened(postgres_url) as other:
        await fill(log, 5, "Moved", "b:1")
        await put(log, event("Moved", "a:1"))
        async with connected(postgres_url) as admin:
            await throw_out(admin, [session["pid"] for session in await sessions(admin)])
            await admin.execute(
                "SET session_replication_role = replica;"
                "DELETE FROM diptych.events WHERE position = 6;"
                "DELETE FROM diptych.event_tags WHERE position = 6;"
                "UPDATE diptych.log SET head = 5"
            )
        await fill(other, 10, "Moved", "c:1")
        for _ in range(2):
            with pytest.raises(LogUnusable, match="has lost events"):
                await put(log, event(), conditions=(unless("a:1"),))
    async with opened(postgres_url) as again:
        assert await put(again, event(), conditions=(unless("a:1"),)) == Appended(16, 16)


# --- neighbours -----------------------------------------------------------------------------------

STRANGE = ["a:\0", "a:\ud800", "\0", "x" * 5000]


@pytest.mark.parametrize("tag", STRANGE, ids=["nul", "surrogate", "only nul", "long"])
async def test_a_strange_query_finds_nothing_and_harms_nobody(postgres_url: str, tag: str) -> None:
    """A tag that no event can have matches none; who reads at the same time gets his page."""
    async with opened(postgres_url) as log:
        await fill(log, 2, "Moved", "a:1")
        for query in (
            EventQuery.of(["Moved"], [tag]),
            EventQuery.of(["Moved", "No\0"], [tag, "a:1"]),
            EventQuery.of(["No\0"], ["a:1"]),
            EventQuery.of([], [tag]),
        ):
            theirs, ours = await asyncio.gather(
                log.read(query), log.read(EventQuery.of(["Moved"], ["a:1"]))
            )
            assert (theirs.events, theirs.upto) == ([], 2)
            assert len(ours.events) == 2
        found = await log.read(EventQuery.of(["Moved", "No\0"], ["a:1"]))
        assert len(found.events) == 2


@pytest.mark.parametrize("tag", STRANGE, ids=["nul", "surrogate", "only nul", "long"])
async def test_a_strange_condition_holds_and_harms_nobody(postgres_url: str, tag: str) -> None:
    """A condition on a tag that no event can have holds; its neighbours are answered as usual."""
    async with opened(postgres_url, remembered=3) as log:
        for _ in range(2):
            await fill(log, 10, "Moved", "a:1")
            strange = Condition(EventQuery((QueryItem(tags=frozenset([tag])),)))
            ours, theirs, point = await asyncio.gather(
                put(log, event(), conditions=(unless("a:1"),)),
                put(log, event(), conditions=(strange,)),
                put(log, event(), conditions=(unless(tag),)),
            )
            assert refused(ours).position == 1
            assert isinstance(theirs, Appended)
            assert isinstance(point, Appended)


def noise(length: int) -> str:
    """Return a text that cannot be compressed."""
    return "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length))


async def test_texts_have_a_longest_that_every_index_can_hold(postgres_url: str) -> None:
    """What is longer is refused before it can fail the transaction of others."""
    most = noise(LONGEST_TEXT)
    async with opened(postgres_url) as log:
        for events, key in (
            ([event("Moved", most + "x")], None),
            ([event(most + "x")], None),
            ([event("Moved", "é" * (LONGEST_TEXT // 2) + "e")], None),
            ([event()], most + "x"),
        ):
            with pytest.raises(Invalid, match=f"at most {LONGEST_TEXT} bytes"):
                await put(log, *events, key=key)
        assert await put(log, event(most, most), key=most) == Appended(1, 1)
        assert await positions(log, EventQuery.of([most], [most])) == [1]


async def test_a_position_beyond_all_is_no_lost_connection(postgres_url: str) -> None:
    """To read after a number that PostgreSQL does not have gives an empty page, at once."""
    async with opened(postgres_url) as log:
        await fill(log, 2)
        for query in (EventQuery(), EventQuery.of(["Moved"], ["a:1"]), EventQuery.of(["Moved"])):
            page = await log.read(query, after=2**70, until=2**80)
            assert page.events == []
            await log.read(query, after=2**63 - 2)


# --- what is done inside --------------------------------------------------------------------------


def failing(how: Callable[[Connection], Awaitable[Any]]) -> Any:
    """Do something within the transaction of each append that has the tag ``bad:1``."""

    async def inside(connection: Connection, events: list[StoredEvent]) -> None:
        if any("bad:1" in stored.tags for stored in events):
            await how(connection)

    return inside


async def no_file(connection: Connection) -> None:
    raise FileNotFoundError("/there/is/no/such/file")


async def swallowed(connection: Connection) -> None:
    with contextlib.suppress(asyncpg.PostgresError):
        await connection.execute("SELECT 1 / 0")


@pytest.mark.parametrize("how", [no_file, swallowed])
async def test_inline_work_that_fails_is_no_lost_connection(
    postgres_url: str, how: Callable[[Connection], Awaitable[Any]]
) -> None:
    """An ``OSError``, or a statement's error that it lets pass, refuses its own append only."""
    async with opened(postgres_url, inside=failing(how)) as log:
        good, bad = await asyncio.gather(put(log, event()), put(log, event("Moved", "bad:1")))
        assert refused(bad).reason == "failed"
        assert good == Appended(1, 1)
        assert await positions(log) == [1]


def test_a_database_that_goes_away_amid_single_appends_is_no_faulty_projection() -> None:
    """The caller gets ``Unavailable``, as everybody else does."""
    gone = Unavailable("gone")
    assert refusal("Place", None, Refused("failed", error=gone)) is gone
    faulty = refusal("Place", None, Refused("failed", error=ValueError()))
    assert isinstance(faulty, ProjectionFailed)


# --- what the server refuses ----------------------------------------------------------------------


async def test_a_cancelled_statement_is_unavailable_and_nothing_is_stored(
    postgres_url: str,
) -> None:
    """An operator who cancels an append, or a timeout of the server's, gives a coded error."""
    async with opened(postgres_url) as log, connected(postgres_url) as admin:
        await put(log, event())
        async with locked(postgres_url):
            appending = asyncio.ensure_future(put(log, event()))
            [pid] = await waiting_for_the_lock(admin)
            await admin.execute("SELECT pg_cancel_backend($1)", pid)
            with pytest.raises(Unavailable, match="nothing of it was stored"):
                await appending
        assert await put(log, event()) == Appended(2, 2)


async def test_a_deadlock_before_anything_was_sent_is_tried_again(postgres_url: str) -> None:
    """The victim of a deadlock takes the lock anew."""
    async with opened(postgres_url) as log, connected(postgres_url) as admin:
        await admin.execute(
            "CREATE SEQUENCE victims;"
            "CREATE FUNCTION lock_head() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$ BEGIN "
            "IF nextval('victims') < 4 THEN RAISE 'victim' USING ERRCODE = '40P01'; END IF; "
            "RETURN (SELECT head FROM diptych.log FOR UPDATE); END $$"
        )
        log._sql.lock_head = "SELECT lock_head()"
        assert await put(log, event()) == Appended(1, 1)
        assert await admin.fetchval("SELECT last_value FROM victims") == 4


async def test_a_wait_for_the_lock_leaves_patience_for_what_comes_after(postgres_url: str) -> None:
    """A connection lost after a long wait for the lock is still replaced, and the append done."""
    patience = 1.0
    async with opened(postgres_url, patience=patience) as log, connected(postgres_url) as admin:
        await put(log, event())
        async with locked(postgres_url):
            begun = asyncio.get_running_loop().time()
            appending = asyncio.ensure_future(put(log, event()))
            pids = await waiting_for_the_lock(admin)

            async def longer_than_patience() -> bool:
                return asyncio.get_running_loop().time() - begun > patience * 1.2

            await until(longer_than_patience)
            await throw_out(admin, pids)
        assert await appending == Appended(2, 2)


async def test_too_many_clients_are_waited_for(postgres_url: str) -> None:
    """Where the server has no connection left, one is sought as long as patience lasts."""
    async with connected(postgres_url) as admin:
        role = f"few_{random.randrange(10**9)}"
        await admin.execute(f"CREATE ROLE {role} LOGIN")
        try:
            await admin.execute(f"GRANT CREATE ON DATABASE {postgres_url.split('/')[-1]} TO {role}")
            async with (
                Proxy(postgres_url.replace("postgres@", f"{role}@")) as proxy,
                opened(proxy.url, patience=LONG) as log,
            ):
                await put(log, event())
                await admin.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
                before = proxy.made
                proxy.cut()
                appending = asyncio.ensure_future(put(log, event()))

                async def tried_often() -> bool:
                    return proxy.made > before + 3

                await until(tried_often)
                await admin.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
                assert await appending == Appended(2, 2)
        finally:
            await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_who_waits_is_told_of_every_error_of_the_poll(postgres_url: str) -> None:
    """An error of any kind ends the waits that are under way; later ones poll again."""
    async with opened(postgres_url, poll=0.01) as log:
        head = log._sql.head
        waiting = asyncio.ensure_future(log.wait(0))

        async def polls() -> bool:
            return log._poller is not None

        await until(polls)
        log._sql.head = "SELECT 1 / 0"
        with pytest.raises(asyncpg.DivisionByZeroError):
            await asyncio.wait_for(waiting, LONG)
        log._sql.head = head
        waiting = asyncio.ensure_future(log.wait(0))
        await put(log, event())
        assert await asyncio.wait_for(waiting, LONG) == 1


# --- opening --------------------------------------------------------------------------------------


async def test_a_schema_made_while_one_looks_at_it_is_not_foreign(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds nothing, and meanwhile another makes the log, opens that log."""
    look = Schema._applied
    looks = 0

    async def slow(schema: Schema, connection: Connection, name: str) -> dict[str, str]:
        nonlocal looks
        looks += 1
        found = await look(schema, connection, name)
        if looks == 1:
            async with opened(postgres_url) as faster:
                await put(faster, event())
        return found

    monkeypatch.setattr(Schema, "_applied", slow)
    async with opened(postgres_url) as log:
        assert await log.head() == 1


async def test_a_database_that_cannot_hold_any_text_is_refused(postgres_url: str) -> None:
    """An encoding other than UTF-8 would fail the appends of neighbours some day."""
    name = f"latin_{random.randrange(10**9)}"
    async with connected(postgres_url) as admin:
        await admin.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' "
            "LOCALE_PROVIDER libc LOCALE 'C'"
        )
        try:
            with pytest.raises(LogUnusable, match="ENCODING 'UTF8'"):
                await PostgresLog.open(postgres_url.rpartition("/")[0] + f"/{name}")
        finally:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


# --- while it is away -----------------------------------------------------------------------------


async def test_a_database_that_is_away_is_not_waited_for_by_each_in_turn(
    postgres_url: str,
) -> None:
    """A hundred callers on two connections share the attempts: no queue of patience."""
    async with (
        Proxy(f"{postgres_url}?connections=2") as proxy,
        opened(proxy.url, patience=0.5) as log,
    ):
        await put(log, event())

        async def noticed() -> bool:
            told = log._waker._telling is None
            return told and all(connection.is_closed() for connection in log._database._idle)

        proxy.refuse()
        proxy.cut()
        await until(noticed)  # otherwise what is sent on one of them is in doubt
        before = proxy.made
        calls: list[Awaitable[Any]] = [log.head() for _ in range(100)]
        calls += [log.recall(["k"]) for _ in range(20)]
        calls += [put(log, event()) for _ in range(20)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(answer) for answer in answers} == {Unavailable}, answers[-1]
        assert proxy.made - before < 60
        proxy.accept()
        assert await put(log, event()) == Appended(2, 2)


async def test_one_lost_connection_costs_one_attempt(postgres_url: str) -> None:
    """Where one connection is lost, the idle ones beside it are not tried one by one."""
    async with Proxy(postgres_url) as proxy, opened(proxy.url) as log:
        await asyncio.gather(*(log.head() for _ in range(8)))
        assert len(log._database._idle) == 8
        proxy.refuse()
        for connection in log._database._idle:
            connection._transport.pause_reading()  # type: ignore[attr-defined]
        proxy.cut()
        tries: list[Connection] = []

        async def ask(connection: Connection) -> int:
            tries.append(connection)
            if len(tries) == 1:
                proxy.accept()
                raise ConnectionResetError
            return int(await connection.fetchval("SELECT 1"))

        assert await log._database.run(ask) == 1
        assert len(tries) == 2


# What a transaction that appends has been told of durability, at the moment of its commit.
WITNESS = f"""
    CREATE TABLE seen (path text, setting text);
    CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO seen VALUES (NEW.type, current_setting('synchronous_commit'));
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER witness AFTER INSERT ON {SCHEMA}.events
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION witness();
"""


async def test_acknowledged_means_durable_whatever_the_role_was_told(postgres_url: str) -> None:
    """With synchronous_commit off for the role, appends wait for the disk, whatever their way."""
    async with opened(postgres_url), connected(postgres_url) as admin:
        await admin.execute(WITNESS)
        await admin.execute(
            "ALTER DATABASE "
            + postgres_url.rpartition("/")[2].partition("?")[0]
            + " SET synchronous_commit = off"
        )
    async with opened(postgres_url) as log, connected(postgres_url) as plain:
        assert await plain.fetchval("SHOW synchronous_commit") == "off"
        await put(log, event("UnderTheLock"))
        await put(log, event("ByOneStatement"))
        appended((await log.append([Append((event("ByTheFunction"),), key="k", content=b"c")]))[0])
        seen = await plain.fetch("SELECT path, setting FROM seen")
    expected = {"UnderTheLock", "ByOneStatement", "ByTheFunction"}
    assert {tuple(row) for row in seen} == {(path, "on") for path in expected}


async def test_whatever_a_tag_is_made_of_it_is_stored(postgres_url: str) -> None:
    """Tags that hold separators, none, several, twice the same: each event keeps its own."""
    plain: list[tuple[str, ...]] = [(), ("a",), ("a", "a"), ("b", "a"), ('"\\,{}',), ("a\nb",)]
    every = [*plain, ("a\x1fb",), ("\x1f",), ("a", "\x1f")]
    async with opened(postgres_url) as log:
        await put(log, event())
        for tags in every:
            await put(log, event("Moved", *tags))
        await put(log, *[event("Moved", *tags) for tags in every])
        await put(log, *[event("Moved", *tags) for tags in plain])
        stored = (await log.read(after=1)).events
        assert [e.tags for e in stored] == [*every, *every, *plain]
        for tag in {tag for tags in every for tag in tags}:
            found = (await log.read(EventQuery.of(["Moved"], [tag]))).events
            assert [e.position for e in found] == [e.position for e in stored if tag in e.tags]


async def test_what_is_older_than_remembered_is_looked_at(postgres_url: str) -> None:
    """A condition on all there ever was is refused for an old event, and holds where none is."""
    async with opened(postgres_url, remembered=4) as log:
        await put(log, event("Moved", "a\x1fb"), event("Moved", "a:1"))
        for _ in range(12):
            await put(log, event())
        for tag, position in (("a:1", 2), ("a\x1fb", 1)):
            [outcome] = await log.append([Append((event("Moved", tag),), (unless(tag),))])
            assert refused(outcome).position == position
        for tag, position in (("a:2", 15), ("b\x1fb", 16)):
            [outcome] = await log.append([Append((event("Moved", tag),), (unless(tag),))])
            assert appended(outcome).last == position
