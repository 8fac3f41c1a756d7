"""One projection on its way through the log: where it is, what it keeps in memory, how it fares."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final, Literal

from msgspec import structs

from diptych.codec import Codec, time_of
from diptych.errors import ForeignCheckpoint, ProjectionPaused
from diptych.log import Log, StoredEvent, renewals_of
from diptych.read.following.fold import Folded, RowCache, Span
from diptych.read.opening import unclaimed_rows
from diptych.read.parking.parking import Aside, Parking
from diptych.read.port import Change, Checkpoint, Parked, Pause, Tally, ViewStore, Writes
from diptych.read.projections import Keyed, Projection
from diptych.read.proving.proof import BLOCK_SHIFT, MODULUS, add_packed

LONGEST_RETRY: Final = 30.0
"""Seconds between attempts at an event that cannot be folded, at most."""

PAUSE_SECONDS: Final = 1.0
"""How often a follower that is paused looks whether it may go on."""

State = Literal["new", "running", "standby", "failed", "paused", "refused"]

STOPPED: Final = ("failed", "paused", "refused")
"""The states of those who cannot go on now."""

RESTING: Final = ("failed", "paused", "standby")
"""Those of followers that try again after a while."""


class Follower:
    """A projection, or a span of its slices, in this process. Only its checkpoint counts.

    ``checkpoint`` is what was read from the store or committed by us; ``tip`` lies beyond it by the
    steps that are being written. When one of them fails, everything here is forgotten (``lost``)
    and read from the store again.
    """

    def __init__(
        self,
        projection: Projection,
        codec: Codec,
        cache_rows: int,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.projection = projection
        self.types = frozenset(codec.of(t).name for t in projection.events)
        self.parking = Parking(projection, codec)
        self.cache = RowCache(cache_rows)
        self.checkpoint = checkpoint or Checkpoint(projection.name, "", slices=projection.slices)
        self.span = Span(projection.slices, self.checkpoint.slice, self.checkpoint.end)
        self.tip = self.checkpoint
        self.block = Tally()
        # Beyond the tip, up to here, there is nothing that the projection uses.
        self.seen: StoredEvent | None = None
        self.lost = True
        # How often the log had been renewed when it was last asked for our event.
        self.renewals = 0
        self.epoch = 0
        self.state: State = "new"
        self.error: Exception | None = None
        self.failed_position = 0
        self.attempts = 0
        self.retry_at = 0.0
        self.limit: int | None = None
        # A handler: how many events in one transaction.
        self.at_once = 1
        self.paused: Pause | None = None
        self.written_at = 0.0

    @property
    def name(self) -> str:
        """The projection's name."""
        return self.projection.name

    @property
    def position(self) -> int:
        """Where to read on."""
        return self.tip.position if self.seen is None else self.seen.position

    async def reload(self, log: Log, store: ViewStore) -> bool:
        """Take the checkpoint from the store, if it belongs to this log, and forget the rest.

        False: there is no such span any more, another worker has cut it.
        """
        self.forget()
        spans = (await store.checkpoints()).get(self.name)
        if not spans:
            raise unclaimed_rows(self.projection, await store.versions())
        for checkpoint in spans:
            if (checkpoint.slice, checkpoint.end) == (self.span.start, self.span.end):
                break
        else:
            return False
        renewals = renewals_of(log)
        await refuse_foreign(checkpoint, log)
        self.renewals = renewals
        # Read after the checkpoint: what changes them changes it, and then no step will match it.
        await self._look_at_desk(store, checkpoint)
        number = checkpoint.position >> BLOCK_SHIFT
        self.block = await store.block(self.name, checkpoint.slice, number)
        self.checkpoint = self.tip = checkpoint
        if not checkpoint.count:
            self.cache.begin()
        self.lost = False
        return True

    async def look_again(self, log: Log) -> None:
        """Raise ``ForeignCheckpoint`` unless the log, renewed, holds the event we stand at."""
        renewals = renewals_of(log)
        if self.seen is not None:
            at = structs.replace(self.tip, position=self.seen.position, event_id=self.seen.id)
            try:
                await refuse_foreign(at, log)
            except ForeignCheckpoint:
                self.seen = None  # nothing of it is in the rows: read on from where those are
        if self.seen is None:
            await refuse_foreign(self.tip, log)
        self.renewals = renewals

    async def _look_at_desk(self, store: ViewStore, checkpoint: Checkpoint) -> None:
        name = self.name
        self.parking.know((await store.desk.keys()).get(name, ()), self.span.start, self.span.end)
        found = await store.desk.parked(name) if self.parking.some else ()
        ahead = [
            one for one in found if one.state == "skipped" and one.position > checkpoint.position
        ]
        if isinstance(self.projection, Keyed):
            self.parking.decided = Aside(ahead) if ahead else None
        else:
            self.parking.skipped = frozenset(one.position for one in ahead)
            self.parking.standing = next((one for one in found if one.state == "queued"), None)
        self.paused = (await store.desk.pauses()).get(name)

    def forget(self) -> None:
        """Forget what is only true as long as nobody else moves the checkpoint."""
        self.cache.clear()
        self.seen = None
        self.lost = True
        self.epoch += 1

    # --- steps ------------------------------------------------------------------------------------

    def advance(self, upto: StoredEvent, folded: Folded | None) -> Change:
        """Return the step to an event, with what was folded on the way, and stand there."""
        before = self.tip
        number = before.position >> BLOCK_SHIFT
        blocks = dict(folded.blocks) if folded is not None else {}
        count = sum(tally.count for tally in blocks.values())
        digest = sum(tally.digest for tally in blocks.values())
        if number in blocks:
            blocks[number] = self.block.plus(blocks[number])
        writes: tuple[Writes, ...] = ()
        if folded is not None and (folded.put or folded.deleted or folded.passed):
            view, f = self.projection.views[0], folded
            writes = (Writes(view, f.put, f.deleted, f.positions, f.new, f.passed),)
        tallies = before.tallies
        if count:
            assert folded is not None
            start = before.slice
            tallies = add_packed(tallies, {n - start: t for n, t in folded.slices.items()})
        after = Checkpoint(
            before.projection,
            before.log,
            upto.position,
            upto.id,
            before.count + count,
            (before.digest + digest) % MODULUS,
            time_of(upto),
            before.slice,
            before.slices,
            tallies,
            before.revision,
        )
        last = after.position >> BLOCK_SHIFT
        if last in blocks:
            self.block = blocks[last]
        elif last != number:
            self.block = Tally()
        self.tip = after
        self.seen = None
        parked: tuple[Parked, ...] = ()
        if folded is not None:
            self.cache.keep(folded.rows, upto.position)
            if folded.held:
                parked = self.parking.park(folded.held)
        return Change(before, after, blocks, writes, parked)

    def committed(self, change: Change, now: float) -> None:
        """Note that a step has been committed."""
        self.checkpoint = change.after
        self.cache.trim()
        self.written_at = now
        self.parking.condemned.clear()
        if self.limit is not None:
            self.limit = self.limit * 2 if self.limit < 1000 else None
        if self.state == "failed" and change.after.position < self.failed_position:
            return
        self.state = "running"
        self.error = None
        self.attempts = 0

    # --- failures ---------------------------------------------------------------------------------

    def fail(self, position: int, error: Exception, now: float) -> None:
        """Stand still before an event; try again after a while that doubles up to 30 s."""
        if self.failed_position != position:
            self.attempts = 0
        self.state = "failed"
        self.error = error
        self.failed_position = position
        self.attempts += 1
        self.retry_at = now + min(0.1 * 2**self.attempts, LONGEST_RETRY) * random.uniform(0.8, 1.2)

    def stand_by(self, now: float) -> None:
        """Leave the work for a while to the worker who was faster."""
        self.forget()
        self.state = "standby"
        self.attempts = min(self.attempts + 1, 6)
        self.retry_at = now + random.uniform(0.5, 1.0) * 0.05 * 2**self.attempts

    def rest(self, pause: Pause, now: float) -> None:
        """Make no step until the projection is resumed; look for that now and then."""
        self.forget()
        self.state = "paused"
        self.error = ProjectionPaused(
            "The projection is paused; `diptych projections resume` lets it go on",
            projection=self.projection.title,
            by=pause.actor,
            since=pause.since.isoformat(timespec="seconds"),
            why=pause.why,
        )
        self.retry_at = now + PAUSE_SECONDS * random.uniform(0.5, 1.0)

    def refuse(self, error: ForeignCheckpoint) -> None:
        """Do not run at all: the checkpoint is not of this log."""
        self.forget()
        self.state = "refused"
        self.error = error


ANEW: Final = (
    "`diptych projections rewind` has it begin anew with this log: a fold's rows are emptied, "
    "a handler's stay, and --to POSITION spares it what it has handled"
)


def refuse_damaged(checkpoint: Checkpoint) -> None:
    """Raise ``ForeignCheckpoint`` where a checkpoint is not what was written."""
    if checkpoint.damaged:
        name, _, _ = checkpoint.projection.partition("@")  # without its version
        raise ForeignCheckpoint(
            "The projection's checkpoint does not hold count, digest and what each of its slices "
            f"has applied as they are written: it was changed by hand; {ANEW}",
            projection=name,
            slices=checkpoint.slices,
            tallies=len(checkpoint.tallies),
        )


async def refuse_foreign_spans(
    name: str, spans: Iterable[Checkpoint], log: Log, *, lost: bool = False
) -> None:
    """Raise ``ForeignCheckpoint`` unless a projection has checkpoints, all of them of this log.

    ``lost``: where somebody has deleted the event that one names, that is not what is asked.
    """
    some = False
    for span in spans:
        some = True
        await refuse_foreign(span, log, lost=lost)
    if not some:
        raise ForeignCheckpoint("The projection has no checkpoint", projection=name)


async def refuse_foreign(checkpoint: Checkpoint, log: Log, *, lost: bool = False) -> None:
    """Raise ``ForeignCheckpoint`` unless a checkpoint lies in this log, at the event it names."""
    remedy = f"connect the log it belongs to; or, {ANEW}"
    name, _, _ = checkpoint.projection.partition("@")  # without its version
    if checkpoint.log != log.identity:
        raise ForeignCheckpoint(
            f"The projection's checkpoint belongs to another log; {remedy}",
            projection=name,
            checkpoint_of=checkpoint.log,
            this_log=log.identity,
        )
    refuse_damaged(checkpoint)
    if checkpoint.position == 0:
        return
    page = await log.read(after=checkpoint.position - 1, until=checkpoint.position, limit=1)
    if not page.events and (head := await log.head()) >= checkpoint.position:
        if lost:
            return
        raise ForeignCheckpoint(
            "The log has no event at the position of the projection's checkpoint, though its head "
            "lies behind it: somebody has deleted it. Restore the log from a backup: the rows may "
            f"be the last copy of what it has lost; or, {ANEW}",
            projection=name,
            position=checkpoint.position,
            head=head,
        )
    if not page.events:
        raise ForeignCheckpoint(
            "The projection's checkpoint lies beyond the head of the log, which has lost events "
            f"(restored from a backup, or failed over); {remedy}",
            projection=name,
            position=checkpoint.position,
            head=await log.head(),
        )
    if page.events[0].id != checkpoint.event_id:
        raise ForeignCheckpoint(
            "The log holds another event at the position of the projection's checkpoint: it was "
            f"restored from a backup, or failed over, and has gone on differently; {remedy}",
            projection=name,
            position=checkpoint.position,
            checkpoint_event=checkpoint.event_id,
            log_event=page.events[0].id,
        )
