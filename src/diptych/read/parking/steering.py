"""``running.steering``: pause, resume and rewind projections, wherever their workers are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct, structs

from diptych.codec import Codec, metadata_of, time_of
from diptych.errors import ForeignCheckpoint, Invalid
from diptych.log import Log, StoredEvent, last_position
from diptych.read.following.engine import Engine
from diptych.read.following.follower import refuse_foreign_spans
from diptych.read.parking.desk import Pause
from diptych.read.parking.excused import excuse
from diptych.read.port import BLOCK_SHIFT, Change, Checkpoint, Tally, pack
from diptych.read.projections import Keyed, Projection
from diptych.read.proving.audit import Audit, Reader
from diptych.read.proving.proof import total_of
from diptych.read.versioning.objections import pause_of

PAGE: Final = 2000


class Rewound(Struct, frozen=True):
    """Where a projection stood, and stands now: a fold at 0, whatever position was asked for.

    It is the ``version`` that this program keeps, which need not be the live one.
    """

    projection: str
    before: int
    position: int
    version: str = ""


class Steering:
    """Pauses, resumes and rewinds the projections of an application."""

    def __init__(self, log: Log, codec: Codec, engines: Sequence[Engine]) -> None:
        self._log = log
        self._codec = codec
        self._engines = engines

    async def pauses(self) -> dict[str, Pause]:
        """Return the projections that are paused."""
        found: dict[str, Pause] = {}
        for engine in self._engines:
            await engine.versions.refresh()
            for name in engine.projections:
                if (pause := await pause_of(engine.versions, name)) is not None:
                    found[name] = pause
        return found

    async def pause(self, projection: str, *, actor: str, why: str) -> Pause:
        """Stop a projection. When this returns, no worker changes its rows any more.

        Not those of any version that is kept, whichever this program has; and nobody switches to
        another one, which may be built meanwhile and is held. It is kept with who did it and why,
        until `resume`. Where it is paused already that pause stands, and is what is returned.
        Raises ``Invalid``, for an inline projection too: its rows are part of the append.
        """
        engine = self._engine(projection)
        if engine.projections[projection].inline:
            raise Invalid(
                "An inline projection is part of the append: it is not paused",
                field="projection",
                rule="one that is not inline",
                got=projection,
            )
        for field, given in (("actor", actor), ("why", why)):
            if not given.strip():
                raise Invalid("A pause is kept with who did it and why", field=field, rule="a text")
        pause = Pause(projection, datetime.now(UTC), actor, why)
        for instance in await self._instances(engine, projection):
            kept = await engine.store.desk.pause(structs.replace(pause, projection=instance))
            pause = structs.replace(kept, projection=projection)
        return pause

    async def resume(self, projection: str) -> bool:
        """Let a projection go on, within a second; False where it was not paused."""
        engine = self._engine(projection)
        instances = await self._instances(engine, projection)
        # The live one last: while it is paused nobody switches.
        return any([await engine.store.desk.resume(one) for one in reversed(instances)])

    async def _instances(self, engine: Engine, projection: str) -> list[str]:
        """Return the instances of all versions that are kept, the live one first."""
        await engine.versions.refresh()
        kept = [row for row in engine.versions.of(projection) if row.state != "dropped"]
        kept.sort(key=lambda row: row.state != "live")
        return [row.instance for row in kept] or [(await self._of(projection))[1].name]

    async def rewind(self, projection: str, to: int | datetime = 0) -> Rewound:
        """Put a projection back to a position, or to the last event before a time.

        A fold begins at position 0 whatever ``to`` is: its rows go, and it is folded anew from the
        first event; queries answer meanwhile from what is there, as of where it stands. A handler:
        its rows stay, and the events behind ``to`` are handled again. Skipped events behind it are
        forgotten. Workers take it up within seconds. One that is refused, as it stands in another
        log or where this one has lost its events, goes on with this log: a handler behind ``to``,
        any position of the log, what lies before being taken as handled. Raises ``Invalid``.

        One that is refused, having no checkpoint while its tables hold rows, becomes the owner of
        these tables: other projections that kept rows in them are dropped.

        An inline one is folded anew at once, and by the next append, whichever is first; where its
        fold fails on an event nothing is done, and that is raised: ``ProjectionFailed``.
        """
        engine, one = await self._of(projection)
        if isinstance(one, Keyed) and one.inline:
            position, before = await self._rewind_inline(engine, one)
        else:
            position, before = await self._rewind(engine, one, to)
        rows = engine.versions.of(one.title)
        version = next((row.version for row in rows if row.instance == one.name), "")
        return Rewound(one.title, before, position, version)

    async def _rewind_inline(self, engine: Engine, one: Keyed) -> tuple[int, int]:
        """Put back, and have all folded anew before this returns."""
        from diptych.read.proving.rowcheck import require_foldable

        # An append parks nothing: with a fold that fails, every command would be refused.
        await require_foldable(self._log, self._codec, engine.store, one)
        position, before = await self._rewind(engine, one, 0)
        head = await last_position(self._log)
        await engine.doubt()
        while True:
            await engine.refresh_inline(force=True)
            followers = engine.spans.of(one.name)
            for follower in followers:
                if follower.state in ("failed", "refused") and follower.error is not None:
                    raise follower.error
            if all(follower.checkpoint.position >= head for follower in followers):
                return position, before

    async def _rewind(self, engine: Engine, one: Projection, to: int | datetime) -> tuple[int, int]:
        """Put back; return where it stands now, and stood before."""
        spans = (await engine.store.checkpoints()).get(one.name, [])
        before = min((span.position for span in spans), default=0)
        start = Checkpoint(
            one.name,
            self._log.identity,
            slices=one.slices,
            tallies=bytes(24 * one.slices),
        )
        if not spans:
            await engine.versions.own_tables(one)
        if isinstance(one, Keyed):
            await engine.store.desk.rewind(start, Tally(), one.views)
            return 0, before
        refused = await self._is_refused(one, spans)
        most = await self._log.head() if refused else before
        position = await self._position(to, most)
        if not refused:
            await self._require_known(one, spans)
        if position == 0:
            await engine.store.desk.rewind(start, Tally(), ())
        else:
            checkpoint, blocks = await self._proved(engine, one, start, position)
            number = position >> BLOCK_SHIFT
            await engine.store.desk.rewind(checkpoint, blocks.pop(number, Tally()), ())
            await self._put_blocks(engine, one, blocks, number)
        return position, before

    async def _is_refused(self, one: Projection, spans: Sequence[Checkpoint]) -> bool:
        """Whether a handler's checkpoint says nothing of this log."""
        try:
            await refuse_foreign_spans(one.name, spans, self._log)
        except ForeignCheckpoint:
            return True
        return False

    async def _require_known(self, one: Projection, spans: Sequence[Checkpoint]) -> None:
        """Raise ``Invalid`` where a handler has handled events that are not known any more.

        What is put back is counted anew, without them: known again, they would pass for not
        handled, and be handled a second time.
        """
        audit = Audit(one, self._codec, spans)
        await self._count([audit], max(audit.reach))
        if audit.unknown and sum(span.count for span in spans) > total_of(audit.slices).count:
            raise Invalid(
                "The handler has handled events that this program does not know; put back, it "
                "would forget that, and handle them again once they are known. If a class was "
                'renamed, give it the name they are stored under, by stored_as="…"',
                field="projection",
                rule="one whose program knows what it has handled",
                got=one.title,
                unknown=", ".join(f"{name}: {n}" for name, n in sorted(audit.unknown.items())),
            )

    async def _count(self, audits: Sequence[Audit], until: int) -> None:
        """Count what a log holds up to a position."""
        reader, after = Reader(self._codec, audits), 0
        while after < until:
            page = await self._log.read(after=after, until=until, limit=PAGE)
            if page.upto <= after:
                break
            after = page.upto
            for _ in reader.take(page.events):
                await asyncio.sleep(0)

    async def _position(self, to: int | datetime, most: int) -> int:
        if isinstance(to, datetime):
            return await self._before(to, most)
        if not 0 <= to <= most:
            raise Invalid(
                "A projection is put back to where it has been",
                field="to",
                rule=f"0 to {most}",
                got=to,
            )
        return to

    async def _before(self, time: datetime, most: int) -> int:
        """Return the position of the last event that is not later than a time, at most ``most``."""
        if time.tzinfo is None:
            raise Invalid("A time has an offset", field="to", rule="2026-01-31T12:00:00Z", got=time)
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            if metadata_of(await self._event(middle)).time <= time:
                low = middle
            else:
                high = middle - 1
        return low

    async def _event(self, position: int) -> StoredEvent:
        page = await self._log.read(after=position - 1, until=position, limit=1)
        if not page.events:
            raise Invalid(
                "The log has no event at that position: somebody has deleted it",
                field="to",
                rule="the position of an event",
                got=position,
            )
        return page.events[0]

    async def _proved(
        self, engine: Engine, one: Projection, start: Checkpoint, position: int
    ) -> tuple[Checkpoint, dict[int, Tally]]:
        """Return a handler's checkpoint at a position, its sums and blocks made from the log."""
        event = await self._event(position)
        at = structs.replace(start, position=position, event_id=event.id, time=time_of(event))
        audit = Audit(one, self._codec, [at])
        await self._count([audit], position)
        parked = await engine.store.desk.parked(one.name)
        # What it has stood before, refused since, is now spared.
        await excuse(self._log, audit, [row for row in parked if row.state == "skipped"])
        total = total_of(audit.slices)
        return (
            structs.replace(at, count=total.count, digest=total.digest, tallies=pack(audit.slices)),
            audit.blocks,
        )

    async def _put_blocks(
        self, engine: Engine, one: Projection, blocks: dict[int, Tally], end: int
    ) -> None:
        """Put right the tallies of the blocks before one: they may be those of another log."""
        nothing = Tally()
        while True:
            (span, *_), there = await engine.store.proof(one.name)
            wrong = {
                number: blocks.get(number, nothing)
                for number in blocks.keys() | there.keys()
                if number < end and there.get(number, nothing) != blocks.get(number, nothing)
            }
            after = structs.replace(span, revision=span.revision + 1)
            if not wrong or (await engine.store.apply([Change(span, after, wrong)]))[0]:
                return
            await asyncio.sleep(0.01)  # a worker has gone on already

    async def _of(self, projection: str) -> tuple[Engine, Projection]:
        engine = self._engine(projection)
        return engine, await engine.versions.tend(projection)

    def _engine(self, projection: str) -> Engine:
        engine = next((e for e in self._engines if projection in e.projections), None)
        if engine is None:
            known = [name for e in self._engines for name in e.projections]
            raise Invalid(
                "There is no such projection",
                field="projection",
                rule="one of " + (", ".join(known) or "none"),
                got=projection,
            )
        return engine
