"""Rows in Redis (or Valkey): one hash for each view, a field for each key.

A field's name is the key in canonical JSON, its value ``<position> <row as a JSON object>``, or the
position alone where the row is deleted. The field without a name tells what the hash is: so what
loses the rows loses that too, and is noticed. The guard is a script, which Redis runs atomically.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
from collections.abc import AsyncIterator, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
from msgspec import Struct
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from diptych.errors import DamagedRow, DefinitionError, Invalid, Unavailable
from diptych.read.rowstore import Made, Placed, RowTable, View, damaged_row, key_text
from diptych.sql.addresses import without_password

PREFIX: Final = "diptych:"
CONNECTIONS: Final = 16
"""Connections of a process, at most."""

SECONDS_TO_CONNECT: Final = 5.0
SECONDS_TO_ANSWER: Final = 10.0
AT_ONCE: Final = 500
"""Rows in one call: Redis does nothing else meanwhile, a millisecond or two."""

MARK: Final = b""
"""The field that tells what a hash is."""

WRITE: Final = """
local mark = redis.call('HGET', KEYS[1], '')
if mark ~= ARGV[1] then
    return mark or ''
end
for i = 2, #ARGV, 3 do
    local there = redis.call('HGET', KEYS[1], ARGV[i])
    if not there or (tonumber(string.match(there, '^%d+')) or -1) < tonumber(ARGV[i + 1]) then
        redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1] .. ARGV[i + 2])
    end
end
return false
"""

DROP: Final = """
if ARGV[1] == '' or redis.call('HGET', KEYS[1], '') == ARGV[1] then
    redis.call('UNLINK', KEYS[1])
end
"""

_DATABASE = re.compile(r"(?a:/?|/\d{1,9})")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class _Mark(Struct, frozen=True):
    """What a hash is: of which log, of which columns; ``made`` is another one each time."""

    log: str
    made: str
    columns: dict[str, str]


class Address(Struct, frozen=True):
    """Where rows are, in Redis: ``redis://user:password@host:port/0?prefix=shop:``."""

    url: str
    prefix: str = PREFIX

    @staticmethod
    def parse(url: str, field: str = "url") -> Address:
        """Read a URL; raise ``Invalid``. All but ``prefix`` is for the driver.

        The driver would take the database 0 for a path that is no number.
        """
        refused = Invalid(
            "That is no address of Redis",
            field=field,
            rule="redis://host:6379/0?prefix=shop: (or rediss://), the path a database's number, "
            "and no other parameter",
            got=without_password(url),
        )
        try:
            parts = urlsplit(url)
            host = parts.hostname and parts.port != 0
        except ValueError:
            raise refused from None
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        prefix = options.pop("prefix", PREFIX)
        known = not set(options) - {"protocol", "ssl_ca_certs"}
        if not (prefix and host and known and _DATABASE.fullmatch(parts.path)):
            raise refused
        return Address(urlunsplit(parts._replace(query=urlencode(options))), prefix)

    @property
    def shown(self) -> str:
        """The address, for people: without a password."""
        return without_password(self.url)


class Rows:
    """The row store in one Redis. A connection is made when it is first needed."""

    def __init__(self, address: Address) -> None:
        self.address = address
        make: Any = BlockingConnectionPool  # it is not typed
        self._pool = make.from_url(
            address.url,
            max_connections=CONNECTIONS,
            timeout=SECONDS_TO_ANSWER,
            socket_connect_timeout=SECONDS_TO_CONNECT,
            socket_timeout=SECONDS_TO_ANSWER,
            # All that is sent may be sent twice, as it is guarded.
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), 2),
        )
        self._redis: Any = Redis(connection_pool=self._pool)
        self._write = self._redis.register_script(WRITE)
        self._drop = self._redis.register_script(DROP)
        self._marks: dict[str, bytes] = {}

    async def tables(self, names: Iterable[str]) -> dict[str, Made]:
        """Return which of these tables there are."""
        found: dict[str, Made] = {}
        with self._reached():
            for name in names:
                mark = await self._redis.hget(self._hash(name), MARK)
                if mark is not None:
                    found[name] = Made(_read(mark, name).log, mark.decode())
        return found

    async def make(self, log: str, table: RowTable) -> None:
        """Make a table, unless it is there. ``DefinitionError`` for one of other columns."""
        columns = {f.name: _column(f) for f in table.definition.fields}
        mark = _encode(_Mark(log, secrets.token_hex(8), columns))
        with self._reached():
            await self._redis.hsetnx(self._hash(table.name), MARK, mark)
            there = await self._redis.hget(self._hash(table.name), MARK)
        if there is None:
            raise self._gone(table.name)
        found = _read(there, table.name).columns
        if found != columns:
            names = found.keys() | columns.keys()
            raise DefinitionError(
                "The view's rows are there with other columns: the view has changed since. Give "
                "the view another table=..., and it will be built there from the log",
                at=table.definition.at,
                table=table.name,
                changed=", ".join(sorted(n for n in names if found.get(n) != columns.get(n))),
            )
        self._marks.setdefault(table.name, there)

    async def drop(self, name: str, mark: str = "") -> None:
        """Drop a table with all its rows, if it is there; with a mark, only if it is that one."""
        with self._reached():
            await self._drop(keys=[self._hash(name)], args=[mark])

    def check(self, table: RowTable, rows: Sequence[View]) -> None:
        """Raise ``Invalid`` for a row that the store cannot hold. Nothing is read or written."""
        _texts(table, rows)

    async def load(self, table: RowTable, keys: Sequence[Any]) -> dict[Any, Placed]:
        """Return what was ever written for these keys, deleted rows too."""
        found: dict[Any, Placed] = {}
        for start in range(0, len(keys), AT_ONCE):
            part = keys[start : start + AT_ONCE]
            fields = [MARK, *map(_field, part)]
            with self._reached():
                mark, *values = await self._redis.hmget(self._hash(table.name), fields)
            if mark is None:
                raise self._gone(table.name)
            self._marks.setdefault(table.name, mark)
            every = zip(part, fields[1:], values, strict=True)
            there = [(key, (field, value)) for key, field, value in every if value is not None]
            placed = _placed(table, [stored for _, stored in there])
            found.update(zip([key for key, _ in there], placed, strict=True))
        return found

    async def write(self, table: RowTable, rows: Mapping[Any, Placed]) -> bool:
        """Put rows, or mark them as deleted; what has the same or a higher position stays."""
        name = table.name
        put = {key: one.row for key, one in rows.items() if one.row is not None}
        texts = dict(zip(put, _texts(table, list(put.values())), strict=True))
        arguments: list[bytes | int] = []
        for key, one in rows.items():
            arguments += (_field(key), one.position, b" " + texts[key] if key in texts else b"")
        for start in range(0, len(arguments), AT_ONCE * 3):
            part = arguments[start : start + AT_ONCE * 3]
            with self._reached():
                mark = self._marks.get(name, b"none")
                other = await self._write(keys=[self._hash(name)], args=[mark, *part])
            if other is not None:
                if not other:
                    raise self._gone(name)
                self._marks[name] = other
                return False
        return True

    async def scan(self, table: RowTable) -> AsyncIterator[Any]:
        """Iterate over the rows there are, in any order; one may come twice.

        In place of one that is damaged stands the error of reading it.
        """
        async for part in self._pages(table):
            for one in _placed_apart(table, part):
                if isinstance(one, DamagedRow):
                    yield one
                elif one.row is not None:
                    yield one.row

    async def values(
        self, table: RowTable, columns: Sequence[str], keys: Sequence[Any] | None = None
    ) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
        """Iterate over the keys of the rows there are, and what is stored in some columns."""
        async for part in self._pages(table) if keys is None else self._some(table, keys):
            read = [_stored(table, *stored, columns)[1] for stored in part]
            rows = [row for row in read if row is not None]
            for key, row in zip(_keys(table, rows), rows, strict=True):
                yield key, {name: row[name] for name in columns}

    async def _pages(self, table: RowTable) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        """Iterate over what is stored: fields and values."""
        cursor = 0
        while True:
            with self._reached():
                cursor, part = await self._redis.hscan(
                    self._hash(table.name), cursor, count=AT_ONCE
                )
            part.pop(MARK, None)
            yield list(part.items())
            if not cursor:
                return

    async def _some(
        self, table: RowTable, keys: Sequence[Any]
    ) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        fields = [MARK, *map(_field, keys)]
        with self._reached():
            found = await self._redis.hmget(self._hash(table.name), fields)
        stored = zip(fields[1:], found[1:], strict=True)
        yield [(field, value) for field, value in stored if value is not None]

    async def close(self) -> None:
        """Release everything. May be called twice."""
        await self._redis.aclose()
        await self._pool.aclose()

    def _hash(self, name: str) -> str:
        return f"{self.address.prefix}{name}"

    def _gone(self, name: str) -> Unavailable:
        return Unavailable(
            "The rows of this view are not there any more. Within seconds a process that works on "
            "them (`diptych work`) has them folded anew from the log",
            database=self.address.shown,
            table=self._hash(name),
        )

    @contextmanager
    def _reached(self) -> Generator[None]:
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            yield
            if task and task.cancelling() > cancelled:  # the driver has swallowed it
                raise asyncio.CancelledError
        except (RedisError, OSError) as error:
            raise Unavailable(
                "Redis cannot be reached, or refuses work",
                database=self.address.shown,
                why=f"{type(error).__name__}: {error}",
            ) from error


def _column(field: Any) -> str:
    return f"{field.kind.name}{'?' * field.kind.optional}{' key' * field.key}"


def _read(mark: bytes, name: str) -> _Mark:
    try:
        return msgspec.json.decode(mark, type=_Mark)
    except msgspec.MsgspecError as error:
        raise Invalid(
            "There is something else in Redis where the rows were to be; give another prefix",
            field="views",
            rule="a prefix of its own",
            table=name,
        ) from error


def _field(key: Any) -> bytes:
    try:
        return key_text(key).encode()
    except UnicodeEncodeError:
        return b"\0"  # no row has such a key


def _texts(table: RowTable, rows: Sequence[View]) -> list[bytes]:
    """Return rows as JSON objects, in what SQLite would keep of their fields."""
    if not rows:
        return []
    definition = table.definition
    layout = definition.on("sqlite")
    columns = [
        [_sent(value) for value in column] if storage.sql == "REAL" else column
        for storage, column in zip(layout.columns.values(), layout.to_columns(rows), strict=True)
    ]
    try:
        return [
            _encode(dict(zip(definition.names, row, strict=True)))
            for row in zip(*columns, strict=True)
        ]
    except UnicodeEncodeError as error:
        raise Invalid(
            "A row is not valid",
            field="str",
            rule="text that can be written as UTF-8",
            got=error.object,
            view=definition.view.__name__,
        ) from error


def _sent(value: Any) -> Any:
    return str(value) if value is not None and math.isinf(value) else value


def _keys(table: RowTable, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the keys of rows that were stored, of whichever version."""
    columns = [
        storage.from_column([row[name] for row in rows])
        for name, storage in table.definition.on("sqlite").keys.items()
    ]
    return list(columns[0]) if len(columns) == 1 else list(zip(*columns, strict=True))


def _stored(
    table: RowTable, field: bytes, value: bytes, columns: Iterable[str]
) -> tuple[int, dict[str, Any] | None]:
    """Return the position and the columns that were stored; ``DamagedRow`` for something else."""
    position, _, text = value.partition(b" ")
    try:
        if not text:
            return int(position), None
        row = _decode(text)
        if lacking := [name for name in columns if name not in row]:
            raise ValueError(f"it has no {lacking[0]}")
        return int(position), row
    except ValueError as error:  # msgspec's are such, too
        raise _damaged(table, field, "(row)", value.decode(errors="replace"), error) from error


def _float(table: RowTable, field: bytes, column: str, stored: Any) -> float | None:
    try:
        return None if stored is None else float(stored)
    except (ValueError, TypeError) as error:
        raise _damaged(table, field, column, stored, error) from error


def _damaged(table: RowTable, field: bytes, column: str, got: Any, why: Exception) -> DamagedRow:
    """Return the error, which names the key; the field, where it stands for none."""
    types = [one.type for one in table.definition.key_fields]
    kind: Any = types[0] if len(types) == 1 else tuple[tuple(types)]  # type: ignore[misc]
    key: Any = field.decode(errors="replace")
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        key = msgspec.json.decode(field, type=kind)
    return damaged_row(table.view, key, column, got, why)


def _placed(table: RowTable, stored: Sequence[tuple[bytes, bytes]]) -> list[Placed]:
    """Return rows and positions from fields and values."""
    names, layout = table.definition.names, table.definition.on("sqlite")
    real = [name for name, storage in layout.columns.items() if storage.sql == "REAL"]
    read: list[tuple[int, dict[str, Any] | None]] = []
    for field, value in stored:
        position, row = _stored(table, field, value, names)
        if row is not None:
            row |= {name: _float(table, field, name, row[name]) for name in real}
        read.append((position, row))
    there = iter(layout.from_rows([[row[n] for n in names] for _, row in read if row is not None]))
    return [Placed(None if row is None else next(there), position) for position, row in read]


def _placed_apart(
    table: RowTable, stored: Sequence[tuple[bytes, bytes]]
) -> list[Placed | DamagedRow]:
    """Return rows and positions; in place of a row that is damaged the error of reading it."""
    try:
        return [*_placed(table, stored)]
    except DamagedRow as error:
        if len(stored) == 1:
            return [error]
    half = len(stored) // 2
    return [*_placed_apart(table, stored[:half]), *_placed_apart(table, stored[half:])]


__all__ = ["Address", "Rows"]
