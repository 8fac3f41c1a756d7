"""Versions of projections in PostgreSQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from diptych.read.opening import tables_of_none
from diptych.read.port import Definition, Difference, Turn, Version
from diptych.read.stores.postgres.rows import SQL as ROWS
from diptych.read.stores.postgres.rows import positions_of, quoted
from diptych.sql.named import named_statements
from diptych.sql.postgres import Connection

_SQL = named_statements(__name__.rpartition(".")[0], "versions.sql")

_DROPS = ("drop_checkpoints", "drop_blocks", "drop_proofs", "drop_parked", "drop_pauses")

_encode = msgspec.json.Encoder().encode
_tables = msgspec.json.Decoder(dict[str, str]).decode


def _sql(name: str, schema: str) -> str:
    return _SQL[name].replace("{schema}", schema)


async def read_versions(connection: Connection, schema: str) -> list[Version]:
    """Return all versions; none where there is no table of them."""
    if not await connection.fetchval(_sql("there", schema)):
        return []
    return [
        Version(name, version, instance, _tables(tables), *rest)
        for name, version, instance, tables, *rest in await connection.fetch(
            _sql("versions", schema)
        )
    ]


async def claim(connection: Connection, schema: str, versions: Sequence[Version]) -> None:
    """Note versions that are not there, in a transaction."""
    async with connection.transaction():
        await connection.execute(_sql("lock", schema))
        for one in versions:
            await connection.execute(
                _sql("claim", schema),
                *(one.projection, one.version, one.instance, _encode(one.tables).decode()),
                *(one.state, one.parts, one.since),
            )


async def turn(
    connection: Connection, schema: str, changes: Sequence[Turn], *, level: bool
) -> bool:
    """Change versions, in a transaction."""
    return await _all_or_none(connection, lambda: _turn(connection, schema, changes, level=level))


async def forget(connection: Connection, schema: str, gone: Sequence[Version]) -> bool:
    """Delete versions, in a transaction."""
    return await _all_or_none(connection, lambda: _forget(connection, schema, gone))


async def _all_or_none(connection: Connection, work: Callable[[], Awaitable[bool]]) -> bool:
    transaction = connection.transaction()
    await transaction.start()
    done = False
    try:
        done = await work()
    finally:
        await (transaction.commit() if done else transaction.rollback())
    return done


async def _forget(connection: Connection, schema: str, gone: Sequence[Version]) -> bool:
    await connection.execute(_sql("lock", schema))
    last: int = await connection.fetchval(_sql("last_turn", schema))
    for row in gone:
        known = (row.projection, row.version, row.instance, row.state)
        if await connection.execute(_sql("forget", schema), *known) != "DELETE 1":
            return False
        for name in _DROPS:
            await connection.execute(_sql(name, schema), row.instance)
    await connection.execute(_sql("count_on", schema), last + 1)
    for table in tables_of_none(gone, await read_versions(connection, schema)):
        await connection.execute(f"DROP TABLE IF EXISTS {schema}.{quoted(table)}")
    return True


async def _turn(
    connection: Connection, schema: str, changes: Sequence[Turn], *, level: bool
) -> bool:
    await connection.execute(_sql("lock", schema))
    if level:
        reached: dict[str, int] = {}
        for change in sorted(changes, key=lambda one: one.after.instance):
            # Held, so that none of them goes on before the end.
            hold = ROWS["hold"].replace("{schema}", schema)
            spans = await connection.fetch(hold, change.after.instance)
            positions: list[int] = [span["position"] for span in spans]
            reached[change.after.state] = min(positions, default=-1)
        if reached["live"] < reached["old"]:
            return False
    last: int = await connection.fetchval(_sql("last_turn", schema))
    for change in changes:
        before, after = change.before, change.after
        ended = await connection.execute(
            _sql("turn", schema),
            *(after.version, _encode(after.tables).decode(), after.state, after.parts),
            *(after.since, last + 1),
            *(before.projection, before.version, before.instance, before.state),
        )
        if ended != "UPDATE 1":
            return False
        if after.state == "dropped":
            for name in _DROPS:
                await connection.execute(_sql(name, schema), after.instance)
            for table in after.tables.values():
                await connection.execute(f"DROP TABLE IF EXISTS {schema}.{quoted(table)}")
    return True


async def compare(
    connection: Connection,
    schema: str,
    definition: Definition,
    tables: tuple[str, str],
    columns: Sequence[str],
    most: int,
) -> Difference:
    """Compare two tables, in one snapshot."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return await _compare(connection, schema, definition, tables, columns, most)


async def _compare(
    connection: Connection,
    schema: str,
    definition: Definition,
    tables: tuple[str, str],
    columns: Sequence[str],
    most: int,
) -> Difference:
    a, b = (f"{schema}.{quoted(table)}" for table in tables)
    keys = [quoted(field.name) for field in definition.key_fields]
    json = {f.name for f in definition.fields if f.kind.postgresql.sql == "json"}
    others = [name for name in columns if quoted(name) not in keys]

    def value(table: str, name: str) -> str:
        return f"{table}.{quoted(name)}" + ("::text" if name in json else "")

    on = " AND ".join(f"a.{key} = b.{key}" for key in keys)
    unequal = [f"{value('a', n)} IS DISTINCT FROM {value('b', n)}" for n in others] or ["false"]
    both = f"FROM {a} AS a JOIN {b} AS b ON {on} WHERE {' OR '.join(unequal)}"
    only_a = f"FROM {a} AS a LEFT JOIN {b} AS b ON {on} WHERE b.{keys[0]} IS NULL"
    only_b = f"FROM {b} AS b LEFT JOIN {a} AS a ON {on} WHERE a.{keys[0]} IS NULL"
    sums = ", ".join(["count(*)", *(f"count(*) FILTER (WHERE {one})" for one in unequal)])
    row = await connection.fetchrow(f"SELECT {sums} {both}")
    assert row is not None
    differing, *each = row
    rows: int = await connection.fetchval(f"SELECT count(*) FROM {b}")
    missing: int = await connection.fetchval(f"SELECT count(*) {only_a}")
    extra: int = await connection.fetchval(f"SELECT count(*) {only_b}")
    examples: list[tuple[Any, Any, Any]] = []
    width = len(others)
    key_of = [f"coalesce(a.{key}, b.{key})" for key in keys]
    shown = [value(table, name) for table in ("a", "b") for name in others]
    for sql, has_a, has_b in ((both, 1, 1), (only_a, 1, 0), (only_b, 0, 1)):
        limit = f"ORDER BY {', '.join(key_of)} LIMIT {most - len(examples)}"
        for found in await connection.fetch(f"SELECT {', '.join(key_of + shown)} {sql} {limit}"):
            key, values = tuple(found[: len(keys)]), tuple(found[len(keys) :])
            left = dict(zip(others, values[:width], strict=True)) if has_a else None
            right = dict(zip(others, values[width:], strict=True)) if has_b else None
            examples.append((key[0] if len(keys) == 1 else key, left, right))
    positions = await connection.fetchval(ROWS["positions"].replace("{schema}", schema))
    there = positions_of(positions)
    counted = {n: c for n, c in zip(others, each, strict=False) if c}
    there.pop("", None)
    return Difference(
        definition.table_name,
        rows,
        missing,
        extra,
        differing,
        counted,
        examples,
        there,
    )
