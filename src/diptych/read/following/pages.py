"""One page of the log, decoded once for all the projections that read it, and folded for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from diptych.codec import Codec
from diptych.log import StoredEvent
from diptych.read.following.fold import PAUSE_SECONDS, Folded, Used, fold_used
from diptych.read.following.follower import Follower
from diptych.read.port import ViewStore
from diptych.read.projections import Keyed
from diptych.read.proving.proof import hash_event


async def decode_page(
    codec: Codec, events: Sequence[StoredEvent], members: Sequence[Follower]
) -> dict[Follower, list[Used]]:
    """Return for each follower the events that it uses; only those anyone uses are decoded."""
    used: dict[Follower, list[Used]] = {f: [] for f in members}
    takers: dict[str, list[tuple[int, list[Used]]]] = {}
    for follower in members:
        for type_ in follower.types:
            takers.setdefault(type_, []).append((follower.position, used[follower]))
    known = {
        name: (codec.events[name].decode, [into.append for _, into in wanted])
        for name, wanted in takers.items()
    }
    # Most pages lie ahead of all their readers.
    ahead = max(f.position for f in members) < events[0].position
    began = time.perf_counter()
    for number, stored in enumerate(events):
        found = known.get(stored.type)
        if found is None:
            continue
        decode, appends = found
        event: Any
        try:
            event = decode(stored.data)
        except Exception:
            event = undecodable(codec, stored)
        one = (stored, event, hash_event(stored.position, stored.id))
        if ahead:
            for append in appends:
                append(one)
        else:
            for position, into in takers[stored.type]:
                if stored.position > position:
                    into.append(one)
        if not number & 63 and time.perf_counter() - began > PAUSE_SECONDS:
            await asyncio.sleep(0)
            began = time.perf_counter()
    return used


def undecodable(codec: Codec, stored: StoredEvent) -> Exception:
    """Return the library's error for an event that its type's decoder has refused."""
    try:
        codec.event(stored)
    except Exception as error:
        return error
    raise AssertionError("decoded at the second attempt")


async def fold_page(
    one: Keyed, follower: Follower, store: ViewStore, used: Sequence[Used]
) -> Folded:
    """Fold the events of a page that a projection uses, letting the loop breathe."""
    folding = fold_used(one, follower.cache, follower.span, used, follower.parking)
    try:
        asked = next(folding)
        while True:
            answer: dict[Any, Any] = {}
            if asked is None:
                await asyncio.sleep(0)
            else:
                answer = await store.load(one.view, asked)
            asked = folding.send(answer)
    except StopIteration as stop:
        folded: Folded = stop.value
        return folded


def event_before(events: Sequence[StoredEvent], position: int) -> StoredEvent | None:
    """Return the last event of a page before a position."""
    found = None
    for stored in events:
        if stored.position >= position:
            break
        found = stored
    return found
