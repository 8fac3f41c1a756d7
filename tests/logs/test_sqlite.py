"""What the SQLite log does beyond the contract: its file, its plans, its failures."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from diptych.errors import LogUnusable, SqliteVersionWarning, Unavailable
from diptych.log import (
    Append,
    Appended,
    Condition,
    EventQuery,
    Outcome,
    Refused,
    StoredEvent,
)
from diptych.logs.sqlite import SqliteLog, statements
from diptych.logs.sqlite.statements import SQL, over_legs, over_points
from diptych.sql import sqlite as database_module
from diptych.sql.ranges import legs_of
from diptych.sql.sqlite import Database, filesystem_of, has_wal_reset_bug, refuse_network
from diptych.testing.contracts.making import any_of, event, everything, fill, only, put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def log(path: Path) -> AsyncIterator[SqliteLog]:
    log = await SqliteLog.open(path)
    yield log
    await log.close()


# --- the file -------------------------------------------------------------------------------------


async def test_the_file_is_read_with_the_sqlite_shell(log: SqliteLog, path: Path) -> None:
    """Events, tags and keys lie in plain columns, JSON as text."""
    await put(log, event("Moved", "a:1", "b:é", data=b'{"to":"JFK"}'), key="k", content=b"c")
    with sqlite3.connect(path) as shell:
        columns = "position, type, tags, data ->> 'to', typeof(data), typeof(metadata)"
        (row,) = shell.execute(f"SELECT {columns} FROM events").fetchall()
        assert row == (1, "Moved", '["a:1","b:é"]', "JFK", "text", "text")
        tags = shell.execute("SELECT tag, type, position FROM event_tags ORDER BY tag").fetchall()
        assert tags == [("", "Moved", 1), ("a:1", "Moved", 1), ("b:é", "Moved", 1)]
        key = shell.execute("SELECT key, content, first, last, rejection FROM idempotency_keys")
        assert key.fetchall() == [("k", b"c", 1, 1, None)]
        assert shell.execute("SELECT identity, head FROM log").fetchall() == [(log.identity, 1)]
        assert shell.execute("PRAGMA application_id").fetchone() == (0x44797074,)
        assert shell.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    shell.close()


@pytest.mark.parametrize("change", ["UPDATE events SET data = '{}'", "DELETE FROM events"])
async def test_events_are_never_changed_nor_deleted(
    log: SqliteLog, path: Path, change: str
) -> None:
    """The database itself refuses to change or delete an event."""
    await fill(log, 2)
    before = await everything(log)
    shell = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="events are never"):
        shell.execute(change)
    shell.close()
    assert await everything(log) == before


async def test_every_commit_is_synced(path: Path) -> None:
    """The writing connection runs with WAL and an fsync at each commit."""
    database = Database(path)
    log = await SqliteLog.open(database)
    pragma: Callable[[str], Callable[[sqlite3.Connection], Any]] = lambda name: (  # noqa: E731
        lambda connection: connection.execute(f"PRAGMA {name}").fetchone()[0]
    )
    assert await database.write(pragma("journal_mode")) == "wal"
    assert await database.write(pragma("synchronous")) == 2
    assert await database.read(pragma("wal_autocheckpoint")) == 0
    assert await database.read(pragma("query_only")) == 1
    await log.close()
    assert await database.read(pragma("query_only")) == 1  # it was handed in, so it stays open
    await database.close()


async def test_a_file_of_another_kind_is_refused(path: Path) -> None:
    """A SQLite database that is no log is refused by name, and left as it was."""
    shell = sqlite3.connect(path)
    shell.execute("CREATE TABLE albums (title TEXT)")
    shell.close()
    with pytest.raises(LogUnusable, match=r"not a log.*tables: albums"):
        await SqliteLog.open(path)
    shell = sqlite3.connect(path)
    assert shell.execute("SELECT name FROM sqlite_master").fetchall() == [("albums",)]
    shell.close()


async def test_what_is_no_database_is_refused(path: Path) -> None:
    """A file that is no SQLite database, or cannot be opened, is refused."""
    path.write_bytes(b"Dear diary, " * 100)
    with pytest.raises(LogUnusable, match="cannot be opened"):
        await SqliteLog.open(path)
    with pytest.raises(LogUnusable, match="cannot be opened"):
        await SqliteLog.open(path.parent / "nowhere" / "log.db")


async def test_a_newer_schema_is_refused(log: SqliteLog, path: Path) -> None:
    """A log that a newer version has written is not touched."""
    shell = sqlite3.connect(path)
    shell.execute("PRAGMA user_version = 99")
    shell.close()
    with pytest.raises(LogUnusable, match=r"newer version.*schema_of_file: 99"):
        await SqliteLog.open(path)


async def test_a_private_database_is_refused() -> None:
    """A database in memory cannot hold a log: nobody else could read it."""
    database = Database(None)
    with pytest.raises(LogUnusable, match="MemoryLog"):
        await SqliteLog.open(database)
    await database.close()


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path on a network file system is recognised by its mount, and refused."""
    mounts = ["/dev/vda / ext4 rw 0 0", "nas:/x /mnt/nas nfs4 rw 0 0", "y /mnt/a\\040b cifs rw 0 0"]
    assert filesystem_of(Path("/mnt/nas/deep/log.db"), mounts) == "nfs4"
    assert filesystem_of(Path("/mnt/a b/log.db"), mounts) == "cifs"
    assert filesystem_of(Path("/mnt/nasty/log.db"), mounts) == "ext4"
    refuse_network(tmp_path / "log.db")
    monkeypatch.setattr(database_module, "filesystem_of", lambda *_: "nfs4")
    with pytest.raises(LogUnusable, match="network file system"):
        Database(tmp_path / "log.db")


def test_versions_with_the_wal_reset_bug_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixed in 3.51.3, 3.50.7 and 3.44.6; older and in between, a warning is given."""
    sound = [(3, 51, 3), (3, 52, 0), (3, 50, 7), (3, 50, 9), (3, 44, 6)]
    buggy = [(3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 50, 6), (3, 51, 0), (3, 51, 2)]
    assert not any(map(has_wal_reset_bug, sound))
    assert all(map(has_wal_reset_bug, buggy))
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 0))
    with pytest.warns(SqliteVersionWarning, match="WAL-reset"):
        database_module.warn_of_version()


# --- plans and steps ------------------------------------------------------------------------------


async def plan(log: SqliteLog, sql: str, parameters: Any) -> str:
    rows = await log._database.read(
        lambda connection: connection.execute("EXPLAIN QUERY PLAN " + sql, parameters).fetchall()
    )
    return "\n".join(row[3] for row in rows)


async def test_filtered_reads_use_the_index(log: SqliteLog) -> None:
    """A read by tags and types seeks in the index and merges in its order, without a sort."""
    await fill(log, 50, "Moved", "a:1", "b:1")
    one = EventQuery.of(["Moved", "Noted"], ["a:1"])
    for query, seeks in (
        (one, 2),
        (EventQuery.of(["Moved"], ["a:1", "b:1"]), 2),
        (EventQuery.of(["Moved", "Noted", "Opened"]), 3),
        (any_of((["Moved"], ["a:1"]), (["Noted"], [])), 2),
    ):
        for statement in ("read_legs", "match_legs"):
            legs = legs_of(query.items, lambda _: ())
            for sql, parameters in over_legs(statement, legs, 0, 99, 10):
                found = await plan(log, sql, parameters)
                assert found.count("USING PRIMARY KEY (tag=? AND type=? AND position") == seeks, (
                    found
                )
                assert "TEMP B-TREE" not in found
                assert "SCAN t" not in found
    points = [(n, f"a:{n}", "Moved", 0) for n in range(3)]
    statement, values = over_points("first_matches", points, 9)
    found = await plan(log, statement, tuple(values))
    assert "SEARCH t USING PRIMARY KEY (tag=? AND type=? AND position>?" in found
    statement, values = over_points("read_points", [(*point, 9) for point in points], 1000)
    found = await plan(log, statement, tuple(values))
    assert "SEARCH t USING PRIMARY KEY (tag=? AND type=? AND position>?" in found
    assert "SEARCH e USING INTEGER PRIMARY KEY" in found


async def test_keys_and_types_are_found_by_seeking(log: SqliteLog) -> None:
    """Neither the look-up of keys nor that of a tag's types scans a table."""
    assert "SEARCH kept USING PRIMARY KEY (key=?)" in await plan(log, SQL["recall"], ("[]",))
    found = await plan(log, SQL["types_of_tag"], ("a:1", "a:1"))
    assert "SEARCH event_tags USING PRIMARY KEY (tag=? AND type>?)" in found
    assert "SCAN event_tags" not in found
    assert "SEARCH e USING INTEGER PRIMARY KEY" in await plan(log, reading_all(), (0, 10))


def reading_all() -> str:
    return SQL["read_all"].format(event=SQL["event"])


def test_no_parameter_has_a_number() -> None:
    """Python 3.12.1 takes ``?1`` for a name, and warns that a list of values has none."""
    legs = [("a:1", "Moved", ("b:1", "c:1")), ("a:2", "Noted", ())]
    texts = [
        sql for name in ("read_legs", "match_legs") for sql, _ in over_legs(name, legs, 0, 9, 1)
    ]
    assert [sql.count("?") for sql in texts] == [11, 11]
    views = files("diptych.read.stores.sqlite")
    texts += [file.read_text() for file in views.iterdir() if file.name.endswith(".sql")]
    assert not [sql for sql in (*texts, *SQL.values()) if re.search(r"\?\d", sql)]


async def test_appends_that_wait_together_share_a_transaction(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred tasks that append at the same time cause few commits."""
    calls = 0
    together = log._writer.append

    def counting(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        return together(*given)

    monkeypatch.setattr(log._writer, "append", counting)
    await asyncio.gather(*(put(log, event()) for _ in range(100)))
    assert calls == 1


async def test_batches_that_share_a_transaction_keep_their_own_indexes(log: SqliteLog) -> None:
    """``since`` and ``seen`` mean appends of the caller's batch, whoever else is in the commit."""

    async def build(name: str) -> list[Outcome]:
        query = only(name).query
        batch = [
            Append((event("Moved", name),), (Condition(query),)),
            Append((event("Moved", name),), (Condition(query, since=0),)),
            Append((event("Moved", name),), (Condition(query, seen=(0, 1)),)),
        ]
        return await log.append(batch)

    for outcomes in await asyncio.gather(*(build(f"a:{n}") for n in range(20))):
        assert all(isinstance(outcome, Appended) for outcome in outcomes)


async def test_a_query_of_very_many_ranges_is_read(log: SqliteLog) -> None:
    """More tags and types than one statement can join are read by several."""
    await log.append([Append((event(f"T{n % 7}", f"a:{n % 50}"),)) for n in range(500)])
    items = [([f"T{t}"], [f"a:{a}"]) for t in range(7) for a in range(0, 50, 2)]
    query = any_of(*items, *(([f"T{t}", "T9"], [f"a:{a}"]) for t in range(9) for a in range(50)))
    stored = await everything(log)
    for limit in (3, 499, 1000):
        page = await log.read(query, limit=limit)
        assert page.events == stored[:limit]
        assert page.upto == min(limit, 500)
    assert refused_at(await put(log, conditions=(Condition(query, after=7),))) == 8
    forgetful = await SqliteLog.open(log._database)
    assert refused_at(await put(forgetful, conditions=(Condition(query, after=7),))) == 8
    await forgetful.close()


async def test_a_page_too_long_for_sqlite_is_cut(path: Path) -> None:
    """A page whose text is longer than SQLite lets a value be comes as several smaller ones."""
    database = Database(path)
    log = await SqliteLog.open(database)
    data = b'{"x":"' + b"x" * 20_000 + b'"}'
    await log.append([Append((event("Large", f"a:{n % 2}", data=data),)) for n in range(20)])
    limit = sqlite3.SQLITE_LIMIT_LENGTH
    before = await database.read(lambda connection: connection.setlimit(limit, 100_000))
    point = EventQuery.of(["Large"], ["a:1"])
    assert [e.position for e in await everything(log)] == list(range(1, 21))
    assert [e.position for e in await everything(log, point)] == list(range(2, 21, 2))
    pages = await asyncio.gather(*(log.read(point) for _ in range(3)))
    assert all(page.events and page.events[-1].position == page.upto for page in pages)
    await database.read(lambda connection: connection.setlimit(limit, before))
    await log.close()
    await database.close()


def refused_at(outcome: Outcome) -> int:
    assert isinstance(outcome, Refused)
    return outcome.position


def test_every_statement_has_a_name() -> None:
    """The SQL file falls into its named statements, without the remarks."""
    assert {"head", "leg", "read_all", "event", "recall"} <= set(SQL)
    assert not any("-- " in text for text in SQL.values())
    assert statements.schema().count("CREATE TABLE") == 4


# --- failures -------------------------------------------------------------------------------------


async def test_a_full_disk_is_unavailable_and_work_resumes(path: Path) -> None:
    """When the disk is full nothing of the batch is stored; when there is room, appends go on."""
    database = Database(path)
    log = await SqliteLog.open(database)
    await fill(log, 1, "Moved", "a:1")

    def limit(pages: int) -> Callable[[sqlite3.Connection], Any]:
        return lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    await database.write(limit(20))
    large = event("Large", "a:2", data=b'{"x":"' + b"x" * 200_000 + b'"}')
    with pytest.raises(Unavailable, match="full"):
        await log.append([Append((event("Moved", "a:2"),)), Append((large,), key="k")])
    assert await log.head() == 1
    assert await log.recall(["k"]) == {}
    await database.write(limit(100_000))
    assert await put(log, large, key="k", conditions=(only("a:2"),)) == Appended(2, 2)
    assert refused_at(await put(log, conditions=(only("a:1"),))) == 1
    await log.close()
    await database.close()


async def test_a_locked_file_is_unavailable_and_work_resumes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process holds the write lock too long, appends fail; readers go on."""
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.01)
    log = await SqliteLog.open(path)
    await fill(log, 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        await put(log, event())
    assert len((await log.read()).events) == 1
    other.execute("ROLLBACK")
    other.close()
    assert await put(log, event()) == Appended(2, 2)
    await log.close()


async def test_work_inside_the_append_is_of_its_transaction(path: Path) -> None:
    """What is done inside gets the new events, and is stored with them or not at all."""
    seen: list[tuple[int, str, bytes]] = []

    def inside(connection: sqlite3.Connection, events: list[StoredEvent]) -> None:
        seen.extend((e.position, e.type, bytes(e.data)) for e in events)
        for stored in events:
            connection.execute("INSERT INTO view VALUES (?)", (stored.position,))
            if stored.type == "Poison":
                raise ValueError(f"position {stored.position}")

    database = Database(path)
    log = await SqliteLog.open(database, inside=inside)
    await database.write(lambda c: c.execute("CREATE TABLE view (position)").fetchall())
    await put(log, event("Moved", data=b'{"n":1}'))
    assert seen == [(1, "Moved", b'{"n":1}')]
    batch = [
        Append((event("First"),), key="k1"),
        Append((event("Poison", "p:1"), event("After")), key="k2"),
        Append((event("Never"),), (Condition(only("z:1").query, since=1),)),
        Append((event("Second"),), (only("p:1"), Condition(only("z:1").query, since=0))),
        Append((event("Again"),), key="k1"),
    ]
    first, poison, never, second, again = await log.append(batch)
    assert (first, second) == (Appended(2, 2), Appended(3, 3))
    assert again == Appended(2, 2, replayed=True)
    assert isinstance(poison, Refused)
    assert poison.reason == "failed"
    assert isinstance(poison.error, ValueError)
    assert isinstance(never, Refused)
    assert never.reason == "unfounded"
    assert [e.type for e in await everything(log)] == ["Moved", "First", "Second"]
    rows = await database.read(lambda c: c.execute("SELECT position FROM view").fetchall())
    assert rows == [(1,), (2,), (3,)]
    assert await log.recall(["k2"]) == {}
    await log.close()
    await database.close()


async def test_a_full_disk_inside_is_answered_by_append(path: Path) -> None:
    """When appends are stored singly and one meets a full disk, it alone has failed."""

    def inside(connection: sqlite3.Connection, events: list[StoredEvent]) -> None:
        if any(e.type == "Poison" for e in events):
            raise sqlite3.OperationalError("database or disk is full")

    log = await SqliteLog.open(path, inside=inside)
    outcomes = await log.append([Append((event("Poison"),)), Append((event("Moved"),))])
    assert isinstance(outcomes[0], Refused)
    assert outcomes[0].reason == "failed"
    assert outcomes[1] == Appended(1, 1)
    await log.close()


async def test_nobody_polls_when_nobody_waits(log: SqliteLog) -> None:
    """Many who wait share one task that polls; it ends with the last of them."""
    waiters = [asyncio.ensure_future(log.wait(0)) for _ in range(10)]
    await asyncio.sleep(0)
    poller = log._poller
    assert poller is not None
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    await asyncio.gather(poller, return_exceptions=True)
    assert poller.cancelled()
    assert log._poller is None
