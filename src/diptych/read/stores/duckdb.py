"""Rows in a DuckDB file, to be asked by SQL. One process at a time can open it.

A view is kept in the table ``diptych_rows_<name>``, with the position of each row and what is left
of deleted ones; ``<name>`` is an SQL view of the rows that are there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from urllib.parse import unquote

import duckdb
from msgspec import Struct

from diptych.errors import Closed, DefinitionError, Invalid, Unavailable
from diptych.read.rowstore import Layout, Made, Placed, RowTable, View

T = TypeVar("T")

PAGE: Final = 2000
ATTEMPTS: Final = 100
"""How often a write is made again that another one of this process was in the way of."""

TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS diptych_tables "
    "(name VARCHAR PRIMARY KEY, log VARCHAR, made VARCHAR, columns VARCHAR)"
)
_IN_THE_WAY = (duckdb.TransactionException, duckdb.ConstraintException)
"""What a transaction says that another one was faster than."""

_FAULTS = (
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConversionException,
    duckdb.InvalidInputException,
    duckdb.OutOfRangeException,
    duckdb.NotImplementedException,
)


class Address(Struct, frozen=True):
    """Where rows are, in DuckDB: ``duckdb:///file`` (``duckdb:////absolute/file``)."""

    path: Path

    @staticmethod
    def parse(url: str, field: str = "url") -> Address:
        """Read a URL; raise ``Invalid``."""
        rest = url.partition("://")[2]
        if not rest.startswith("/") or rest[1:2] in ("", ":") or "?" in rest:
            raise Invalid(
                "That is no address of a DuckDB file",
                field=field,
                rule="duckdb:///file (duckdb:////absolute/file)",
                got=url,
            )
        return Address(Path(unquote(rest[1:])).absolute())

    @property
    def shown(self) -> str:
        """The address, for people."""
        return f"duckdb:///{self.path}"


class Rows:
    """The row store in one file, which is opened when it is first needed."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._thread = ThreadPoolExecutor(1, "diptych-duckdb")
        self._database: Any = None
        self._closed = False
        self._marks: dict[str, str] = {}

    async def tables(self, names: Iterable[str]) -> dict[str, Made]:
        """Return which of these tables there are."""
        wanted = list(names)
        found = await self._run(
            lambda c: c.execute("SELECT name, log, made FROM diptych_tables").fetchall()
        )
        return {name: Made(log, made) for name, log, made in found if name in wanted}

    async def make(self, log: str, table: RowTable) -> None:
        """Make a table, unless it is there. ``DefinitionError`` for one of other columns."""
        layout = table.definition.on("duckdb")
        columns = ", ".join(f"{_quoted(n)} {s.sql}" for n, s in layout.columns.items())
        keys, names = _names(layout.keys), _names(layout.columns)
        rows = _table(table.name)

        def job(c: Any) -> str:
            c.execute(
                "INSERT INTO diptych_tables VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                [table.name, log, secrets.token_hex(8), f"{columns}; {keys}"],
            )
            made, there = _mark(c, table.name)
            if there != f"{columns}; {keys}":
                raise DefinitionError(
                    "The view's rows are there with other columns: the view has changed since. "
                    "Give the view another table=..., and it will be built there from the log",
                    at=table.definition.at,
                    table=table.name,
                    there=there,
                    asked=columns,
                )
            c.execute(
                f"CREATE TABLE IF NOT EXISTS {rows} ({columns}, diptych_position BIGINT NOT NULL, "
                f"diptych_deleted BOOLEAN NOT NULL, PRIMARY KEY ({keys}))"
            )
            c.execute(
                f"CREATE VIEW IF NOT EXISTS {_quoted(table.name)} AS "
                f"SELECT {names} FROM {rows} WHERE NOT diptych_deleted"
            )
            return made

        self._marks.setdefault(table.name, await self._run(job))

    async def drop(self, name: str, mark: str = "") -> None:
        """Drop a table with all its rows, if it is there; with a mark, only if it is that one."""

        def job(c: Any) -> None:
            if mark and _mark(c, name)[0] != mark:
                return
            c.execute(f"DROP VIEW IF EXISTS {_quoted(name)}")
            c.execute(f"DROP TABLE IF EXISTS {_table(name)}")
            c.execute("DELETE FROM diptych_tables WHERE name = $1", [name])

        await self._run(job)

    def check(self, table: RowTable, rows: Sequence[View]) -> None:
        """Raise ``Invalid`` for a row that the store cannot hold. Nothing is read or written."""
        if rows:
            _columns(table, rows)

    async def load(self, table: RowTable, keys: Sequence[Any]) -> dict[Any, Placed]:
        """Return what was ever written for these keys, deleted rows too."""
        layout = table.definition.on("duckdb")
        columns = layout.findable([key for key in keys if _is_utf8(key)])
        text = (
            f"SELECT {_names(layout.columns)}, diptych_position, diptych_deleted "
            f"FROM {_table(table.name)}"
        )
        if columns:
            text += f" WHERE ({_names(layout.keys)}) IN (SELECT {_unnested(layout.keys)})"
        else:
            text += " LIMIT 0"

        def job(c: Any) -> Any:
            made, _ = self._there(c, table.name)
            self._marks.setdefault(table.name, made)
            return c.execute(text, [list(column) for column in columns]).fetchall()

        return _placed(layout, table, await self._run(job))

    async def write(self, table: RowTable, rows: Mapping[Any, Placed]) -> bool:
        """Put rows, or mark them as deleted; what has the same or a higher position stays."""
        layout = table.definition.on("duckdb")
        put = [one for one in rows.values() if one.row is not None]
        gone = {key: one.position for key, one in rows.items() if one.row is None}
        jobs: list[tuple[str, list[list[Any]]]] = []
        if put:
            values = [*_columns(table, [one.row for one in put]), [one.position for one in put]]
            jobs.append((_upsert(table, layout, layout.columns, "false"), values))
        if gone:
            values = [*map(list, layout.keys_to_columns(list(gone))), list(gone.values())]
            jobs.append((_upsert(table, layout, layout.keys, "true"), values))

        def job(c: Any) -> bool:
            made, _ = self._there(c, table.name)
            known = self._marks.get(table.name, made)
            self._marks[table.name] = made
            if made != known:
                return False
            for text, columns in jobs:
                c.execute(text, columns)
            return True

        return await self._run(job)

    async def scan(self, table: RowTable) -> AsyncIterator[Any]:
        """Iterate over the rows there are, in any order."""
        layout = table.definition.on("duckdb")

        def begin(c: Any) -> Any:
            text = f"SELECT {_names(layout.columns)} FROM {_quoted(table.name)}"
            return c.cursor().execute(text)

        cursor = await self._run(begin)
        while rows := await self._run(lambda _: cursor.fetchmany(PAGE)):
            for row in layout.from_rows(rows):
                yield row

    async def values(
        self, table: RowTable, columns: Sequence[str], keys: Sequence[Any] | None = None
    ) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
        """Iterate over the keys of the rows there are, and what is stored in some columns."""
        layout = table.definition.on("duckdb")
        text = f"SELECT {_names([*layout.keys, *columns])} FROM {_quoted(table.name)}"
        asked: list[list[Any]] = []
        if keys is not None:
            asked = [list(c) for c in layout.findable([key for key in keys if _is_utf8(key)])]
            text += f" WHERE ({_names(layout.keys)}) IN (SELECT {_unnested(layout.keys)})"
        if keys is not None and not asked:
            return
        cursor = await self._run(lambda c: c.cursor().execute(text, asked))
        while rows := await self._run(lambda _: cursor.fetchmany(PAGE)):
            width = len(layout.keys)
            for key, row in zip(_keys(layout, rows), rows, strict=True):
                yield key, dict(zip(columns, row[width:], strict=True))

    async def select(self, planned: Any) -> list[Any]:
        """Run a select of one view; return rows of it."""
        layout = planned.definition.on("duckdb")
        found = await self._run(lambda c: _execute(c, planned)[0])
        return list(layout.from_rows(found))

    async def select_any(self, planned: Any) -> list[tuple[Any, ...]]:
        """Run any select."""
        found, readers = await self._run(lambda c: _execute(c, planned))
        return [
            tuple(
                value if read is None else read(value)
                for value, read in zip(row, readers, strict=True)
            )
            for row in found
        ]

    async def close(self) -> None:
        """Release everything. May be called twice."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._thread.shutdown()

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _there(self, c: Any, name: str) -> tuple[str, str]:
        found = _mark(c, name)
        if not found[0]:
            raise Unavailable(
                "The rows of this view are not there any more. Within seconds a process that works "
                "on them (`diptych work`) has them folded anew from the log",
                database=self.address.shown,
                table=name,
            )
        return found

    async def _run(self, job: Callable[[Any], T]) -> T:
        if self._closed:
            raise Closed("The database has been closed", database=self.address.shown)
        loop = asyncio.get_running_loop()
        failure: BaseException = Unavailable("no attempt was made")
        for attempt in range(ATTEMPTS):
            try:
                return await loop.run_in_executor(self._thread, self._in_transaction, job)
            except _IN_THE_WAY as error:
                failure = error
                await asyncio.sleep(0.001 * attempt)
        raise self._away(failure) from failure

    def _in_transaction(self, job: Callable[[Any], T]) -> T:
        try:
            if self._database is None:
                self._database = duckdb.connect(self.address.path)
                self._database.execute(TABLES)
                self._database.execute("SET default_null_order = 'nulls_first_on_asc_last_on_desc'")
            self._database.execute("BEGIN")
            try:
                found = job(self._database)
                self._database.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        except _IN_THE_WAY:
            raise
        except duckdb.Error as error:
            raise self._away(error) from error
        return found

    def _roll_back(self) -> None:
        try:
            self._database.execute("ROLLBACK")
        except duckdb.TransactionException:
            return  # a commit that failed has ended it

    def _away(self, error: BaseException) -> Unavailable:
        return Unavailable(
            "The DuckDB file cannot be opened, or refuses work; one process at a time has it",
            database=self.address.shown,
            why=f"{type(error).__name__}: {error}",
        )


def _execute(c: Any, planned: Any) -> tuple[list[Any], list[Any]]:
    """Run a statement; return rows as the driver gives them, and what reads their columns."""
    from sqlalchemy.dialects.postgresql.base import PGCompiler, PGDialect
    from sqlalchemy.exc import SQLAlchemyError

    from diptych.read.statements import Renaming, not_run

    statement, make = planned.statement, cast(Any, PGDialect)
    dialect = make(paramstyle="numeric_dollar")
    dialect.name = "duckdb"
    dialect.statement_compiler = type("Compiler", (Renaming, PGCompiler), {})
    dialect.tables = planned.plan.shape.tables
    try:
        compiled = statement.compile(dialect=dialect)
        # Lists in IN (...) are written out; their elements have processors, but are no binds.
        state = compiled.construct_expanded_state()
        values: list[Any] = []
        for name in state.positiontup or ():
            process, bind = state.processors.get(name), compiled.binds.get(name)
            if bind is not None:
                process = bind.type.dialect_impl(dialect).bind_processor(dialect)
            value = state.parameters[name]
            values.append(value if process is None else process(value))
        rows = c.execute(state.statement, values).fetchall()
    except (SQLAlchemyError, *_FAULTS) as error:
        raise not_run("DuckDB", statement, error) from error
    readers = [
        column.type.dialect_impl(dialect).result_processor(dialect, None)
        for column in statement.selected_columns
    ]
    return rows, readers


def _mark(c: Any, name: str) -> tuple[str, str]:
    found = c.execute("SELECT made, columns FROM diptych_tables WHERE name = $1", [name]).fetchone()
    return found or ("", "")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _names(columns: Iterable[str]) -> str:
    return ", ".join(map(_quoted, columns))


def _table(name: str) -> str:
    return _quoted(f"diptych_rows_{name}")


def _unnested(columns: Mapping[str, Any]) -> str:
    kinds = [storage.sql for storage in columns.values()]
    return ", ".join(f"unnest(${n}::{kind}[])" for n, kind in enumerate(kinds, 1))


def _upsert(table: RowTable, layout: Layout, columns: Mapping[str, Any], deleted: str) -> str:
    rows = _table(table.name)
    names, keys = _names(columns), _names(layout.keys)
    changed = [_quoted(n) for n in layout.columns if n not in layout.keys]
    changed += ["diptych_position", "diptych_deleted"]
    return (
        f"INSERT INTO {rows} ({names}, diptych_position, diptych_deleted) "
        f"SELECT {_unnested(columns)}, unnest(${len(columns) + 1}::BIGINT[]), {deleted} "
        f"ON CONFLICT ({keys}) DO UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in changed)} "
        f"WHERE {rows}.diptych_position < excluded.diptych_position"
    )


def _is_utf8(value: Any) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _columns(table: RowTable, rows: Sequence[View]) -> list[list[Any]]:
    columns = [list(c) for c in table.definition.on("duckdb").to_columns(rows)]
    for name, column in zip(table.definition.names, columns, strict=True):
        for value in column:
            if isinstance(value, str) and not _is_utf8(value):
                raise Invalid(
                    "A row is not valid",
                    field=name,
                    rule="text that can be written as UTF-8",
                    got=repr(value),
                    view=table.view.__name__,
                )
    return columns


def _keys(layout: Layout, rows: Sequence[Sequence[Any]]) -> list[Any]:
    """Return keys from rows that begin with their columns."""
    columns = [
        storage.from_column([row[n] for row in rows])
        for n, storage in enumerate(layout.keys.values())
    ]
    return list(columns[0]) if len(columns) == 1 else list(zip(*columns, strict=True))


def _placed(layout: Layout, table: RowTable, found: Sequence[Any]) -> dict[Any, Placed]:
    there = [row[:-2] for row in found if not row[-1]]
    gone = [row for row in found if row[-1]]
    rows = layout.from_rows(there)
    key_of = table.definition.key_of
    positions = [row[-2] for row in found if not row[-1]]
    placed = {
        key_of(row): Placed(row, position) for row, position in zip(rows, positions, strict=True)
    }
    if gone:
        places = [list(layout.columns).index(name) for name in layout.keys]
        keys = _keys(layout, [[row[place] for place in places] for row in gone])
        placed |= {key: Placed(None, row[-2]) for key, row in zip(keys, gone, strict=True)}
    return placed


__all__ = ["Address", "Rows"]
