"""Inline projections: folded in the append's own transaction, where log and views share a database.

The application hands ``Inline`` (the log writes in a thread of its own) or ``AsyncInline`` (it
writes on the event loop) to the log::

    inline = Inline(codec, log_identity, projections, store.inside, read_inside)

What is done is written once, as a generator that asks for what it needs; the two differ in how
they answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

from diptych.codec import Codec
from diptych.errors import CheckpointMoved, ForeignCheckpoint, ProjectionFailed, said
from diptych.log import StoredEvent
from diptych.read.following.fold import Folded, Used, fold_used
from diptych.read.following.follower import Follower, refuse_damaged
from diptych.read.following.pages import undecodable
from diptych.read.port import AsyncInsideStore, Change, Checkpoint, InsideStore, Tally
from diptych.read.projections import Keyed
from diptych.read.proving.proof import BLOCK_SHIFT, hash_event

GapReader: TypeAlias = Callable[[Any, int, int], list[StoredEvent]]
"""(connection, after, until) -> the next events in (after, until], read in the open transaction."""

AsyncGapReader: TypeAlias = Callable[[Any, int, int], Awaitable[list[StoredEvent]]]

GAP_PAGE: Final = 2000
CACHE_ROWS: Final = 20_000

T = TypeVar("T")
_Asking: TypeAlias = Generator[tuple[str, tuple[Any, ...]], Any, T]
"""Yields a method of the store (or ``gap``) and its arguments; is sent what it returns."""

G = TypeVar("G")
S = TypeVar("S")


class _Inline(Generic[S, G]):
    """What both have. ``identity`` is the log's, or a function that returns it once it is open."""

    def __init__(
        self,
        codec: Codec,
        identity: str | Callable[[], str],
        projections: Sequence[Keyed],
        inside: Callable[[Any], S],
        gap_reader: G,
        *,
        cache_rows: int = CACHE_ROWS,
    ) -> None:
        self._codec = codec
        self._identity = identity
        # In the order in which the engine moves checkpoints, so that none waits for the other.
        inline = sorted((p for p in projections if p.inline), key=lambda p: p.name)
        self._followers = [Follower(p, codec, cache_rows) for p in inline]
        self._inside = inside
        self._gap_reader = gap_reader

    def _steps(self, events: Sequence[StoredEvent]) -> _Asking[None]:
        for follower in self._followers:
            before = events[0].position - 1
            # What we remember may be out of date, or of an append that was rolled back: then the
            # step finds its checkpoint elsewhere, and is made anew from what the database holds.
            known = not follower.lost and follower.tip.position == before
            if known and (yield from self._fold(follower, events, remembered=True)):
                continue
            yield from self._stand(follower)
            yield from self._fill(follower, before)
            yield from self._fold_surely(follower, events)

    def _stand(self, follower: Follower) -> _Asking[None]:
        """Read where the projection is."""
        follower.forget()
        checkpoint: Checkpoint | None = yield "checkpoint", (follower.name,)
        identity = self._identity if isinstance(self._identity, str) else self._identity()
        if checkpoint is None or checkpoint.log != identity:
            raise ForeignCheckpoint(
                "An inline projection has no checkpoint of this log; open the read side before "
                "appending; or drop its tables and its rows in diptych_checkpoints, and it is "
                "built anew",
                projection=follower.name,
                checkpoint_of=None if checkpoint is None else checkpoint.log,
                this_log=identity,
            )
        refuse_damaged(checkpoint)  # no step would ever match it
        block: Tally = yield "block", (follower.name, 0, checkpoint.position >> BLOCK_SHIFT)
        follower.tip, follower.block, follower.lost = checkpoint, block, False

    def _fill(self, follower: Follower, until: int) -> _Asking[None]:
        """Fold what another process, without this projection, has appended."""
        while (after := follower.tip.position) < until:
            upto = min(after + GAP_PAGE, until)
            gap: list[StoredEvent] = yield "gap", (after, upto)
            if not gap or gap[0].position != after + 1:
                raise ForeignCheckpoint(
                    "The log does not hold the events that an inline projection has yet to apply",
                    projection=follower.name,
                    after=after,
                    until=until,
                )
            yield from self._fold_surely(follower, gap)
        if follower.tip.position != until:
            raise ForeignCheckpoint(
                "An inline projection's checkpoint lies beyond the head of the log",
                projection=follower.name,
                position=follower.tip.position,
                head=until,
            )

    def _fold_surely(self, follower: Follower, events: Sequence[StoredEvent]) -> _Asking[None]:
        if not (yield from self._fold(follower, events, remembered=False)):
            raise CheckpointMoved(
                "An inline projection's checkpoint has moved within the append's transaction",
                projection=follower.name,
            )

    def _fold(
        self, follower: Follower, events: Sequence[StoredEvent], *, remembered: bool
    ) -> _Asking[bool]:
        """Make a step; False, and nothing done, when the projection is not where it is thought."""
        one = follower.projection
        assert isinstance(one, Keyed)
        follower.cache.trim()  # all that it holds is written, be it in this transaction
        used: list[Used] = [
            (stored, self._decoded(stored), hash_event(stored.position, stored.id))
            for stored in events
            if stored.type in follower.types
        ]
        folded = (yield from _folded(one, follower, used)) if used else None
        failed, error = _failed(folded)
        if failed:
            if remembered:  # it may have failed on rows that are not those of the database
                return False
            raise ProjectionFailed(
                "An inline projection's function raised, so the append did not take place",
                projection=follower.name,
                position=failed,
                why="" if error is None else said(error),
                at=one.at,
            ) from error
        change: Change = follower.advance(events[-1], folded)
        moved: bool = yield "apply", (change,)
        return moved

    def _decoded(self, stored: StoredEvent) -> Any:
        try:
            return self._codec.events[stored.type].decode(stored.data)
        except Exception:
            return undecodable(self._codec, stored)


def _failed(folded: Folded | None) -> tuple[int, Exception | None]:
    """Return the first event that could not be folded; nothing is parked within an append."""
    if folded is None:
        return 0, None
    held = [(one.stored.position, one.error) for one in folded.held if one.error is not None]
    failed = [(folded.failed, folded.error)] if folded.failed else []
    return min(held + failed, key=lambda found: found[0], default=(0, None))


def _folded(one: Keyed, follower: Follower, used: Sequence[Used]) -> _Asking[Folded]:
    folding = fold_used(one, follower.cache, follower.span, used, follower.parking)
    try:
        asked = next(folding)
        while True:
            rows: Any = None
            if asked is not None:
                rows = yield "load", (one.view, asked)
            asked = folding.send(rows)
    except StopIteration as stop:
        folded: Folded = stop.value
        return folded


class Inline(_Inline[InsideStore, GapReader]):
    """Folds new events into the inline projections' views; called in the log's writing thread.

    Whatever cannot be folded raises, and the append does not take place: never is there a hole.
    """

    def __call__(self, connection: Any, events: list[StoredEvent]) -> None:
        """Fold events that have just been inserted on this connection."""
        if not events:
            return
        store = self._inside(connection)
        steps = self._steps(events)
        answer: Any = None
        while (asked := _next(steps, answer)) is not None:
            method, given = asked
            if method == "gap":
                answer = self._gap_reader(connection, *given)
            else:
                answer = getattr(store, method)(*given)


class AsyncInline(_Inline[AsyncInsideStore, AsyncGapReader]):
    """The same for a log that appends on the event loop; called within the append's transaction."""

    async def __call__(self, connection: Any, events: list[StoredEvent]) -> None:
        """Fold events that have just been inserted on this connection."""
        if not events:
            return
        store = self._inside(connection)
        steps = self._steps(events)
        answer: Any = None
        while (asked := _next(steps, answer)) is not None:
            method, given = asked
            if method == "gap":
                answer = await self._gap_reader(connection, *given)
            else:
                answer = await getattr(store, method)(*given)


def _next(steps: _Asking[None], answer: Any) -> tuple[str, tuple[Any, ...]] | None:
    try:
        return steps.send(answer)
    except StopIteration:
        return None
