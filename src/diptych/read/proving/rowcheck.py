"""Are the rows right? The events are folded aside, and what comes out is compared with the views.

Count and digest prove that events were applied; this proves what they came to: that nobody changed
a row by hand, and that the fold of today gives these rows. Only so many rows are held at a time:
the keys are taken in parts, by their hash, and the log is read once for each part.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Final, Literal

from msgspec import Struct

from diptych.codec import Codec
from diptych.errors import DamagedRow, ForeignCheckpoint, ProjectionFailed, ViewLost, raised, said
from diptych.log import Log, StoredEvent
from diptych.read.beside import RowsBeside
from diptych.read.following.fold import recorded
from diptych.read.following.pages import undecodable
from diptych.read.parking.parking import Aside, Parking
from diptych.read.port import Checkpoint, ViewStore
from diptych.read.projections import Keyed
from diptych.read.proving.mending import mending
from diptych.read.proving.proof import hash_key
from diptych.read.proving.refusing import require_comparable
from diptych.read.select import select

MOST_ROWS: Final = 100_000
"""Rows that are folded aside at a time, about."""

PAGE: Final = 2000
LOOKS: Final = 50
"""How often a row that differs is looked at again, while its projection goes on."""

_SHARES: Final = 1 << 20

What = Literal["missing", "extra", "different"]


class Column(Struct, frozen=True):
    """A column that differs: what the fold gives, and what is stored."""

    name: str
    expected: Any
    found: Any


class RowFault(Struct, frozen=True):
    """A row that is not what the events come to: missing, extra (it should not be), different."""

    what: What
    key: Any
    columns: list[Column] = []


class RowVerdict(Struct, frozen=True, kw_only=True):
    """What was found of a projection's rows. ``rows`` were compared, ``differing`` of them differ.

    ``columns`` says in how many rows each column differs; ``faults`` are the first of them.
    ``unsettled`` keys changed so fast that they could not be told. ``reason`` says it in words,
    ``remedy`` what to do. ``outcome`` tells where nothing was: the rows are those of another log or
    projection; or this program's ``version`` is not live, or is new.
    """

    projection: str
    ok: bool
    rows: int
    differing: int
    seconds: float
    sample: float = 1.0
    columns: dict[str, int] = {}
    faults: list[RowFault] = []
    unsettled: list[Any] = []
    reason: str = ""
    remedy: str = ""
    version: str = ""
    outcome: Literal["compared", "refused", "not compared", "new"] = "compared"


async def verify_rows(
    log: Log,
    codec: Codec,
    store: ViewStore,
    one: Keyed,
    *,
    sample: float = 1.0,
    most: int = 20,
) -> RowVerdict:
    """Fold a projection's events aside and compare the rows; ``sample``: that share of the keys."""
    began = time.perf_counter()
    spans = (await store.checkpoints()).get(one.name, [])
    try:
        await require_comparable(one, spans, await store.lost_rows(), store, log)
    except (ForeignCheckpoint, ViewLost) as error:
        return RowVerdict(
            projection=one.title,
            ok=False,
            rows=0,
            differing=0,
            seconds=time.perf_counter() - began,
            sample=sample,
            reason=str(error),
            remedy=mending(one, spans, log),
            outcome="refused",
        )
    check = _Check(log, codec, store, one, sample)
    for part in await check.parts():
        await check.compare(part)
    faults = check.faults
    columns: dict[str, int] = {}
    for fault in faults:
        for column in fault.columns:
            columns[column.name] = columns.get(column.name, 0) + 1
    return RowVerdict(
        projection=one.title,
        ok=not faults and not check.unsettled,
        rows=check.compared,
        differing=len(faults),
        seconds=time.perf_counter() - began,
        sample=sample,
        columns=columns,
        faults=faults[:most],
        unsettled=check.unsettled,
        reason=_reason(faults, check.unsettled, columns),
        remedy=mending(one, spans, log, gaps=check.gaps, unknown=check.unknown) if faults else "",
    )


async def require_foldable(log: Log, codec: Codec, store: ViewStore, one: Keyed) -> None:
    """Fold a projection's events aside; ``ProjectionFailed`` where it fails on one."""
    check = _Check(log, codec, store, one, 1.0)
    for part in await check.parts():
        await check.fold(part)


def _reason(faults: Sequence[RowFault], unsettled: Sequence[Any], columns: dict[str, int]) -> str:
    said: list[str] = []
    for what, words in (
        ("missing", "missing"),
        ("extra", "not to be there"),
        ("different", "different"),
    ):
        if number := sum(fault.what == what for fault in faults):
            said.append(f"{number} {'row is' if number == 1 else 'rows are'} {words}")
    if columns:
        said.append("in " + ", ".join(f"{name} ({n})" for name, n in columns.items()))
    if unsettled:
        said.append(f"{len(unsettled)} changed too fast to be told; look again")
    return "; ".join(said)


class _Check:
    def __init__(self, log: Log, codec: Codec, store: ViewStore, one: Keyed, sample: float) -> None:
        self._log = log
        self._codec = codec
        self._store = store
        self._one = one
        self._most = int(sample * _SHARES)
        self._decode = {codec.of(event).name: codec.of(event).decode for event in one.events}
        self.compared = 0
        self.faults: list[RowFault] = []
        self.unsettled: list[Any] = []
        self.gaps = False
        self.unknown: set[str] = set()
        self._parking = Parking(one, codec)
        self._aside = Aside(())

    async def count(self) -> int:
        """Return how many rows there are."""
        if isinstance(self._store, RowsBeside):
            return sum([1 async for _ in self._store.scan(self._one.view)])
        from sqlalchemy import func
        from sqlalchemy import select as select_any

        table = self._one.definition.table
        found = await self._store.rows(select_any(func.count()).select_from(table))
        return int(found.rows[0][0])

    async def parts(self) -> list[Callable[[Any], bool]]:
        """Return tests of keys: each is true of a part of those that are looked at."""
        parts = max(1, -(-(await self.count() * self._most // _SHARES) // MOST_ROWS))

        def of(part: int) -> Callable[[Any], bool]:
            def mine(key: Any) -> bool:
                number = hash_key(key)
                return number % _SHARES < self._most and (number >> 32) % parts == part

            return mine

        return [of(part) for part in range(parts)]

    async def fold(self, mine: Callable[[Any], bool]) -> None:
        """Fold one part of the keys aside, up to the head of the log, and compare nothing."""
        slices = self._one.slices
        await self._fold({}, mine, [0] * slices, [await self._log.head()] * slices)

    async def compare(self, mine: Callable[[Any], bool]) -> None:
        """Compare the rows of one part of the keys."""
        reach = _Reach(await self._spans())
        self._aside = Aside(await self._store.desk.parked(self._one.name))
        expected: dict[Any, Any] = {}
        await self._fold(expected, mine, [0] * reach.slices, reach.positions)
        doubtful: dict[Any, None] = {}
        left = dict.fromkeys(expected)
        async for row in self._rows():
            damaged = isinstance(row, DamagedRow)
            key = row.key if damaged else self._one.definition.key_of(row)
            if not mine(key):
                continue
            self.compared += 1
            left.pop(key, None)
            if damaged:
                right = getattr(there := expected.get(key), row.column, there)
                self.faults.append(RowFault("different", key, [Column(row.column, right, row.got)]))
            elif expected.get(key) != row:
                doubtful[key] = None
        self.compared += len(left)
        doubtful |= left
        if doubtful:
            await self._look_again(expected, doubtful, reach)

    async def _look_again(
        self, expected: dict[Any, Any], doubtful: dict[Any, None], reach: _Reach
    ) -> None:
        """Look at rows that differ until they are, or certainly are not, what they should be.

        The projection may have gone on since its events were folded aside; so these few keys are
        folded on to where it is, and compared with what was read while it stood there.
        """
        kept = {key: expected[key] for key in doubtful if key in expected}
        open_ = dict(doubtful)
        revisions = reach.revisions
        for _ in range(LOOKS):
            before = _Reach(await self._spans())
            found = {key: await self._store.get(self._one.view, key) for key in open_}
            after = _Reach(await self._spans())
            await self._fold(kept, lambda key: key in doubtful, reach.positions, before.positions)
            reach = before
            for key, read in found.items():
                row = read.rows[0] if read.rows else None
                if kept.get(key) == row:
                    open_.pop(key)
                elif before.of(key) == after.of(key) and revisions == after.revisions:
                    open_.pop(key)
                    names = self._one.definition.names
                    self.faults.append(_fault(names, key, kept.get(key), row))
            if not open_:
                return
        self.unsettled += open_

    async def _fold(
        self,
        rows: dict[Any, Any],
        mine: Callable[[Any], bool],
        after: Sequence[int],
        until: Sequence[int],
    ) -> None:
        """Fold the events of some keys, of each slice those in (after, until]."""
        slices = len(until)
        at, end = min(after), max(until)
        while at < end:
            page = await self._log.read(after=at, until=end, limit=PAGE)
            self.gaps |= len(page.events) < page.upto - at
            at = page.upto
            for stored in page.events:
                decode = self._decode.get(stored.type)
                if decode is None:
                    if stored.type not in self._codec.events:
                        self.unknown.add(stored.type)
                    continue
                event, keys = self._keys(decode, stored)
                for key in keys:
                    number = hash_key(key)
                    place = (number >> 64) % slices
                    if self._aside.has(stored.position, number, place):
                        continue
                    if mine(key) and after[place] < stored.position <= until[place]:
                        self._apply(rows, key, stored, event)
            await asyncio.sleep(0)

    def _apply(self, rows: dict[Any, Any], key: Any, stored: StoredEvent, event: Any) -> None:
        one = self._one
        record = recorded(stored, event) if one.asks_record else None
        try:
            if isinstance(event, Exception):
                raise event
            row = one.fold(rows.get(key), event, key, record)
        except BaseException as failure:
            error = raised(failure)
            raise ProjectionFailed(
                "The rows cannot be folded aside: the projection fails on an event",
                projection=one.title,
                position=stored.position,
                why=said(error),
                at=one.at,
            ) from error
        if row is None:
            rows.pop(key, None)
        else:
            rows[key] = row

    def _keys(self, decode: Callable[[Any], Any], stored: StoredEvent) -> tuple[Any, Sequence[Any]]:
        """Return an event and its keys; what is parked may have neither."""
        event: Any = None
        try:
            try:
                event = decode(stored.data)
            except Exception:
                event = undecodable(self._codec, stored)
                return event, [self._parking.key_of(stored, event)]
            return event, self._one.keys_of(event)
        except Exception:
            if stored.position in self._aside.without_key:
                return event, ()
            raise

    async def _spans(self) -> list[Checkpoint]:
        return (await self._store.checkpoints())[self._one.name]

    async def _rows(self) -> AsyncIterator[Any]:
        """Iterate over all rows, page by page; for one that is damaged, the error says which."""
        if isinstance(self._store, RowsBeside):
            async for row in self._store.scan(self._one.view):
                yield row
            return
        from sqlalchemy import tuple_

        definition = self._one.definition
        columns: list[Any] = [definition.column(f.name) for f in definition.key_fields]
        statement: Any = select(self._one.view).order_by(*columns)
        last: Any = None
        limit = PAGE
        while True:
            wanted = statement.limit(limit)
            if last is not None:
                values: Iterable[Any] = last if len(columns) > 1 else (last,)
                wanted = wanted.where(tuple_(*columns) > tuple_(*values))
            try:
                rows: list[Any] = (await self._store.all(wanted)).rows
            except DamagedRow as error:
                if limit > 1:
                    limit //= 2
                    continue
                if any(error.column == field.name for field in definition.key_fields):
                    raise  # there is no going on from it
                yield error
                last, limit = error.key, PAGE
                continue
            for row in rows:
                yield row
            if len(rows) < limit:
                return
            last, limit = definition.key_of(rows[-1]), PAGE


class _Reach:
    """How far each slice is."""

    def __init__(self, spans: Sequence[Checkpoint]) -> None:
        self.positions = [span.position for span in spans for _ in range(span.slices)]
        self.slices = len(self.positions)
        self.revisions = [span.revision for span in spans for _ in range(span.slices)]

    def of(self, key: Any) -> int:
        """Return how far the slice of a key is."""
        return self.positions[(hash_key(key) >> 64) % self.slices]


def _fault(names: Sequence[str], key: Any, expected: Any, found: Any) -> RowFault:
    if found is None:
        return RowFault("missing", key)
    if expected is None:
        return RowFault("extra", key)
    pairs = [(name, getattr(expected, name), getattr(found, name)) for name in names]
    columns = [Column(name, right, there) for name, right, there in pairs if right != there]
    return RowFault("different", key, columns)
