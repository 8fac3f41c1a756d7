"""Versions of projections in a SQLite connection. Runs on the database's threads."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from diptych.read.opening import tables_of_none
from diptych.read.port import Definition, Difference, Turn, Version
from diptych.read.stored import NO_TIME, moment_of
from diptych.read.stores.sqlite.rows import SQL as ROWS
from diptych.read.stores.sqlite.rows import positions_of, quoted
from diptych.sql.named import named_statements
from diptych.sql.sqlite import patiently

SQL = named_statements(__name__.rpartition(".")[0], "versions.sql")

_DROPS = ("drop_checkpoints", "drop_blocks", "drop_proofs", "drop_parked", "drop_pauses")

_encode = msgspec.json.Encoder().encode
_tables = msgspec.json.Decoder(dict[str, str]).decode


def read_versions(connection: sqlite3.Connection) -> list[Version]:
    """Return all versions; none where there is no table of them."""
    there = {name for (name,) in connection.execute(ROWS["tables"]).fetchall()}
    if "diptych_versions" not in there:
        return []
    found: list[Version] = []
    for row in connection.execute(SQL["versions"]).fetchall():
        projection, version, instance, tables, state, parts, since, turn = row
        moment = moment_of(since) or NO_TIME
        found.append(
            Version(projection, version, instance, _tables(tables), state, parts, moment, turn)
        )
    return found


def claim(connection: sqlite3.Connection, versions: Sequence[Version]) -> None:
    """Note versions that are not there."""
    for one in versions:
        values = (one.projection, one.version, one.instance, _encode(one.tables).decode())
        connection.execute(SQL["claim"], (*values, one.state, one.parts, one.since.isoformat()))


def turn(connection: sqlite3.Connection, changes: Sequence[Turn], *, level: bool) -> bool:
    """Change versions, in a transaction."""
    return _all_or_none(connection, lambda: _turn(connection, changes, level=level))


def forget(connection: sqlite3.Connection, gone: Sequence[Version]) -> bool:
    """Delete versions, in a transaction."""
    return _all_or_none(connection, lambda: _forget(connection, gone))


def _all_or_none(connection: sqlite3.Connection, work: Callable[[], bool]) -> bool:
    patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
    done = False
    try:
        done = work()
    finally:
        connection.execute("COMMIT" if done else "ROLLBACK")
    return done


def _turn(connection: sqlite3.Connection, changes: Sequence[Turn], *, level: bool) -> bool:
    if level:
        reached = {
            change.after.state: connection.execute(
                SQL["reached"], (change.after.instance,)
            ).fetchone()[0]
            for change in changes
        }
        if reached["live"] < reached["old"]:
            return False
    (last,) = connection.execute(SQL["last_turn"]).fetchone()
    for change in changes:
        before, after = change.before, change.after
        cursor = connection.execute(
            SQL["turn"],
            (
                *(after.version, _encode(after.tables).decode(), after.state, after.parts),
                *(after.since.isoformat(), last + 1),
                *(before.projection, before.version, before.instance, before.state),
            ),
        )
        if cursor.rowcount != 1:
            return False
        if after.state == "dropped":
            for name in _DROPS:
                connection.execute(SQL[name], (after.instance,))
            for table in after.tables.values():
                connection.execute(f"DROP TABLE IF EXISTS {quoted(table)}")
    return True


def _forget(connection: sqlite3.Connection, gone: Sequence[Version]) -> bool:
    (last,) = connection.execute(SQL["last_turn"]).fetchone()
    for row in gone:
        known = (row.projection, row.version, row.instance, row.state)
        if connection.execute(SQL["forget"], known).rowcount != 1:
            return False
        for name in _DROPS:
            connection.execute(SQL[name], (row.instance,))
    connection.execute(SQL["count_on"], (last + 1,))
    for table in tables_of_none(gone, read_versions(connection)):
        connection.execute(f"DROP TABLE IF EXISTS {quoted(table)}")
    return True


def compare(
    connection: sqlite3.Connection,
    definition: Definition,
    tables: tuple[str, str],
    columns: Sequence[str],
    most: int,
) -> Difference:
    """Compare two tables, within a transaction that reads."""
    a, b = map(quoted, tables)
    keys = [quoted(field.name) for field in definition.key_fields]
    others = [name for name in columns if quoted(name) not in keys]
    on = " AND ".join(f"a.{key} = b.{key}" for key in keys)
    unequal = [f"a.{quoted(name)} IS NOT b.{quoted(name)}" for name in others] or ["0"]
    differ = " OR ".join(unequal)
    both = f"FROM {a} AS a JOIN {b} AS b ON {on} WHERE {differ}"
    only_a = f"FROM {a} AS a LEFT JOIN {b} AS b ON {on} WHERE b.{keys[0]} IS NULL"
    only_b = f"FROM {b} AS b LEFT JOIN {a} AS a ON {on} WHERE a.{keys[0]} IS NULL"

    def first(sql: str) -> Any:
        return connection.execute(sql).fetchone()

    sums = ", ".join(["count(*)", *(f"coalesce(sum({one}), 0)" for one in unequal)])
    differing, *each = first(f"SELECT {sums} {both}")
    rows = first(f"SELECT count(*) FROM {b}")[0]
    missing, extra = (first(f"SELECT count(*) {sql}")[0] for sql in (only_a, only_b))
    examples: list[tuple[Any, Any, Any]] = []
    width = len(others)
    key_of = [f"coalesce(a.{key}, b.{key})" for key in keys]
    shown = [f"{t}.{quoted(name)}" for t in ("a", "b") for name in others]
    for sql, has_a, has_b in ((both, 1, 1), (only_a, 1, 0), (only_b, 0, 1)):
        limit = f"ORDER BY {', '.join(key_of)} LIMIT {most - len(examples)}"
        for row in connection.execute(f"SELECT {', '.join(key_of + shown)} {sql} {limit}"):
            key, values = row[: len(keys)], row[len(keys) :]
            left = dict(zip(others, values[:width], strict=True)) if has_a else None
            right = dict(zip(others, values[width:], strict=True)) if has_b else None
            examples.append((key[0] if len(keys) == 1 else key, left, right))
    there = positions_of(first(ROWS["positions"])[0])
    counted = {n: int(c) for n, c in zip(others, each, strict=False) if c}
    there.pop("", None)
    return Difference(
        definition.table_name, rows, missing, extra, differing, counted, examples, there
    )
