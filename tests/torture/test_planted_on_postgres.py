"""The runs find the bugs that PostgreSQL invites to: each test plants one, and names the point."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from diptych import DiptychError, Running
from diptych.errors import OutcomeUnknown
from diptych.log import Append, Outcome, Refused
from diptych.logs.postgres import PostgresLog, writing
from diptych.read.stores.postgres import PostgresViews, rows
from diptych.sql import connecting, postgres
from diptych.sql.judge import Judge
from diptych.sql.postgres import Connection
from diptych.testing.checker import check_history, check_views
from diptych.testing.contracts.making import event
from diptych.testing.faults import Proxy
from diptych.testing.history import History
from diptych.testing.recording import Recorder
from diptych.testing.servers import PostgresServer
from diptych.testing.servers import postgres as server_of
from tests.logs.on_postgres import (
    connected,
    has_told,
    locked,
    marked,
    sessions,
    until,
    waiting_for_the_lock,
)
from tests.logs.on_postgres import opened as opened_log
from tests.torture.planting import KEYS, LOCK, MOVE, Planter, finds, interleaved, points
from torture.application import Move, Open, accounts
from torture.backends import Postgres
from torture.cuts import cuts_of_logs
from torture.histories import histories
from torture.interleavings.scripts import FOURS, Script, follow_all, note
from torture.races import races
from torture.server import server
from torture.soak import soak

DECIDERS, READERS = FOURS[0], FOURS[1]
WRITERS_AND_A_READER = Script("writers and a reader", (note, note, follow_all), 4)


@pytest.fixture
def planter(monkeypatch: pytest.MonkeyPatch) -> Planter:
    return Planter(monkeypatch)


@pytest.fixture
def backend(postgres_server: PostgresServer) -> Postgres:
    return Postgres(postgres_server)


# --- the lock -------------------------------------------------------------------------------------

CHECK = """EXISTS (
        SELECT FROM unnest(leg_tag, leg_type, leg_after) AS leg (tag, type, after)
        CROSS JOIN LATERAL (
            SELECT FROM {schema}.event_tags AS t
            WHERE t.tag = leg.tag AND t.type = leg.type AND t.position > leg.after
            LIMIT 1
        ) AS found
    )"""


async def test_sound_interleavings(backend: Postgres) -> None:
    """Nothing is found without a bug."""
    for script in (DECIDERS, WRITERS_AND_A_READER):
        assert await interleaved(backend.new_log(), script) == set()


def unlocked(planter: Planter) -> None:
    """Check without a lock; the head row is locked when it moves, and positions are right."""
    planter.schema(
        (LOCK, LOCK.replace(" FOR UPDATE", "")),
        (
            KEYS,
            "    UPDATE {schema}.log AS l SET head = l.head + cardinality(ids)\n"
            "    RETURNING l.head - cardinality(ids) INTO base;\n" + KEYS,
        ),
        (MOVE, ""),
    )


async def test_no_lock_step_by_step(backend: Postgres, planter: Planter) -> None:
    """Bug: the conditions are checked, and then the head row is locked."""
    unlocked(planter)
    assert 6 in await interleaved(backend.new_log(), DECIDERS)


async def test_no_lock_in_races(backend: Postgres, planter: Planter, tmp_path: Path) -> None:
    """Bug: the same. Races of processes come upon it by chance."""
    unlocked(planter)
    assert await finds(6, lambda rng: races(backend.within(tmp_path), rng), rounds=40)


async def test_lock_and_check_in_one_statement(backend: Postgres, planter: Planter) -> None:
    """Bug: what is checked is what was there before the lock was waited for."""
    planter.schema(
        (LOCK, LOCK.replace("l.head INTO base", f"l.head, {CHECK} INTO base, found")),
        (
            f"    IF cardinality(leg_tag) > 0 AND {CHECK}",
            "    IF cardinality(leg_tag) > 0 AND found",
        ),
        ("    base bigint;", "    base bigint;\n    found bool;"),
    )
    assert 6 in await interleaved(backend.new_log(), DECIDERS)


# --- positions from a sequence --------------------------------------------------------------------

SEQUENCE = """
CREATE SEQUENCE {schema}.positions MINVALUE 0 START 0;
ALTER TABLE {schema}.log RENAME TO log_row;
CREATE VIEW {schema}.log AS
SELECT one, identity, (SELECT coalesce(max(position), 0) FROM {schema}.events) AS head, created
FROM {schema}.log_row;
CREATE FUNCTION {schema}.locked_head() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7);
    RETURN (SELECT head FROM {schema}.log);
END $$;
"""
"""The head is the highest position that can be seen; positions are handed out by a sequence."""

NEXT = """
    PERFORM pg_advisory_lock(8);
    SELECT last_value INTO base FROM {schema}.positions;
    PERFORM setval('{schema}.positions', base + cardinality(ids));
    PERFORM pg_advisory_unlock(8);
"""


def sequence(planter: Planter, lock: str) -> None:
    planter.function_only()
    base = "SELECT last_value INTO base FROM {schema}.positions;"
    planter.schema(
        (LOCK, lock + base),
        (KEYS, NEXT + KEYS),
        (MOVE, ""),
        ("    head := base;", "    head := base;\n    since := coalesce(since, '[]');"),
        behind=SEQUENCE,
    )
    planter.statement("lock_head", "head FROM {schema}.log WHERE", "{schema}.locked_head() WHERE")
    planter.statement("lock_head", "FOR UPDATE", "")


ADVISORY = "PERFORM pg_advisory_xact_lock(7);"


async def test_repeatable_read(
    backend: Postgres, planter: Planter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the same under REPEATABLE READ. (Our own head row, which moves, would be noticed.)"""
    sequence(planter, lock=ADVISORY)
    settings = connecting.settings
    isolation = {"default_transaction_isolation": "repeatable read"}
    monkeypatch.setattr(postgres, "settings", lambda silence: settings(silence) | isolation)
    assert 6 in await interleaved(backend.new_log(), DECIDERS)


# --- reading --------------------------------------------------------------------------------------


async def test_a_missing_order_by(backend: Postgres, planter: Planter, tmp_path: Path) -> None:
    """Bug: of the events of several tags some are taken, not the first."""
    planter.statement("read_legs", "AS p ORDER BY position LIMIT", "AS p LIMIT")
    assert await finds(8, lambda rng: histories(backend.within(tmp_path), rng), rounds=40)


# --- lost connections -----------------------------------------------------------------------------


async def test_ids_that_are_not_looked_up(
    backend: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: after a lost connection the events are stored again."""

    async def nothing(_: object, connection: Any) -> None:
        await connection.execute("SELECT 1")

    monkeypatch.setattr(writing.Writer, "_stored_after_all", nothing)
    assert await finds(1, lambda rng: cuts_of_logs(backend, rng, 1, 5.0), rounds=30)


@pytest.mark.parametrize("unknown", [False, True])
async def test_a_message_that_comes_late(
    postgres_url: str, planter: Planter, unknown: bool
) -> None:
    """Bug: the function does not look whether its events were stored by another connection."""
    if unknown:
        planter.schema(("e.id = ANY (ids)", "false"))
    history = History()
    async with (
        Proxy(postgres_url) as proxy,
        opened_log(proxy.url) as log,
        opened_log(postgres_url) as other,
    ):
        recorders = [Recorder(log, history, "one"), Recorder(other, history, "other")]
        for recorder in recorders * 2:  # they know of each other, and append by one call
            await recorder.append([Append((event("Moved"),))])
            await until(partial(has_told, recorder.log))
        fault = proxy.hold(b"late")
        await recorders[0].append([Append((marked("late"),))])
        await fault.release()
        assert points(await check_history(history, other)) == ({1} if unknown else set())


async def test_an_unknown_outcome_that_is_called_a_conflict(
    backend: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: who does not know whether the events were stored, says that they were not."""
    append = writing.Writer.append

    async def guessing(writer: writing.Writer, batches: Any) -> list[list[Outcome]]:
        try:
            return await append(writer, batches)
        except OutcomeUnknown:
            return [[Refused("conflict", 1) for _ in batch] for batch in batches]

    monkeypatch.setattr(writing.Writer, "append", guessing)
    assert await finds(3, lambda rng: cuts_of_logs(backend, rng, 3, 0.1), rounds=30)


async def nobody_waits(admin: Connection) -> bool:
    return not [one for one in await sessions(admin) if one["wait_event_type"] == "Lock"]


@pytest.mark.parametrize("swallowed", [False, True])
async def test_a_cancelled_commit_that_is_swallowed(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, swallowed: bool
) -> None:
    """Bug: the caller's cancellation reaches the transaction, and is taken for its success."""
    judged: list[list[Outcome]] = []
    answer_all = Judge.answer_all

    def noted(judge: Judge, batches: Any) -> list[list[Outcome]]:
        judged[:] = answer_all(judge, batches)
        return judged

    async def append(log: PostgresLog, batch: Sequence[Append]) -> list[Outcome]:
        with suppress(asyncio.CancelledError):
            await log._append([batch])
        return judged[0]

    history = History()
    async with opened_log(postgres_url) as log, connected(postgres_url) as admin:
        recorder = Recorder(log, history)
        for _ in range(2):  # telling may have taken a new connection: it judges before it locks
            await recorder.append([Append((event("Moved", "a:1"),))])
            await until(partial(has_told, log))
        with monkeypatch.context() as planted:
            if swallowed:
                planted.setattr(Judge, "answer_all", noted)
                planted.setattr(PostgresLog, "append", append)
            async with locked(postgres_url):
                task = asyncio.ensure_future(recorder.append([Append((event("Moved", "a:1"),))]))
                await waiting_for_the_lock(admin)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                if swallowed:
                    await until(partial(nobody_waits, admin))
        await recorder.append([Append((event("Moved", "a:1"),))])
        assert points(await check_history(history, log)) == ({1} if swallowed else set())


# --- crashes --------------------------------------------------------------------------------------


async def test_commits_that_do_not_wait_for_the_disk(planter: Planter, tmp_path: Path) -> None:
    """Bug: synchronous_commit is off, and what was acknowledged is still in memory at the crash.

    That fsync is off no SIGKILL can show: what was written is safe with the system.
    """
    planter.function_only()
    planter.schema((LOCK, "PERFORM set_config('synchronous_commit', 'off', true);\n" + LOCK))
    with server_of(durable=True, settings={"wal_writer_delay": "10s"}) as crashing:
        backend = Postgres(crashing)
        assert await finds(1, lambda rng: server(backend.within(tmp_path), rng))


async def test_connections_that_are_kept(backend: Postgres) -> None:
    """Bug: an application that is closed leaves a connection behind."""
    found = await soak(backend, random.Random(1), "tests.torture.plants:connections_kept")
    assert any(text.startswith("connections grow on") for text in found)


# --- views ----------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(log: str) -> AsyncGenerator[Running]:
    views = log.replace("schema=log_", "schema=views_")
    async with accounts().open(log=log, views=views, projections=False) as running:
        yield running


async def work(running: Running, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(4):
        with suppress(DiptychError):
            await running.do(Open(f"a{number}"))
    for _ in range(12):
        source, target = rng.sample(range(4), 2)
        await running.do(Move(f"a{source}", f"a{target}", rng.randint(1, 20)))


FENCE = "AND position = {}\n        AND count = {} AND digest = {}"


@pytest.mark.parametrize("fenced", [True, False])
async def test_an_unfenced_checkpoint(
    backend: Postgres, monkeypatch: pytest.MonkeyPatch, fenced: bool
) -> None:
    """Bug: two workers move one checkpoint, and neither looks whether it has moved."""
    if not fenced:
        assert rows.SQL["move"].count(FENCE) == 1
        careless = "AND ({}::bigint, {}::bigint, {}::text) IS NOT NULL"
        monkeypatch.setitem(rows.SQL, "move", rows.SQL["move"].replace(FENCE, careless))
    log = backend.new_log()
    async with opened(log) as one, opened(log) as other:
        await work(one, 1)
        await one.catch_up()
        await other.catch_up()
        await work(one, 2)
        late: list[tuple[PostgresViews, Sequence[Any]]] = []
        with monkeypatch.context() as planted:

            async def pause(store: PostgresViews, changes: Sequence[Any]) -> list[bool]:
                late.append((store, changes))  # before its transaction
                await asyncio.sleep(0)
                return [True] * len(changes)

            planted.setattr(PostgresViews, "apply", pause)
            await other.catch_up()
        await one.catch_up()
        await work(one, 3)
        await one.catch_up()
        for store, changes in late:
            await store.apply(changes)
        assert points(await check_views(one)) == (set() if fenced else {9})
