"""SQL for rows of views and for checkpoints, in PostgreSQL: whole columns go as arrays.

A step (checkpoint, blocks, rows) is one statement, so it is one round trip and one transaction.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain, count
from typing import Any, Final

import asyncpg
import msgspec
from msgspec import Struct, structs

from diptych.errors import Invalid
from diptych.read.port import (
    Change,
    Checkpoint,
    Definition,
    Storage,
    Tally,
    View,
    Writes,
    definition_of,
    recut_spans,
)
from diptych.read.stored import blocks_of, checkpoint_of
from diptych.sql.named import named_statements
from diptych.sql.postgres import Connection

_PACKAGE = __name__.rpartition(".")[0]
SQL: Final = named_statements(_PACKAGE, "checkpoints.sql")
_DESK: Final = named_statements(_PACKAGE, "desk.sql")
_PARTS: Final = {name: _DESK[name] for name in ("put_parked", "unpark")}

COPY_FROM: Final = 100
"""From so many new rows on they are copied in, by statements of their own."""

COPIED_ROWS: Final = 1000
"""How many are copied at once, as nothing else runs while they are made ready."""

MOST_STEPS: Final = 300
"""Shapes of steps whose SQL is kept."""

CUT_LOCK: Final = 0x6469707479636875
"""Keeps the locks of those who cut apart from other advisory locks of the database."""

positions_of = msgspec.json.Decoder(dict[str, int]).decode
_rows = msgspec.json.Decoder(list[tuple[Any, ...]]).decode


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever it is."""
    return '"' + name.replace('"', '""') + '"'


def numbered(sql: str) -> str:
    """Put $1, $2 … where ``{}`` stands."""
    number = count(1)
    return re.sub(r"\{\}", lambda _: f"${next(number)}", sql)


def beside_positions(sql: str, schema: str) -> str:
    """Return a select of what another gives, with all projections' positions before each row.

    Where it gives none there is one row, of NULLs; the second column tells. The order is kept:
    the join can only be a loop over the other's rows, for the one row of positions.
    """
    return (
        f"SELECT * FROM ({SQL['positions'].replace('{schema}', schema)}) AS diptych_positions "
        f"LEFT JOIN (SELECT true, diptych_select.* FROM ({sql}) AS diptych_select) "
        "AS diptych_rows ON true"
    )


class Rows:
    """The SQL of one view, in a table of it."""

    def __init__(self, definition: Definition, schema: str, table: str = "") -> None:
        self.definition = definition
        self.schema = schema
        self.layout = definition.on("postgresql")
        self.name = table or definition.table_name
        # COPY casts nothing.
        self.can_copy = not any(storage.sent for storage in self.layout.columns.values())
        self.table = f"{schema}.{quoted(table or definition.table_name)}"
        self.columns = ", ".join(map(quoted, self.layout.columns))
        self.keys = tuple(map(quoted, self.layout.keys))

    # --- reading ----------------------------------------------------------------------------------

    @cached_property
    def by_keys(self) -> str:
        """The select of the rows whose keys are given as arrays.

        For each key by itself, so that there is one plan, by the index, whatever the statistics.
        """
        given, values = _unnested("k", self.layout.keys.values())
        where = _equal("t", self.keys, values)
        return numbered(
            f"SELECT r.* FROM {given} CROSS JOIN LATERAL "
            f"(SELECT {self.columns} FROM {self.table} AS t WHERE {where} LIMIT 1) AS r"
        )

    @cached_property
    def by_key(self) -> str:
        """The select of one row by its key."""
        return numbered(f"SELECT {self.columns} FROM {self.table} AS t WHERE {self._at_key}")

    @cached_property
    def by_key_with_positions(self) -> str:
        """All projections' positions, and the row of a key, if there is one."""
        return beside_positions(self.by_key, self.schema)

    async def load(self, connection: Connection, keys: Sequence[Any]) -> dict[Any, Any]:
        """Return the rows that exist for these keys, by key."""
        columns = self.layout.findable(keys)
        if not columns:
            return {}
        try:
            values = await connection.fetch(self.by_keys, *columns)
        except asyncpg.DataError:
            # One that only the server knows it cannot hold: a row of it there is none.
            if len(keys) == 1:
                return {}
            rows: dict[Any, Any] = {}
            for key in keys:
                rows |= await self.load(connection, [key])
            return rows
        found = self.layout.from_rows(values)
        return dict(zip(map(self.definition.key_of, found), found, strict=True))

    # --- writing ----------------------------------------------------------------------------------

    def upsert(self, beside: str = "") -> str:
        """Return the statement that inserts or replaces rows, given as an array for each column."""
        given, values = _unnested("v", self.layout.columns.values())
        others = [quoted(n) for n in self.layout.columns if n not in self.layout.keys]
        action = "UPDATE SET " + ", ".join(f"{n} = excluded.{n}" for n in others)
        return (
            f"INSERT INTO {self.table} ({self.columns}) "
            f"SELECT {', '.join(values)} FROM {beside}{given} "
            f"ON CONFLICT ({', '.join(self.keys)}) DO {action if others else 'NOTHING'}"
        )

    def delete(self, beside: str = "") -> str:
        """Return the statement that deletes rows, given an array for each key field."""
        if len(self.keys) == 1:
            (storage,) = self.layout.keys.values()
            using = f" USING {beside.removesuffix(' CROSS JOIN ')}" if beside else ""
            return (
                f"DELETE FROM {self.table} AS t{using} "
                f"WHERE t.{self.keys[0]} = ANY ({_array(storage)}::{storage.sql}[])"
            )
        given, values = _unnested("k", self.layout.keys.values())
        where = _equal("t", self.keys, values)
        return f"DELETE FROM {self.table} AS t USING {beside}{given} WHERE {where}"

    async def copy(self, connection: Connection, rows: Sequence[View]) -> None:
        """Insert rows of whose keys there are none yet; ``Invalid`` where there are some."""
        for start in range(0, len(rows), COPIED_ROWS):
            columns = self.layout.to_columns(rows[start : start + COPIED_ROWS])
            await connection.copy_records_to_table(
                self.name,
                schema_name=self.schema,
                columns=list(self.layout.columns),
                records=zip(*columns, strict=True),
            )

    @cached_property
    def put_one(self) -> str:
        """The statement that inserts or replaces rows."""
        return numbered(self.upsert())

    @cached_property
    def delete_one(self) -> str:
        """The statement that deletes the row of a key."""
        return numbered(f"DELETE FROM {self.table} AS t WHERE {self._at_key}")

    @property
    def _at_key(self) -> str:
        given = [f"{{}}::{_sent(s)}::{s.sql}" for s in self.layout.keys.values()]
        return _equal("t", self.keys, given)


def _sent(storage: Storage) -> str:
    return storage.sent or storage.sql


def _array(storage: Storage) -> str:
    return f"{{}}::{_sent(storage)}[]"


def _unnested(name: str, storages: Iterable[Storage]) -> tuple[str, list[str]]:
    """Return a table made of arrays, and the expressions of its values."""
    listed = list(storages)
    arrays = ", ".join(map(_array, listed))
    columns = [f"c{n}" for n in range(len(listed))]
    values = [
        f"{name}.{column}" + (f"::{storage.sql}" if storage.sent else "")
        for column, storage in zip(columns, listed, strict=True)
    ]
    return f"unnest({arrays}) AS {name} ({', '.join(columns)})", values


def _equal(table: str, columns: Iterable[str], values: Iterable[str]) -> str:
    pairs = zip(columns, values, strict=True)
    return " AND ".join(f"{table}.{column} = {value}" for column, value in pairs)


# --- steps ----------------------------------------------------------------------------------------


class Copied(Struct, frozen=True):
    """New rows of a step, by its place among those of a transaction."""

    place: int
    into: Rows
    rows: list[Any]


class Steps:
    """The SQL of steps, by what they write."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.sql = {name: text.replace("{schema}", schema) for name, text in (SQL | _PARTS).items()}
        self.written: dict[type[View], str] = {}
        self.read: Mapping[type[View], str] = {}
        self._rows: dict[tuple[type[View], str], Rows] = {}
        self._statements: dict[Any, str] = {}

    def rows_of(self, view: type[View], *, read: bool = False) -> Rows:
        """Return the SQL of a view: of the table it is written to, or ``read`` from by queries."""
        table = (self.read if read else self.written).get(view, "")
        found = self._rows.get((view, table))
        if found is None:
            found = self._rows[view, table] = Rows(definition_of(view), self.schema, table)
        return found

    def write_to(self, tables: Mapping[type[View], str]) -> None:
        """From now on, write these views to these tables."""
        self.written |= tables
        self._statements.clear()

    def without_new(self, changes: Sequence[Change]) -> tuple[list[Change], list[Copied]]:
        """Return steps without the new rows that are better copied in, and these."""
        kept: list[Change] = []
        copied: list[Copied] = []
        for place, change in enumerate(changes):
            writes: list[Writes] = []
            for one in change.writes:
                into = self.rows_of(one.view)
                if one.new >= COPY_FROM and into.can_copy:
                    copied.append(Copied(place, into, one.rows[: one.new]))
                    one = structs.replace(one, rows=one.rows[one.new :], new=0)
                writes.append(one)
            kept.append(structs.replace(change, writes=tuple(writes)))
        return (kept, copied) if copied else (list(changes), copied)

    def statement(self, changes: Sequence[Change], *, durable: bool) -> tuple[str, list[Any]]:
        """Return the SQL that makes steps, all in one, and its parameters.

        Its row tells for each whether its checkpoint stood right. Without ``durable`` the
        transaction does not wait for the disk. Raises ``Invalid`` for a row that cannot be stored.
        """
        values: list[Any] = []
        shape: list[Any] = [durable]
        for change in changes:
            beside = _beside(change)
            values += chain.from_iterable(beside.values())
            written: list[tuple[type[View], bool, bool]] = []
            for writes in change.writes:
                layout = self.rows_of(writes.view).layout
                if writes.passed:
                    layout.require_storable(writes.passed)
                if writes.deleted:
                    values += layout.keys_to_columns(writes.deleted)
                if writes.rows:
                    values += layout.to_columns(writes.rows)
                written.append((writes.view, bool(writes.deleted), bool(writes.rows)))
            shape.append((tuple(beside), *written))
        key = tuple(shape)
        sql = self._statements.get(key)
        if sql is None:
            if len(self._statements) >= MOST_STEPS:
                self._statements.clear()
            sql = self._statements[key] = self._sql(key)
        return sql, values

    def _sql(self, shape: Sequence[Any]) -> str:
        durable, *changes = shape
        parts: list[str] = []
        results: list[str] = []
        for n, (names, *written) in enumerate(changes):
            parts += [self._part(name, n) for name in names]
            beside = f"moved{n} CROSS JOIN "
            for view, deleted, put in written:
                rows = self.rows_of(view)
                if deleted:
                    parts.append(f"part{len(parts)} AS ({rows.delete(beside)})")
                if put:
                    parts.append(f"part{len(parts)} AS ({rows.upsert(beside)})")
            results.append(f"EXISTS (SELECT FROM moved{n})")
        if not durable:
            results.append("set_config('synchronous_commit', 'off', true)")
        return numbered(f"WITH {', '.join(parts)} SELECT {', '.join(results)}")

    def _part(self, name: str, number: int) -> str:
        return self.sql[name].replace("{n}", str(number))


def _beside(change: Change) -> dict[str, list[Any]]:
    """Return the parts of a step that are not rows, with their values."""
    found = {"move": _move_values(change)}
    if change.blocks:
        found["put_blocks"] = _block_values(change)
    if change.parked:
        rows = [structs.astuple(one)[1:] for one in change.parked]
        found["put_parked"] = [list(column) for column in zip(*rows, strict=True)]
    if change.unparked:
        found["unpark"] = [list(column) for column in zip(*change.unparked, strict=True)]
    return found


def _move_values(change: Change) -> list[Any]:
    before, after = change.before, change.after
    return [
        after.position,
        after.event_id,
        after.count,
        f"{after.digest:032x}",
        after.time,
        after.tallies,
        after.revision,
        before.projection,
        before.slice,
        before.slices,
        before.log,
        before.position,
        before.count,
        f"{before.digest:032x}",
        before.revision,
    ]


def _block_values(change: Change) -> list[Any]:
    tallies = change.blocks.values()
    return [list(change.blocks), [t.count for t in tallies], [f"{t.digest:032x}" for t in tallies]]


@contextmanager
def refused_rows() -> Generator[None]:
    """Turn what PostgreSQL says of a value that it cannot hold into ``Invalid``."""
    try:
        yield
    except asyncpg.DataError as error:
        raise Invalid(
            "A row is not valid: PostgreSQL cannot hold one of its values",
            field="row",
            rule="what its column holds",
            why=f"{type(error).__name__}: {error}",
        ) from error


# --- checkpoints ----------------------------------------------------------------------------------


def proof_of(row: Sequence[str]) -> tuple[list[Checkpoint], dict[int, Tally]]:
    """Return spans, and the tallies of blocks, from the texts of JSON that they come in."""
    spans, blocks = row
    return [checkpoint_of(span) for span in _rows(spans)], blocks_of(_rows(blocks))


async def recut(
    connection: Connection,
    sql: Mapping[str, str],
    schema: str,
    projection: str,
    cuts: Collection[int],
) -> list[Checkpoint]:
    """Cut and join a projection's spans, within a transaction."""
    await connection.execute(sql["lock_cuts"], f"{schema}.{projection}", CUT_LOCK)
    before = [checkpoint_of(row) for row in await connection.fetch(sql["hold"], projection)]
    after = recut_spans(before, cuts)
    for span in before:
        if span not in after:
            await connection.execute(sql["delete"], projection, span.slice)
    for span in after:
        if span not in before:
            await insert_span(connection, sql, span, span.revision)
    return after


async def insert_span(
    connection: Connection, sql: Mapping[str, str], span: Checkpoint, revision: int
) -> None:
    """Insert a checkpoint, within a transaction."""
    await connection.execute(
        sql["insert"],
        *(span.projection, span.slice, span.slices, span.log, span.position, span.event_id),
        *(span.count, f"{span.digest:032x}", span.time, span.tallies, revision),
    )
