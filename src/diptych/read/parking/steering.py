"""``running.steering``: pause, resume and rewind projections, wherever their workers are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct, structs

from diptych.codec import Codec, metadata_of, time_of
from diptych.errors import Invalid
from diptych.log import Log
from diptych.read.following.engine import Engine
from diptych.read.following.follower import refuse_foreign_spans
from diptych.read.parking.desk import Pause
from diptych.read.parking.excused import excuse
from diptych.read.port import BLOCK_SHIFT, Checkpoint, Tally, pack
from diptych.read.projections import Keyed, Projection
from diptych.read.proving.audit import Audit, Reader
from diptych.read.proving.proof import total_of

PAGE: Final = 2000


class Rewound(Struct, frozen=True):
    """Where a projection stood, and stands now: a fold at 0, whatever position was asked for."""

    projection: str
    before: int
    position: int


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
            pauses = await engine.store.desk.pauses()
            for one in engine.versions.tended:
                if one.name in pauses:
                    found[one.title] = pauses[one.name]
        return found

    async def pause(self, projection: str, *, actor: str, why: str) -> Pause:
        """Stop a projection. When this returns, no worker changes its rows any more.

        It is kept with who did it and why, until `resume`. Raises ``Invalid``, for an inline
        projection too: its rows are part of the append.
        """
        engine, one = await self._of(projection)
        for field, given in (("actor", actor), ("why", why)):
            if not given.strip():
                raise Invalid("A pause is kept with who did it and why", field=field, rule="a text")
        pause = Pause(one.name, datetime.now(UTC), actor, why)
        await engine.store.desk.pause(pause)
        return pause

    async def resume(self, projection: str) -> bool:
        """Let a projection go on, within a second; False where it was not paused."""
        engine, one = await self._of(projection)
        return await engine.store.desk.resume(one.name)

    async def rewind(self, projection: str, to: int | datetime = 0) -> Rewound:
        """Put a projection back to a position, or to the last event before a time.

        A fold begins at position 0 whatever ``to`` is: its rows go, and it is folded anew from the
        first event; queries answer meanwhile from what is there, as of where it stands. A handler:
        its rows stay, and the events behind ``to`` are handled again. Skipped events behind it are
        forgotten. Workers take it up within seconds. One that is refused, as it stands in another
        log or where this one has lost its events, goes on with this log, from position 0. Raises
        ``Invalid``; ``ForeignCheckpoint`` for such a handler that is to go back elsewhere.

        One that is refused, having no checkpoint while its tables hold rows, becomes the owner of
        these tables, a handler too: they are emptied, and other projections that kept rows in them
        are dropped.
        """
        engine, one = await self._of(projection)
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
        if isinstance(one, Keyed) or not spans:
            await engine.store.desk.rewind(start, Tally(), one.views)
            return Rewound(one.name, before, 0)
        if to != 0:  # else nothing is asked of the log
            await refuse_foreign_spans(one.name, spans, self._log)
        position = await self._position(to, before)
        if position == 0:
            await engine.store.desk.rewind(start, Tally(), ())
        else:
            checkpoint, block = await self._proved(engine, one, start, position)
            await engine.store.desk.rewind(checkpoint, block, ())
        return Rewound(one.name, before, position)

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
            page = await self._log.read(after=middle - 1, until=middle, limit=1)
            if metadata_of(page.events[0]).time <= time:
                low = middle
            else:
                high = middle - 1
        return low

    async def _proved(
        self, engine: Engine, one: Projection, start: Checkpoint, position: int
    ) -> tuple[Checkpoint, Tally]:
        """Return a handler's checkpoint at a position, with count and digest from the log."""
        page = await self._log.read(after=position - 1, until=position, limit=1)
        event = page.events[0]
        at = structs.replace(start, position=position, event_id=event.id, time=time_of(event))
        audit = Audit(one, self._codec, [at])
        reader = Reader(self._codec, [audit])
        after = 0
        while after < position:
            page = await self._log.read(after=after, until=position, limit=PAGE)
            after = page.upto
            for _ in reader.take(page.events):
                await asyncio.sleep(0)
        await excuse(self._log, audit, await engine.store.desk.parked(one.name))
        total = total_of(audit.slices)
        block = audit.blocks.get(position >> BLOCK_SHIFT, Tally())
        return (
            structs.replace(at, count=total.count, digest=total.digest, tallies=pack(audit.slices)),
            block,
        )

    async def _of(self, projection: str) -> tuple[Engine, Projection]:
        engine = next((e for e in self._engines if projection in e.projections), None)
        if engine is None:
            known = [name for e in self._engines for name in e.projections]
            raise Invalid(
                "There is no such projection",
                field="projection",
                rule="one of " + (", ".join(known) or "none"),
                got=projection,
            )
        one = engine.projections[projection]
        if one.inline:
            raise Invalid(
                "An inline projection is part of the append: it is neither paused nor put back",
                field="projection",
                rule="one that is not inline",
                got=projection,
            )
        return engine, await engine.versions.tend(projection)
