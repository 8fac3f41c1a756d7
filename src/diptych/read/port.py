"""The port of view stores: where rows and checkpoints are kept, together.

An adapter writes rows and checkpoint in one transaction and moves a checkpoint only by comparing
it with what the writer believed it to be. On that alone rests "exactly once". Everything that an
adapter needs can be imported from here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec import Struct, structs

from diptych.errors import ViewLost
from diptych.log import StoredEvent
from diptych.read.kinds import DECIMAL_COLLATION, Storage, compare_decimals, plain_decimal
from diptych.read.parking.desk import Desk, Parked, ParkedKey, Pause, Place
from diptych.read.proving.proof import (
    BLOCK_SHIFT,
    Tally,
    is_whole,
    key_text,
    pack,
    total_of,
    unpack,
)
from diptych.read.versioning.noted import Difference, State, Turn, Version
from diptych.read.views import Definition, Layout, View, damaged_row, definition_of

if TYPE_CHECKING:
    from sqlalchemy import Executable

    from diptych.read.select import SelectOf

V = TypeVar("V", bound=View)


class Checkpoint(Struct, frozen=True):
    """How far a span of a projection's slices is in which log, and the proof of what it applied.

    The span begins with ``slice`` and has ``slices`` of them. ``event_id`` and ``time`` are those
    of the event at ``position``; position 0 has neither. ``count`` and ``digest`` are the sums of
    the slices' own, packed in ``tallies`` (`proof.pack`). ``revision`` grows with whatever changes
    what the followers of the span must know: keys retried or skipped, a pause, a rewind.
    """

    projection: str
    log: str
    position: int = 0
    event_id: str = ""
    count: int = 0
    digest: int = 0
    time: datetime | None = None
    slice: int = 0
    slices: int = 1
    tallies: bytes = bytes(24)
    revision: int = 0

    @property
    def end(self) -> int:
        """The first slice after the span."""
        return self.slice + self.slices

    @property
    def damaged(self) -> bool:
        """Whether it is not what was written: somebody has changed it by hand."""
        return self.digest < 0 or not is_whole(self.tallies, self.slices)

    def part(self, start: int, end: int) -> Checkpoint:
        """Return the checkpoint of some slices of the span."""
        tallies = unpack(self.tallies)[start - self.slice : end - self.slice]
        total = total_of(tallies)
        return structs.replace(
            self,
            slice=start,
            slices=end - start,
            count=total.count,
            digest=total.digest,
            tallies=pack(tallies),
        )


class Kept(Struct, frozen=True):
    """What a store keeps for a projection: its views, and into how many slices its keys fall.

    ``tables`` are the tables of the views, where they are not the plain ones. Without ``indexed``
    they have no more than their key: they are being filled.
    """

    views: tuple[type[View], ...]
    slices: int = 1
    tables: tuple[str, ...] = ()
    indexed: bool = True

    @property
    def places(self) -> list[tuple[Definition, str]]:
        """Each view's definition, and its table."""
        found = list(map(definition_of, self.views))
        names = self.tables or [one.table_name for one in found]
        return list(zip(found, names, strict=True))


class Worker(Struct, frozen=True, array_like=True):
    """A process that projects; ``host`` and ``pid`` tell whether it still lives, on its host.

    ``bulk``: those of all projections that are far behind, as far as it knows.
    """

    id: str
    host: str
    pid: int
    projections: tuple[str, ...]
    bulk: tuple[str, ...] = ()


class Writes(Struct, frozen=True):
    """What changes in one view: rows to insert or update, keys of rows to delete.

    ``positions``: the last event folded, by key, where `Loaded` rows ask for it. The keys of the
    first ``new`` rows have none yet, if the checkpoint stands right. ``passed`` are only checked.
    """

    view: type[View]
    rows: list[Any]
    deleted: list[Any]
    positions: dict[Any, int] = {}
    new: int = 0
    passed: list[Any] = []


class Applied(Struct, frozen=True):
    """How many events a step applies, the first and the last; and those to be traced."""

    events: int
    first: StoredEvent
    last: StoredEvent
    traced: tuple[StoredEvent, ...] = ()


class Change(Struct, frozen=True):
    """A projection's step: only if its checkpoint is still ``before``, all of it or nothing.

    ``blocks`` are the new tallies (not the differences) of the blocks that the step touched.
    ``parked`` are put, in place of those of the same `Parked.place`; ``unparked`` are such places.
    ``applied`` is there to be measured; stores pass it over.
    """

    before: Checkpoint
    after: Checkpoint
    blocks: dict[int, Tally]
    writes: tuple[Writes, ...] = ()
    parked: tuple[Parked, ...] = ()
    unparked: tuple[Place, ...] = ()
    applied: Applied | None = None


class Proof(Struct, frozen=True):
    """What ``verify`` found last: ``reach`` and ``tallies`` of each slice, at ``time`` (UTC).

    ``reason`` says what is wrong; where it is ``ok``, that effects were parked, if any.
    ``unknown``: how many events up to there are of types that the program did not know.
    """

    projection: str
    log: str
    time: datetime
    ok: bool
    position: int
    count: int
    reason: str
    reach: list[int]
    tallies: bytes
    unknown: dict[str, int] = {}


class Found(Struct, frozen=True):
    """The rows of a select, each projection's position in the same snapshot, and the last turn."""

    rows: list[Any]
    positions: dict[str, int]
    turn: int = 0

    @classmethod
    def of(cls, rows: list[Any], positions: dict[str, int]) -> Found:
        """Make one of what the SQL stores select: the turn is there under "", which is no name."""
        return cls(rows, positions, positions.pop("", 0))


class Transaction(Protocol):
    """A transaction of the view store, as a handler gets it. Its rows and checkpoint are one."""

    async def execute(self, statement: Executable) -> int:
        """Run an insert, update or delete of SQLAlchemy Core; return how many rows it touched."""
        ...

    async def all(self, statement: SelectOf[V]) -> list[V]:
        """Return the rows of a select of one view."""
        ...

    async def rows(self, statement: Executable) -> list[tuple[Any, ...]]:
        """Return the rows of any select."""
        ...

    async def get(self, view: type[V], key: Any) -> V | None:
        """Return the row of a key (a tuple where the view has several key fields)."""
        ...

    async def put(self, row: View) -> None:
        """Insert a row, or replace the one of the same key."""
        ...

    async def delete(self, view: type[View], key: Any) -> None:
        """Delete the row of a key, if there is one."""
        ...


class Session(Transaction, Protocol):
    """A transaction as the engine holds it."""

    async def move(self, change: Change) -> None:
        """Move the checkpoint; ``CheckpointMoved`` when it was moved by somebody else."""
        ...

    def own(self, views: Iterable[type[View]]) -> None:
        """From now on, let ``put`` and ``delete`` write these views only."""
        ...


class InsideStore(Protocol):
    """The store within a transaction of somebody else's: an append's. Not async: in its thread."""

    def checkpoint(self, projection: str) -> Checkpoint | None:
        """Return the checkpoint of a projection of one span."""
        ...

    def block(self, projection: str, slice_: int, number: int) -> Tally:
        """Return the tally of one block, as far as spans that begin with a slice wrote it."""
        ...

    def load(self, view: type[View], keys: Sequence[Any]) -> dict[Any, Any]:
        """Return the rows that exist for these keys, by key."""
        ...

    def apply(self, change: Change) -> bool:
        """Make a step; False, and nothing done, when its checkpoint has been moved."""
        ...


class AsyncInsideStore(Protocol):
    """The same where the append's transaction is on the event loop."""

    async def checkpoint(self, projection: str) -> Checkpoint | None:
        """Return the checkpoint of a projection of one span; nobody moves it until the end."""
        ...

    async def block(self, projection: str, slice_: int, number: int) -> Tally:
        """Return the tally of one block, as far as spans that begin with a slice wrote it."""
        ...

    async def load(self, view: type[View], keys: Sequence[Any]) -> dict[Any, Any]:
        """Return the rows that exist for these keys, by key."""
        ...

    async def apply(self, change: Change) -> bool:
        """Make a step; False, and nothing done, when its checkpoint has been moved."""
        ...


class ViewStore(Protocol):
    """What an adapter offers."""

    @property
    def desk(self) -> Desk:
        """What operators look at and change: parked keys, pauses."""
        ...

    async def open(self, log: str, projections: dict[str, Kept], *, create: bool = True) -> None:
        """Make what is missing: tables, indexes, a checkpoint at 0 for each new projection.

        One without a checkpoint whose tables hold rows gets none: the rows are not known to be its.
        Without ``create`` nothing is made: ``NoViews`` when something is missing. Raises
        ``DefinitionError`` for a table of other columns, ``ViewLost`` (`require_tables`).
        """
        ...

    async def checkpoints(self) -> dict[str, list[Checkpoint]]:
        """Return every projection's checkpoints, by name: its spans, in the order of slices."""
        ...

    async def lost_rows(self, *, refill: bool = False) -> dict[str, ViewLost]:
        """Return, by projection, the errors of those whose rows are gone, checkpoints not.

        That is noticed here only where rows are kept in a database of their own (`RowsBeside`), and
        raises ``Unavailable`` where it does not answer; elsewhere nothing is lost. With ``refill``
        a store that was opened with ``create`` also has these rows folded anew.
        """
        ...

    async def recut(self, projection: str, cuts: Collection[int]) -> list[Checkpoint]:
        """Cut a projection's spans at these slices, join what stands level; return the spans.

        See ``recut_spans``. What others believed of spans that are no more, no step will match.
        """
        ...

    async def proof(self, projection: str) -> tuple[list[Checkpoint], dict[int, Tally]]:
        """Return a projection's spans and the tallies of all its blocks, of one snapshot.

        There are no spans where there is no such projection.
        """
        ...

    async def block(self, projection: str, slice_: int, number: int) -> Tally:
        """Return the tally of one block, as far as spans that begin with a slice wrote it."""
        ...

    async def prove(self, proof: Proof) -> None:
        """Keep what was found of a projection, in place of what was found before."""
        ...

    async def proofs(self) -> dict[str, Proof]:
        """Return what was found last, by projection."""
        ...

    def mark(self) -> int:
        """Return where one is in the news of steps; to be asked before one looks at checkpoints."""
        ...

    async def moved(self, mark: int, timeout: float) -> None:
        """Wait for steps since a mark, at most ``timeout`` s; it may end early, or miss some."""
        ...

    async def beat(self, worker: Worker, lease: float) -> list[Worker]:
        """Note that a worker is there; return those seen in the last ``lease`` seconds, by id."""
        ...

    async def workers(self, lease: float) -> list[Worker]:
        """Return the workers seen in the last ``lease`` seconds, by id."""
        ...

    async def leave(self, worker: str) -> None:
        """Note that a worker is there no more."""
        ...

    async def versions(self) -> list[Version]:
        """Return all versions there are; none where nothing is set up."""
        ...

    async def claim(self, new: Sequence[Version]) -> list[Version]:
        """Note versions, where neither they, nor their instance, nor another live one is there.

        Returns all there are then.
        """
        ...

    async def turn(self, changes: Sequence[Turn], *, level: bool = False) -> bool:
        """Change versions, all or none of them, if each is still as it is believed to be.

        ``level``: only if what becomes live is as far as what was. One that is dropped loses its
        tables, checkpoints and proofs.
        """
        ...

    async def forget(self, gone: Sequence[Version]) -> bool:
        """Delete versions, all or none of them, if each is still as it is believed to be.

        With their tables, but for those that versions which stay are in, and with all that is noted
        under their instances.
        """
        ...

    async def index(self, kept: Kept) -> None:
        """Make the indexes of tables that were made without."""
        ...

    def read_from(self, tables: Mapping[type[View], str]) -> None:
        """From now on, let queries find these views in these tables."""
        ...

    async def compare(
        self, view: type[View], tables: tuple[str, str], columns: Sequence[str], most: int
    ) -> Difference:
        """Compare two tables of a view in some columns, with at most so many examples."""
        ...

    async def load(self, view: type[View], keys: Sequence[Any]) -> dict[Any, Any]:
        """Return the rows that exist for these keys, by key."""
        ...

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Make all steps in one transaction; tell for each whether its checkpoint stood right.

        Raises ``Unavailable``: nothing has been written, as far as is known. The checkpoints tell.
        """
        ...

    def session(self) -> AbstractAsyncContextManager[Session]:
        """Open a transaction; it commits at the end, or rolls back when something raises."""
        ...

    async def all(self, statement: Any) -> Found:
        """Run a select of one view; ``rows`` are rows of it."""
        ...

    async def rows(self, statement: Any) -> Found:
        """Run any select; ``rows`` are tuples."""
        ...

    async def get(self, view: type[View], key: Any) -> Found:
        """Read one row by its key."""
        ...

    def plan(self, statement: Any) -> Any:
        """Look at a statement once; what is returned may be passed on in its place."""
        ...

    def views_of(self, statement: Any) -> Iterable[type[View]]:
        """Return the views whose tables a statement names."""
        ...

    async def close(self) -> None:
        """Release everything. May be called twice."""
        ...


def recut_spans(spans: Sequence[Checkpoint], cuts: Collection[int]) -> list[Checkpoint]:
    """Return spans cut where ``cuts`` say; neighbours at one position that no cut parts are one."""
    if any(span.damaged for span in spans):
        return list(spans)  # else sums of parts would be sound
    found: list[Checkpoint] = []
    for span in spans:
        edges = [span.slice, *sorted(c for c in cuts if span.slice < c < span.end), span.end]
        parts = [span] if len(edges) == 2 else list(map(span.part, edges, edges[1:]))
        if found and parts[0].slice not in cuts and _level(found[-1], parts[0]):
            found[-1] = _joined(found[-1], parts.pop(0))
        found += parts
    return found


def _level(left: Checkpoint, right: Checkpoint) -> bool:
    return (
        left.end == right.slice
        and left.log == right.log
        and (left.position, left.event_id) == (right.position, right.event_id)
    )


def _joined(left: Checkpoint, right: Checkpoint) -> Checkpoint:
    total = Tally(left.count, left.digest).plus(Tally(right.count, right.digest))
    return structs.replace(
        left,
        slices=left.slices + right.slices,
        count=total.count,
        digest=total.digest,
        tallies=left.tallies + right.tallies,
        revision=max(left.revision, right.revision),
    )


__all__ = [
    "BLOCK_SHIFT",
    "DECIMAL_COLLATION",
    "AsyncInsideStore",
    "Change",
    "Checkpoint",
    "Definition",
    "Desk",
    "Difference",
    "Found",
    "InsideStore",
    "Kept",
    "Layout",
    "Parked",
    "ParkedKey",
    "Pause",
    "Place",
    "Proof",
    "Session",
    "State",
    "Storage",
    "Tally",
    "Transaction",
    "Turn",
    "Version",
    "View",
    "ViewStore",
    "Worker",
    "Writes",
    "compare_decimals",
    "damaged_row",
    "definition_of",
    "key_text",
    "pack",
    "plain_decimal",
    "recut_spans",
    "unpack",
]
