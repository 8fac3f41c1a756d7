"""Rows of views and checkpoints in a SQLite connection. Runs on the database's threads.

Few steps: every step gives up the interpreter's lock and must win it back (see `sql.sqlite`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec

from diptych.read.port import (
    DECIMAL_COLLATION,
    Change,
    Checkpoint,
    Definition,
    Proof,
    Tally,
    Worker,
    compare_decimals,
    recut_spans,
)
from diptych.read.presence import Sight
from diptych.read.stored import blocks_of, checkpoint_of, checkpoints_of, proofs_of, tally_of
from diptych.sql.brief import Habit
from diptych.sql.named import named_statements, read_sql
from diptych.sql.sqlite import transaction

LARGEST_CHUNK = 512
MOST_VALUES = 32_766
"""SQLITE_MAX_VARIABLE_NUMBER, by default."""

_encode = msgspec.json.Encoder().encode
_decode: Callable[[str], list[Any]] = msgspec.json.Decoder(list[tuple[Any, ...]]).decode
_sights = msgspec.json.Decoder(list[Sight]).decode
positions_of = msgspec.json.Decoder(dict[str, int]).decode


_PACKAGE = __name__.rpartition(".")[0]
SQL = named_statements(_PACKAGE, "checkpoints.sql")
TABLES = read_sql(_PACKAGE, "tables.sql")


def prepare(connection: sqlite3.Connection) -> None:
    """Teach a connection to compare decimals, and to match LIKE as all other text: by case."""
    connection.create_collation(DECIMAL_COLLATION, compare_decimals)
    connection.execute("PRAGMA case_sensitive_like = ON")


def as_json(definition: Definition) -> bool:
    """Whether rows may come as one text of JSON: SQLite writes floats into it with 15 digits."""
    return not any(s.sql == "REAL" for s in definition.on("sqlite").columns.values())


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever it is."""
    return '"' + name.replace('"', '""') + '"'


def chunks(count: int, width: int) -> Iterator[tuple[int, int]]:
    """Return (start, size) of chunks whose sizes are powers of two: few distinct statements."""
    size = LARGEST_CHUNK
    while size > 1 and size * width > MOST_VALUES:
        size //= 2
    start = 0
    while start < count:
        while size > count - start:
            size //= 2
        yield start, size
        start += size


class Rows:
    """The SQL of one view, in a table of it."""

    def __init__(self, definition: Definition, table: str = "") -> None:
        self.definition = definition
        self.table = quoted(table or definition.table_name)
        self.columns = ", ".join(quoted(name) for name in definition.names)
        self.keys = tuple(quoted(f.name) for f in definition.key_fields)
        self.layout = definition.on("sqlite")
        self._key_in = itemgetter(
            *map(definition.names.index, (f.name for f in definition.key_fields))
        )
        self.as_json = as_json(definition)
        self.habit = Habit(bounded=True)
        self._upserts: dict[int, str] = {}
        self._deletes: dict[int, str] = {}

    @cached_property
    def by_keys(self) -> str:
        """The select of the rows whose keys are in a JSON array."""
        # Qualified throughout: a view may have fields named like json_each's columns.
        keys = [f"{self.table}.{key}" for key in self.keys]
        given = (
            [f"{keys[0]} = diptych_keys.value"]
            if len(keys) == 1
            else [f"{k} = json_extract(diptych_keys.value, '$[{i}]')" for i, k in enumerate(keys)]
        )
        columns = ", ".join(f"{self.table}.{quoted(n)}" for n in self.definition.names)
        found = f"json_group_array(json_array({columns}))" if self.as_json else columns
        return (
            f"SELECT {found} FROM json_each(?) AS diptych_keys CROSS JOIN {self.table} ON "
            + " AND ".join(given)
        )

    @cached_property
    def by_key(self) -> str:
        """The select of one row by its key."""
        return f"SELECT {self.columns} FROM {self.table} WHERE " + " AND ".join(
            f"{key} = ?" for key in self.keys
        )

    @cached_property
    def by_key_with_positions(self) -> str:
        """All projections' positions, and the row of a key if there is one (last column: 1)."""
        return (
            f"SELECT p.*, r.* FROM ({SQL['positions']}) AS p LEFT JOIN "
            f"(SELECT {self.columns}, 1 FROM {self.table} WHERE "
            + " AND ".join(f"{key} = ?" for key in self.keys)
            + ") AS r"
        )

    def upsert(self, rows: int) -> str:
        """Return the statement that inserts or replaces so many rows."""
        if (sql := self._upserts.get(rows)) is None:
            one = "(" + ", ".join("?" * len(self.definition.names)) + ")"
            keys = {f.name for f in self.definition.key_fields}
            others = [quoted(n) for n in self.definition.names if n not in keys]
            action = (
                "UPDATE SET " + ", ".join(f"{n} = excluded.{n}" for n in others)
                if others
                else "NOTHING"
            )
            sql = self._upserts[rows] = (
                f"INSERT INTO {self.table} ({self.columns}) VALUES {', '.join([one] * rows)} "
                f"ON CONFLICT ({', '.join(self.keys)}) DO {action}"
            )
        return sql

    def delete(self, keys: int) -> str:
        """Return the statement that deletes the rows of so many keys."""
        if (sql := self._deletes.get(keys)) is None:
            one = "(" + " AND ".join(f"{key} = ?" for key in self.keys) + ")"
            sql = self._deletes[keys] = (
                f"DELETE FROM {self.table} WHERE {' OR '.join([one] * keys)}"
            )
        return sql

    def in_order(self, rows: Sequence[Any]) -> list[Any]:
        """Return rows as one flat list of SQL values, in the order of their keys.

        So those that share a page of the table follow each other: in a large table that halves what
        they cost.
        """
        listed = sorted(zip(*self.layout.to_columns(rows), strict=True), key=self._key_in)
        return list(chain.from_iterable(listed))

    def put(self, connection: sqlite3.Connection, values: list[Any]) -> None:
        """Insert or replace rows, given as one flat list of SQL values."""
        width = len(self.definition.names)
        for start, size in chunks(len(values) // width, width):
            connection.execute(self.upsert(size), values[start * width : (start + size) * width])

    def remove(self, connection: sqlite3.Connection, values: list[Any]) -> None:
        """Delete rows, given the flat list of SQL values of their keys."""
        width = len(self.keys)
        for start, size in chunks(len(values) // width, width * 8):
            connection.execute(self.delete(size), values[start * width : (start + size) * width])

    def load(self, connection: sqlite3.Connection, columns: list[Sequence[Any]]) -> list[Any]:
        """Return the rows, as SQL values, that exist for keys given as columns."""
        keys: list[tuple[Any, ...]] = list(zip(*columns, strict=True))
        given = _encode(columns[0] if len(columns) == 1 else keys)
        if b"\\u0000" in given:  # SQLite's JSON ends a text there
            return [r for key in keys for r in connection.execute(self.by_key, key).fetchall()]
        found: list[Any] = connection.execute(self.by_keys, (given.decode(),)).fetchall()
        return _decode(found[0][0]) if self.as_json else found


def flat(columns: Sequence[Sequence[Any]]) -> list[Any]:
    """Return columns of values as one list, row by row."""
    if len(columns) == 1:
        return list(columns[0])
    return list(chain.from_iterable(zip(*columns, strict=True)))


# --- checkpoints ----------------------------------------------------------------------------------


def _moment(checkpoint: Checkpoint) -> str | None:
    return None if checkpoint.time is None else checkpoint.time.isoformat()


def move(connection: sqlite3.Connection, change: Change) -> bool:
    """Move a checkpoint and its blocks if it still is where the writer believes it."""
    before, after = change.before, change.after
    cursor = connection.execute(
        SQL["move"],
        (
            after.position,
            after.event_id,
            after.count,
            f"{after.digest:032x}",
            _moment(after),
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
        ),
    )
    if cursor.rowcount != 1:
        return False
    for number, tally in change.blocks.items():
        connection.execute(
            SQL["put_block"],
            (after.projection, after.slice, number, tally.count, f"{tally.digest:032x}"),
        )
    return True


def read_tables(connection: sqlite3.Connection) -> set[str]:
    """Return the names of all tables."""
    return {name for (name,) in connection.execute(SQL["tables"]).fetchall()}


def filled(connection: sqlite3.Connection, tables: Iterable[str]) -> set[str]:
    """Return those of the tables that hold rows."""
    return {
        table
        for table in tables
        if connection.execute(f"SELECT 1 FROM {quoted(table)} LIMIT 1").fetchone()
    }


def start(connection: sqlite3.Connection, projection: str, log: str, slices: int) -> None:
    """Let a projection begin at position 0, and nothing be left of one of its name."""
    values = {"projection": projection, "log": log, "slices": slices}
    if connection.execute(SQL["start"], values).rowcount:
        for name in _FORGETS:
            connection.execute(SQL[name], (projection,))


_FORGETS = ("start_forgets_blocks", "start_forgets_parked", "start_forgets_proofs")


def read_checkpoints(connection: sqlite3.Connection) -> dict[str, list[Checkpoint]]:
    """Return all checkpoints, by projection."""
    return checkpoints_of(connection.execute(SQL["read"]).fetchall())


def read_spans(connection: sqlite3.Connection, projection: str) -> list[Checkpoint]:
    """Return a projection's checkpoints."""
    return [checkpoint_of(r) for r in connection.execute(SQL["read_one"], (projection,)).fetchall()]


def recut(
    connection: sqlite3.Connection, projection: str, cuts: Collection[int]
) -> list[Checkpoint]:
    """Cut and join a projection's spans, within a transaction."""
    before = read_spans(connection, projection)
    after = recut_spans(before, cuts)
    for span in before:
        if span not in after:
            connection.execute(SQL["delete"], (projection, span.slice))
    for span in after:
        if span not in before:
            insert_span(connection, span, span.revision)
    return after


def insert_span(connection: sqlite3.Connection, span: Checkpoint, revision: int) -> None:
    """Insert a checkpoint, within a transaction."""
    values = (span.position, span.event_id, span.count, f"{span.digest:032x}", _moment(span))
    connection.execute(
        SQL["insert"],
        (
            *(span.projection, span.slice, span.slices, span.log),
            *(*values, span.tallies, revision),
        ),
    )


def read_block(connection: sqlite3.Connection, projection: str, slice_: int, number: int) -> Tally:
    """Return the tally of a block, as far as spans that begin with a slice wrote it."""
    row = connection.execute(SQL["block"], (projection, slice_, number)).fetchone()
    return Tally() if row is None else tally_of(*row)


def read_proof(
    connection: sqlite3.Connection, projection: str
) -> tuple[list[Checkpoint], dict[int, Tally]]:
    """Return a projection's spans and the tallies of all its blocks, of one snapshot."""
    spans, blocks = connection.execute(SQL["proof"], {"projection": projection}).fetchone()
    return [checkpoint_of(row) for row in _decode(spans)], blocks_of(_decode(blocks))


def keep_proof(connection: sqlite3.Connection, proof: Proof) -> None:
    """Keep what verify found."""
    values = (proof.projection, proof.log, proof.time.isoformat(), proof.ok, proof.position)
    reach = _encode(proof.reach).decode()
    more = (proof.count, proof.reason, reach, proof.tallies, _encode(proof.unknown).decode())
    connection.execute(SQL["prove"], (*values, *more))


def read_proofs(connection: sqlite3.Connection) -> dict[str, Proof]:
    """Return what verify found last, by projection."""
    return proofs_of(connection.execute(SQL["proofs"]).fetchall())


# --- workers --------------------------------------------------------------------------------------


def beat(connection: sqlite3.Connection, worker: Worker, now: float) -> list[Sight]:
    """Note that a worker is there, and return all; ``now`` in seconds since 1970."""
    lists = (_encode(names).decode() for names in (worker.projections, worker.bulk))
    with transaction(connection):
        connection.execute(SQL["beat"], (worker.id, worker.host, worker.pid, *lists, now))
        return read_workers(connection, now)


def read_workers(connection: sqlite3.Connection, now: float) -> list[Sight]:
    """Return all workers that were noted, by id."""
    (found,) = connection.execute(SQL["workers"], (now,)).fetchone()
    return _sights(found)


def leave(connection: sqlite3.Connection, worker: str) -> None:
    """Note that a worker is there no more."""
    connection.execute(SQL["leave"], (worker,))
