"""Inline projections: folded in the append's own transaction, where log and views share a database.

The application hands ``Inline`` to the log as its ``InsideAppend``::

    inline = Inline(codec, log_identity, projections, store.inside, read_inside)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from diptych.codec import Codec
from diptych.errors import CheckpointMoved, ForeignCheckpoint, ProjectionFailed
from diptych.log import StoredEvent
from diptych.read.fold import Folded, Used, fold_used
from diptych.read.follower import Follower
from diptych.read.pages import undecodable
from diptych.read.port import InsideStore
from diptych.read.projections import Keyed
from diptych.read.proof import BLOCK_SHIFT

GapReader: TypeAlias = Callable[[Any, int, int], list[StoredEvent]]
"""(connection, after, until) -> the next events in (after, until], read in the open transaction."""

GAP_PAGE: Final = 2000


class Inline:
    """Folds new events into the inline projections' views; called in the log's writing thread.

    Whatever cannot be folded raises, and the append does not take place: never is there a hole.
    ``identity`` is the log's, or a function that returns it once the log is open.
    """

    def __init__(
        self,
        codec: Codec,
        identity: str | Callable[[], str],
        projections: Sequence[Keyed],
        inside: Callable[[Any], InsideStore],
        gap_reader: GapReader,
        *,
        cache_rows: int = 20_000,
    ) -> None:
        self._codec = codec
        self._identity = identity
        self._followers = [Follower(p, codec, cache_rows) for p in projections if p.inline]
        self._inside = inside
        self._gap_reader = gap_reader

    def __call__(self, connection: Any, events: list[StoredEvent]) -> None:
        """Fold events that have just been inserted on this connection."""
        if not events:
            return
        store = self._inside(connection)
        for follower in self._followers:
            self._stand(follower, store)
            self._fill(follower, store, connection, events[0].position - 1)
            self._fold(follower, store, events)

    def _stand(self, follower: Follower, store: InsideStore) -> None:
        """Make sure that what we remember is what the database holds: appends get rolled back."""
        checkpoint = store.checkpoint(follower.name)
        identity = self._identity if isinstance(self._identity, str) else self._identity()
        if checkpoint is None or checkpoint.log != identity:
            raise ForeignCheckpoint(
                "An inline projection has no checkpoint of this log; open the read side before "
                "appending, or drop the projection's tables and checkpoint to build it anew",
                projection=follower.name,
                checkpoint_of=None if checkpoint is None else checkpoint.log,
                this_log=identity,
            )
        if follower.lost or checkpoint != follower.tip:
            follower.forget()
            follower.tip = checkpoint
            follower.block = store.block(follower.name, checkpoint.position >> BLOCK_SHIFT)
            follower.lost = False

    def _fill(self, follower: Follower, store: InsideStore, connection: Any, until: int) -> None:
        """Fold what another process, without this projection, has appended."""
        while (after := follower.tip.position) < until:
            upto = min(after + GAP_PAGE, until)
            gap = self._gap_reader(connection, after, upto)
            if not gap or gap[0].position != after + 1:
                raise ForeignCheckpoint(
                    "The log does not hold the events that an inline projection has yet to apply",
                    projection=follower.name,
                    after=after,
                    until=until,
                )
            self._fold(follower, store, gap)
        if follower.tip.position != until:
            raise ForeignCheckpoint(
                "An inline projection's checkpoint lies beyond the head of the log",
                projection=follower.name,
                position=follower.tip.position,
                head=until,
            )

    def _fold(self, follower: Follower, store: InsideStore, events: Sequence[StoredEvent]) -> None:
        one = follower.projection
        assert isinstance(one, Keyed)
        used: list[Used] = [
            (stored, self._decoded(stored)) for stored in events if stored.type in follower.types
        ]
        folded = _drive(one, follower, store, used) if used else None
        if folded is not None and folded.failed:
            follower.forget()
            raise ProjectionFailed(
                "An inline projection's function raised, so the append did not take place",
                projection=follower.name,
                position=folded.failed,
                why=f"{type(folded.error).__name__}: {folded.error}",
                at=one.at,
            ) from folded.error
        try:
            moved = store.apply(follower.advance(events[-1], folded))
        except BaseException:
            follower.forget()
            raise
        if not moved:
            follower.forget()
            raise CheckpointMoved(
                "An inline projection's checkpoint has moved within the append's transaction",
                projection=follower.name,
            )

    def _decoded(self, stored: StoredEvent) -> Any:
        try:
            return self._codec.events[stored.type].decode(stored.data)
        except Exception:
            return undecodable(self._codec, stored)


def _drive(one: Keyed, follower: Follower, store: InsideStore, used: Sequence[Used]) -> Folded:
    folding = fold_used(one, follower.cache, used)
    try:
        asked = next(folding)
        while True:
            asked = folding.send({} if asked is None else store.load(one.view, asked))
    except StopIteration as stop:
        folded: Folded = stop.value
        return folded
