"""Running handlers over pages: rows and checkpoint in one transaction, beside everything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import structs

from diptych.errors import CheckpointMoved, Unavailable, raised
from diptych.log import StoredEvent
from diptych.read.following.fold import Folded, Used, recorded
from diptych.read.following.follower import Follower
from diptych.read.following.pages import event_before
from diptych.read.freshness import ReadMeasures
from diptych.read.port import Change, ViewStore
from diptych.read.projections import Handler
from diptych.read.proving.proof import MASK, hash_key, tally_blocks, tally_slices

HANDLER_EVENTS: Final = 200
"""Events in one transaction of a handler, at most."""

HANDLER_SECONDS: Final = 0.05
"""How long such a transaction should take: on SQLite nobody else writes meanwhile."""


class Handling:
    """The handlers of an engine that are at work: a slow one holds up nobody but itself.

    ``fail`` is told of an event that a handler raised for; ``done`` when one has finished a page.
    """

    def __init__(
        self,
        store: ViewStore,
        fail: Callable[[Follower, int, Exception], None],
        measures: ReadMeasures,
        done: Callable[[], None],
    ) -> None:
        self._store = store
        self._fail = fail
        self._measures = measures
        self._done = done
        self._tasks: dict[Follower, asyncio.Task[bool]] = {}

    def __contains__(self, follower: Follower) -> bool:
        return follower in self._tasks

    def start(
        self, follower: Follower, one: Handler, events: Sequence[StoredEvent], used: list[Used]
    ) -> None:
        """Have a handler work on a page."""
        page = handle_page(follower, one, self._store, events, used, self._fail, self._measures)
        task = asyncio.create_task(page, name=f"diptych-handler-{follower.name}")
        self._tasks[follower] = task
        task.add_done_callback(lambda _: self._done())

    def reap(self) -> None:
        """Forget who has finished; raise what one of them has raised (``Unavailable``)."""
        for follower, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[follower]
                if not task.cancelled():
                    task.result()

    async def wait(self, timeout: float) -> None:
        """Wait until one has finished, or for so many seconds."""
        if self._tasks:
            await asyncio.wait(
                self._tasks.values(), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        else:
            await asyncio.sleep(timeout)

    async def stop(self) -> None:
        """Break off: what a handler has not committed is rolled back, and done again next time."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def handle_page(
    follower: Follower,
    one: Handler,
    store: ViewStore,
    events: Sequence[StoredEvent],
    used: list[Used],
    fail: Callable[[Follower, int, Exception], None],
    measures: ReadMeasures,
) -> bool:
    """Run a handler over a page, some events in a transaction; True when it got on.

    Where it raises, everything before that event is kept, why it raised is noted for everybody to
    see, and ``fail`` is told.
    """
    progress = False
    skipped = follower.parking.skipped
    used = [one for one in used if one[0].position not in skipped] if skipped else used
    while True:
        many = follower.at_once
        part, used = used[:many], used[many:]
        upto = part[-1][0] if used else events[-1]
        began = time.monotonic()
        failed = await _handle(follower, one, store, part, upto, measures)
        took = max(time.monotonic() - began, 1e-6)
        right = int(max(len(part), 1) * HANDLER_SECONDS / took)
        follower.at_once = min(max(right, 1), 2 * many, HANDLER_EVENTS)
        if failed is None:
            progress = True
            if not used:
                return True
            continue
        position, error = failed
        if position == 0:
            follower.stand_by(time.monotonic())
            measures.lost(follower.name)
            return progress
        before = event_before(events, position)
        if before is not None and before.position > follower.position:
            kept = [u for u in part if u[0].position < position]
            progress |= await _handle(follower, one, store, kept, before, measures) is None
        stored = next(stored for stored, _, _ in part if stored.position == position)
        if follower.lost or not await _note(follower, store, stored, error):
            follower.stand_by(time.monotonic())
            measures.lost(follower.name)
            return progress
        fail(follower, position, error)
        return progress


async def _note(
    follower: Follower, store: ViewStore, stored: StoredEvent, error: Exception
) -> bool:
    """Note in the store what a handler stands before, and why; False: others moved it."""
    before, parked = follower.parking.standing, follower.parking.stand(stored, error)
    elsewhere = () if before is None or before.place == parked.place else (before.place,)
    span = follower.checkpoint
    after = structs.replace(span, revision=span.revision + 1)
    change = Change(span, after, {}, (), (parked,), elsewhere)
    try:
        noted = (await store.apply([change]))[0]
    except Unavailable:
        follower.forget()
        raise
    if noted:
        follower.checkpoint = follower.tip = after
        follower.parking.standing = parked
    return noted


async def _handle(
    follower: Follower,
    one: Handler,
    store: ViewStore,
    part: Sequence[Used],
    upto: StoredEvent,
    measures: ReadMeasures,
) -> tuple[int, Exception] | None:
    """Handle events in one transaction; return what failed, and where (0: the checkpoint)."""
    began = time.monotonic()
    number = hash_key(None)
    hashes = [(mark * number) & MASK for _, _, mark in part]
    blocks = tally_blocks([s.position for s, _, _ in part], hashes)
    slices = tally_slices([0] * len(part), hashes)
    tip, block, seen = follower.tip, follower.block, follower.seen
    change = follower.advance(upto, Folded({}, [], [], blocks, slices, len(part)))
    standing = follower.parking.standing
    if standing is not None and standing.position <= upto.position:
        change = structs.replace(change, unparked=(standing.place,))
    position = 0
    try:
        async with store.session() as session:
            await session.move(change)
            session.own(one.views)
            for stored, event, _ in part:
                position = stored.position
                if isinstance(event, Exception):
                    raise event
                try:
                    await one.call(event, session, recorded(stored, event))
                except BaseException as error:
                    raise raised(error, awaited=True) from error
            position = 0
    except Unavailable:
        follower.forget()
        raise
    except CheckpointMoved as error:
        if position:
            follower.forget()
            raise
        return 0, error
    except Exception as error:
        # The transaction was rolled back, and so are we.
        follower.tip, follower.block, follower.seen = tip, block, seen
        if not position:
            raise
        return position, error
    now = time.monotonic()
    if change.unparked:
        follower.parking.standing = None
    follower.committed(change, now)
    measures.applied(measures.noted(change, part), now - began)
    return None
