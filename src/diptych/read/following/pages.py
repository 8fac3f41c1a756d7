"""One page of the log, decoded once for all the projections that read it, and folded for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence, Set
from typing import Any

from diptych.codec import Codec
from diptych.errors import DamagedRow
from diptych.log import Log, Page, StoredEvent
from diptych.read.following.fold import CHUNK, PAUSE_SECONDS, Folded, Used, fold_used
from diptych.read.following.follower import Follower
from diptych.read.port import View, ViewStore
from diptych.read.projections import Keyed
from diptych.read.proving.proof import hash_events
from diptych.read.rowstore import Loaded


async def next_page(log: Log, after: int, until: int | None, limit: int) -> Page:
    """Return the next events after a position; where somebody has deleted some, those behind."""
    while True:
        page = await log.read(after=after, until=until, limit=limit)
        if page.events or page.upto <= after:
            return page
        after = page.upto


async def decode_page(
    codec: Codec, events: Sequence[StoredEvent], members: Sequence[Follower]
) -> dict[Follower, list[Used]]:
    """Return for each follower the events that it uses; only those anyone uses are decoded."""
    wanted = frozenset[str]().union(*(f.types for f in members))
    decoders = {name: codec.events[name].decode for name in wanted}
    decoded: list[Used] = []
    began = time.perf_counter()
    for start in range(0, len(events), CHUNK):
        part = [stored for stored in events[start : start + CHUNK] if stored.type in wanted]
        found: list[Any]
        try:
            found = [decoders[stored.type](stored.data) for stored in part]
        except Exception:  # one by one, then
            found = [_decoded(codec, stored) for stored in part]
        decoded += zip(part, found, hash_events(part), strict=True)
        if time.perf_counter() - began > PAUSE_SECONDS:
            await asyncio.sleep(0)
            began = time.perf_counter()
    occurring = {stored.type for stored, _, _ in decoded}
    return {follower: _used_by(follower, decoded, occurring) for follower in members}


def _used_by(follower: Follower, decoded: list[Used], occurring: Set[str]) -> list[Used]:
    types, position = follower.types, follower.position
    if decoded and decoded[0][0].position <= position:  # most pages lie ahead of all their readers
        decoded = [one for one in decoded if one[0].position > position]
    if types.issuperset(occurring):
        return decoded
    return [one for one in decoded if one[0].type in types]


def _decoded(codec: Codec, stored: StoredEvent) -> Any:
    """Return an event, or the library's error for one that its type's decoder has refused."""
    try:
        return codec.events[stored.type].decode(stored.data)
    except Exception:
        return undecodable(codec, stored)


def undecodable(codec: Codec, stored: StoredEvent) -> Exception:
    """Return the library's error for an event that its type's decoder has refused."""
    try:
        codec.event(stored)
    except Exception as error:
        return error
    raise AssertionError("decoded at the second attempt")


async def load_apart(store: ViewStore, view: type[View], keys: Sequence[Any]) -> dict[Any, Any]:
    """Load rows; in place of one that is damaged stands the error of reading it."""
    try:
        return await store.load(view, keys)
    except DamagedRow as error:
        if len(keys) == 1:
            return {keys[0]: error}
    half = len(keys) // 2
    first = await load_apart(store, view, keys[:half])
    second = await load_apart(store, view, keys[half:])
    both = first | second
    if isinstance(first, Loaded) or isinstance(second, Loaded):
        return Loaded(both, getattr(first, "positions", {}) | getattr(second, "positions", {}))
    return both


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
                answer = await load_apart(store, one.view, asked)
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
