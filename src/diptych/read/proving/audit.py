"""What a projection should have applied: counts and digests, made anew from the log.

Sums do not depend on the order, so a page is taken apart by block and type, each event is decoded
once for all projections, as far as their keys need it, and hashed once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec import Struct

from diptych.codec import Codec
from diptych.log import StoredEvent
from diptych.read.parking.parking import Parking, part_of
from diptych.read.port import Checkpoint
from diptych.read.projections import Keyed, Projection
from diptych.read.proving.proof import (
    BLOCK_SHIFT,
    MASK,
    KeyHashes,
    Tally,
    hash_event,
    hash_events,
    unpack,
)

_position = attrgetter("position")

_ONE: Final = 1 << 320
"""Counts are kept above the sum of products in one number: to each effect one addition, and the
remainder, which is the digest, is taken at the end.
"""


class Effects(Struct):
    """Effects, column by column: their events, their keys, the slices of these, their hashes."""

    events: list[StoredEvent]
    keys: list[Any]
    slices: list[int]
    hashes: list[int]


class Audit:
    """Count and digest that a projection should have, by block and by slice, up to its spans.

    With ``known`` (a tally of each slice up to the position in ``after``) only what came later is
    counted.
    """

    def __init__(
        self,
        projection: Projection,
        codec: Codec,
        spans: Sequence[Checkpoint],
        *,
        after: Sequence[int] = (),
        known: Sequence[Tally] = (),
    ) -> None:
        self.projection = projection
        self.spans = spans
        self.reach = [span.position for span in spans for _ in range(span.slices)]
        self.after = list(after) or [0] * len(self.reach)
        self.stored = [tally for span in spans for tally in unpack(span.tallies)]
        self.unreadable: list[int] = []
        self.parked = 0
        self.skipped = 0
        self.unknown: Counter[str] = Counter()
        self._excused: set[tuple[int, int]] = set()
        self._parking = Parking(projection, codec)
        self.types = {codec.of(event).name: event for event in projection.events}
        self._codec = codec
        self._hashes = KeyHashes(len(self.reach))
        self._level = (max(self.after), min(self.reach))
        known = known or [Tally()] * len(self.reach)
        self._slices = [tally.digest + tally.count * _ONE for tally in known]
        self._blocks: dict[int, int] = {}

    @property
    def blocks(self) -> dict[int, Tally]:
        """The tallies of blocks."""
        return {number: _tally(total) for number, total in self._blocks.items()}

    @property
    def slices(self) -> list[Tally]:
        """The tallies of slices."""
        return [_tally(total) for total in self._slices]

    def keys_of(self, event: Any) -> Sequence[Any]:
        """Return the keys that an event touches."""
        return self.projection.keys_of(event) if isinstance(self.projection, Keyed) else (None,)

    def needs(self, type_: str) -> tuple[str, ...] | None:
        """Return the fields that keys of events of a type are made of; None: whole events."""
        if not isinstance(self.projection, Keyed):
            return ()
        return None if self.projection.key is None else self.projection.key_names

    def add(
        self, block: int, events: Sequence[StoredEvent], decoded: list[Any], marks: Sequence[int]
    ) -> None:
        """Count the effects of events of one type and block; ``marks`` are their hashes."""
        low, high = self._level
        if not (low < events[0].position and events[-1].position <= high):
            self._add_some(block, events, decoded, marks)
            return
        try:
            keys = self._simple(decoded)
        except Exception:
            keys = None
        if keys is None:
            self._add_some(block, events, decoded, marks)
            return
        self._hashes.trim()
        sums = [0] * len(self.reach)
        pairs = map(self._hashes.__getitem__, keys)
        for (number, place), mark in zip(pairs, marks, strict=True):
            sums[place] += mark * number + _ONE
        self._sum(block, sums)

    def note_unknown(self, stored: StoredEvent) -> None:
        """Count an event of a type that nobody knows."""
        if max(self.after) < stored.position <= max(self.reach):
            self.unknown[stored.type] += 1

    def _simple(self, decoded: list[Any]) -> list[Any] | None:
        """Return the one key of each event, where each has one."""
        if not isinstance(self.projection, Keyed):
            return [None] * len(decoded)
        if self.projection.key is None:
            return None
        return list(map(self.projection.key, decoded))

    def _add_some(
        self, block: int, events: Sequence[StoredEvent], decoded: list[Any], marks: Sequence[int]
    ) -> None:
        sums = [0] * len(self.reach)
        for stored, event, mark in zip(events, decoded, marks, strict=True):
            for key in self._keys(stored, event):
                number, place = self._hashes[key]
                if self.after[place] < stored.position <= self.reach[place]:
                    sums[place] += mark * number + _ONE
        self._sum(block, sums)

    def _keys(self, stored: StoredEvent, event: Any) -> Sequence[Any]:
        keys = self._keys_if_any(stored, event)
        if keys is None:
            self.unreadable.append(stored.position)
        return keys or ()

    def _keys_if_any(self, stored: StoredEvent, event: Any) -> Sequence[Any] | None:
        """Return the keys of an event, or of what there is of it; None where none can be had."""
        if not isinstance(self.projection, Keyed):
            return (None,)
        try:
            if isinstance(event, Exception):
                keys: Sequence[Any] = (self._parking.key_of(stored, event),)
            else:
                keys = self.keys_of(event)
            for key in keys:
                _ = self._hashes[key]
        except Exception:
            return None
        return keys

    def excuse(self, stored: StoredEvent, keyed: set[int], passed: set[int]) -> None:
        """Do not expect an event on keys of these hashes, nor on any of these slices."""
        found = self.effects([stored])
        for key, place, digest in zip(found.keys, found.slices, found.hashes, strict=True):
            number, _ = self._hashes[key]
            if number not in keyed and place not in passed:
                continue
            self._excused.add((stored.position, number))
            if self.after[place] < stored.position <= self.reach[place]:
                block = stored.position >> BLOCK_SHIFT
                self._blocks[block] = _less(self._blocks.get(block, 0), digest)
                self._slices[place] = _less(self._slices[place], digest)

    def _sum(self, block: int, sums: Sequence[int]) -> None:
        self._blocks[block] = self._blocks.get(block, 0) + sum(sums)
        slices = self._slices
        for place, total in enumerate(sums):
            if total:
                slices[place] += total

    # --- a closer look ----------------------------------------------------------------------------

    def effects(self, events: Iterable[StoredEvent]) -> Effects:
        """Return the effects of events, those beyond the spans too."""
        found = Effects([], [], [], [])
        for stored in events:
            if stored.type not in self.types:
                continue
            event: Any
            try:
                event = self._codec.events[stored.type].decode(stored.data)
            except Exception as error:
                event = error
            mark = hash_event(stored.position, stored.id)
            for key in self._keys_if_any(stored, event) or ():
                number, place = self._hashes[key]
                if (stored.position, number) in self._excused:
                    continue
                found.events.append(stored)
                found.keys.append(key)
                found.slices.append(place)
                found.hashes.append(mark * number & MASK)
        return found


def _tally(total: int) -> Tally:
    return Tally(total // _ONE, total & MASK)


def _less(total: int, digest: int) -> int:
    tally = _tally(total).minus(Tally(1, digest))
    return tally.digest + tally.count * _ONE


class Reader:
    """Takes pages of the log apart for several audits."""

    def __init__(self, codec: Codec, audits: Sequence[Audit]) -> None:
        self._audits = audits
        self._known = codec.events
        self._takers: dict[str, list[Audit]] = {}
        for audit in audits:
            for type_ in audit.types:
                self._takers.setdefault(type_, []).append(audit)
        self._decode = {
            type_: _decoder(codec, type_, takers) for type_, takers in self._takers.items()
        }

    def take(self, events: Sequence[StoredEvent]) -> Iterable[None]:
        """Count the effects of events in order; others may run where it yields."""
        start = 0
        while start < len(events):
            block = events[start].position >> BLOCK_SHIFT
            end = bisect_left(events, (block + 1) << BLOCK_SHIFT, start, key=_position)
            groups: defaultdict[str, list[StoredEvent]] = defaultdict(list)
            for stored in events[start:end]:
                groups[stored.type].append(stored)
            for type_, group in groups.items():
                self._count(block, type_, group)
                yield
            start = end

    def _count(self, block: int, type_: str, group: Sequence[StoredEvent]) -> None:
        takers = self._takers.get(type_)
        if takers is not None:
            marks = hash_events(group)
            decoded = _decoded(self._decode[type_], group)
            for audit in takers:
                audit.add(block, group, decoded, marks)
        elif type_ not in self._known:
            for audit in self._audits:
                for stored in group:
                    audit.note_unknown(stored)


def _decoder(codec: Codec, type_: str, audits: Sequence[Audit]) -> Callable[[Any], Any]:
    """Return a decoder of an event's JSON, of no more fields than the audits' keys are made of."""
    registered = codec.events[type_]
    needs = [audit.needs(type_) for audit in audits]
    if None in needs:
        return registered.decode
    names = {name for need in needs if need is not None for name in need}
    return msgspec.json.Decoder(part_of(codec, type_, names)).decode


def _decoded(decode: Callable[[Any], Any], group: Sequence[StoredEvent]) -> list[Any]:
    try:
        return [decode(stored.data) for stored in group]
    except Exception:
        found: list[Any] = []
        for stored in group:
            try:
                found.append(decode(stored.data))
            except Exception as error:
                found.append(error)
        return found
