"""Running a handler over a page: its rows and its checkpoint in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from diptych.errors import CheckpointMoved, Unavailable
from diptych.log import StoredEvent
from diptych.read.following.fold import Folded, Used, recorded
from diptych.read.following.follower import Follower
from diptych.read.following.pages import event_before
from diptych.read.freshness import ReadMeasures
from diptych.read.port import ViewStore
from diptych.read.projections import Handler
from diptych.read.proving.proof import MASK, hash_key, tally_blocks, tally_slices

HANDLER_EVENTS: Final = 200
"""Events in one transaction of a handler, at most: it holds the writing thread."""


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

    Where it raises, everything before that event is kept, and ``fail`` is told.
    """
    progress = False
    skipped = follower.parking.skipped
    used = [one for one in used if one[0].position not in skipped] if skipped else used
    while True:
        part, used = used[:HANDLER_EVENTS], used[HANDLER_EVENTS:]
        upto = part[-1][0] if used else events[-1]
        failed = await _handle(follower, one, store, part, upto, measures)
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
        fail(follower, position, error)
        return progress


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
    position = 0
    try:
        async with store.session() as session:
            await session.move(change)
            session.own(one.views)
            for stored, event, _ in part:
                position = stored.position
                if isinstance(event, Exception):
                    raise event
                await one.call(event, session, recorded(stored, event))
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
    follower.committed(change, now)
    measures.applied(measures.noted(change, part), now - began)
    return None
