"""The schema, our tables in it, and those of views: what is missing is made, and nothing else.

A role that may not create anything can open what is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final

import asyncpg

from diptych.errors import DefinitionError
from diptych.read.opening import require_tables, unclaimed
from diptych.read.port import Checkpoint, Definition, Kept
from diptych.read.stored import checkpoints_of
from diptych.read.stores.postgres.rows import SQL, quoted
from diptych.sql.named import named_statements
from diptych.sql.postgres import SETUP_LOCK, Connection

_PACKAGE = __name__.rpartition(".")[0]
_SQL: Final = named_statements(_PACKAGE, "schema.sql")
TABLES: Final = named_statements(_PACKAGE, "tables.sql")

LONGEST_NAME: Final = 63


async def make_tables(
    connection: Connection,
    schema: str,
    log: str,
    projections: Mapping[str, Kept],
) -> None:
    """Make what is missing, in one transaction: the tables of projections, and of the store.

    Given the log's identity, also a checkpoint at 0 for each new projection, of its slices; not
    where its tables hold rows.
    """
    async with connection.transaction():
        await connection.execute(_SQL["lock"], SETUP_LOCK)
        statements, new = await _lacking(connection, schema, projections)
        for statement in statements:
            await connection.execute(statement)
        if log and new:
            for name in _FORGETS:
                await connection.execute(SQL[name].replace("{schema}", schema), new)
            start = SQL["start"].replace("{schema}", schema)
            slices = [projections[name].slices for name in new]
            await connection.execute(start, new, slices, log)


async def look_for_tables(
    connection: Connection,
    schema: str,
    projections: Mapping[str, Kept],
    database: str,
) -> None:
    """Raise ``NoViews`` unless all tables and checkpoints are there, and as they should be."""
    places = [place for kept in projections.values() for place in kept.places]
    there, stored = await _found(connection, schema, [table for _, table in places])
    filled = await _filled(connection, schema, unclaimed(projections, there, stored))
    require_tables(
        *(projections, there, stored),
        create=False,
        filled=filled,
        database=database,
        schema=schema,
    )
    for definition, table in places:
        _require_columns(schema, definition, table, there[table])


async def plan_tables(
    connection: Connection, schema: str, projections: Mapping[str, Kept]
) -> list[tuple[str, str]]:
    """Return the statements that `make_tables` would run, with names. Runs none of them.

    So a role that may only look can ask. They can be run for two read databases that share one
    schema.
    """
    statements, _ = await _lacking(connection, schema, projections)
    return [
        (" ".join(sql.split("(")[0].split()), re.sub(r"\A(CREATE \w+) (?!IF )", _UNLESS_THERE, sql))
        for sql in statements
    ]


_UNLESS_THERE = r"\1 IF NOT EXISTS "


async def _lacking(
    connection: Connection, schema: str, projections: Mapping[str, Kept]
) -> tuple[list[str], list[str]]:
    """Return the statements that make what is missing, and the projections that are to begin."""
    places = [place for kept in projections.values() for place in kept.places]
    for definition, table in places:
        _check_names(definition, table)
    statements: list[str] = []
    if not await connection.fetchval(_SQL["schema_exists"], schema):
        statements.append(_SQL["create_schema"].replace("{schema}", schema))
    there, stored = await _found(connection, schema, [table for _, table in places])
    filled = await _filled(connection, schema, unclaimed(projections, there, stored))
    new = require_tables(projections, there, stored, create=True, filled=filled)
    for name, create in TABLES.items():
        if name not in there:
            statements.append(create.replace("{schema}", schema))
    for kept in projections.values():
        for definition, table in kept.places:
            if table in there:
                _require_columns(schema, definition, table, there[table])
            else:
                statements.append(_create_table(schema, definition, table))
            if kept.indexed:
                statements += await _lacking_indexes(connection, schema, definition, table)
    return statements, new


_Columns = dict[str, tuple[str, bool, bool]]
"""For each column: its type, whether it refuses NULL, whether it is part of the key."""


async def _columns(
    connection: Connection, schema: str, tables: Sequence[str]
) -> dict[str, _Columns]:
    found: dict[str, _Columns] = {}
    for table, name, *rest in await connection.fetch(_SQL["columns"], schema, tables):
        found.setdefault(table, {})[name] = tuple(rest)
    return found


async def _found(
    connection: Connection, schema: str, views: Sequence[str]
) -> tuple[dict[str, _Columns], dict[str, list[Checkpoint]]]:
    """Return the tables that there are, and the checkpoints."""
    there = await _columns(connection, schema, [*TABLES, *views])
    if "diptych_checkpoints" not in there:
        return there, {}
    rows = await connection.fetch(SQL["read"].replace("{schema}", schema))
    return there, checkpoints_of(rows)


_FORGETS: Final = ("start_forgets_blocks", "start_forgets_parked", "start_forgets_proofs")


async def _filled(connection: Connection, schema: str, tables: Sequence[str]) -> set[str]:
    """Return those of the tables that hold rows."""
    found: set[str] = set()
    for table in tables:
        if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {schema}.{quoted(table)})"):
            found.add(table)
    return found


def _create_table(schema: str, definition: Definition, table: str) -> str:
    columns = [
        f"{quoted(name)} {type_}{_collation(type_)}{' NOT NULL' if refuses_null else ''}"
        for name, (type_, refuses_null, _) in _asked(definition).items()
    ]
    keys = ", ".join(quoted(f.name) for f in definition.key_fields)
    return f"CREATE TABLE {schema}.{quoted(table)} ({', '.join(columns)}, PRIMARY KEY ({keys}))"


def _asked(definition: Definition) -> _Columns:
    return {f.name: (f.kind.postgresql.sql, not f.kind.optional, f.key) for f in definition.fields}


def _require_columns(schema: str, definition: Definition, table: str, there: _Columns) -> None:
    asked = _asked(definition)
    if there != asked:
        changed = sorted(n for n in there.keys() | asked.keys() if there.get(n) != asked.get(n))
        raise DefinitionError(
            "The view's table exists with other columns: the view has changed since. Give the view "
            "another table=..., where its projection begins anew with the first event; or change "
            "the table's columns yourself (ALTER TABLE)",
            at=definition.at,
            table=f"{schema}.{table}",
            changed=", ".join(changed),
        )


async def make_all_indexes(connection: Connection, schema: str, kept: Kept) -> None:
    """Make the indexes of tables that were made without; one worker does, the others wait."""
    async with connection.transaction():
        await connection.execute(_SQL["lock"], SETUP_LOCK)
        for definition, table in kept.places:
            for statement in await _lacking_indexes(connection, schema, definition, table):
                await connection.execute(statement)


async def _lacking_indexes(
    connection: Connection, schema: str, definition: Definition, table: str
) -> list[str]:
    """Return the statements that make those of a table's indexes that are not there."""
    statements: list[str] = []
    wanted = {index_name(table, fields): fields for fields in definition.indexes}
    there = await connection.fetch(_SQL["relations"], schema, list(wanted)) if wanted else []
    for name, fields in wanted.items():
        if any(row[0] == name for row in there):
            continue
        kinds = {f.name: f.kind for f in definition.fields}
        # NULLs sort as in SQLite: before all else. So do the queries ask for it.
        columns = [quoted(f) + (" NULLS FIRST" if kinds[f].optional else "") for f in fields]
        statements.append(
            f"CREATE INDEX {quoted(name)} ON {schema}.{quoted(table)} ({', '.join(columns)})"
        )
    return statements


def index_name(table: str, fields: Sequence[str]) -> str:
    """Return an index's name. Where PostgreSQL would cut it off, its end is a hash of it."""
    name = f"{table}_by_{'_'.join(fields)}"
    full = name.encode()
    if len(full) <= LONGEST_NAME:
        return name
    end = blake2b(full, digest_size=5).hexdigest()
    return full[: LONGEST_NAME - len(end) - 1].decode(errors="ignore") + f"_{end}"


def _collation(type_: str) -> str:
    return ' COLLATE "C"' if type_ == "text" else ""


def _check_names(definition: Definition, table: str) -> None:
    for name in (table, *definition.names):
        if len(name.encode()) > LONGEST_NAME:
            raise DefinitionError(
                "PostgreSQL's names have at most 63 bytes; give the field a shorter name, or the "
                "view a shorter table=...",
                at=definition.at,
                name=name,
            )


RACES: Final = (
    asyncpg.UniqueViolationError,
    asyncpg.DuplicateSchemaError,
    asyncpg.DuplicateTableError,
)
"""Somebody who does not take our lock has made the same thing at the same time."""
