"""Folding a page of events for one projection: the inner loop of the read side.

It is written as a generator that asks for rows and offers pauses, so that the engine (async, on
the event loop) and inline projections (in the append's transaction) share it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from itertools import compress
from time import perf_counter
from typing import Any, Final, TypeAlias

from msgspec import Struct

from diptych.codec import metadata_of
from diptych.log import StoredEvent
from diptych.messages import Recorded
from diptych.read.projections import Keyed
from diptych.read.proof import MASK, KeyHashes, Tally, tally_blocks, tally_slices

PAUSE_SECONDS: Final = 0.002
"""How long folding holds the event loop before it lets others run."""

CHUNK: Final = 128

Used: TypeAlias = tuple[StoredEvent, Any, int]
"""An event, its decoded form (or the error of decoding it), and its part of its effects' hashes."""

Folding: TypeAlias = Generator["Sequence[Any] | None", "dict[Any, Any]", "Folded"]
"""Yields keys whose rows are to be sent in, or None where others may run (send anything)."""


class RowCache:
    """The rows (or their known absence) last used, at most about ``size`` of them.

    Two generations: what the older one holds and nobody asks for is dropped when the younger is
    full. It costs less than an exact order of use.
    """

    def __init__(self, size: int) -> None:
        self._half = max(size // 2, 1)
        self._young: dict[Any, Any] = {}
        self._old: dict[Any, Any] = {}

    def find(self, keys: Iterable[Any]) -> tuple[dict[Any, Any], list[Any]]:
        """Return the rows known (None: known to be absent), and the keys not known."""
        found: dict[Any, Any] = {}
        missing: list[Any] = []
        young, old = self._young, self._old
        for key in keys:
            if key in young:
                found[key] = young[key]
            elif key in old:
                found[key] = old[key]
            else:
                missing.append(key)
        return found, missing

    def keep(self, rows: dict[Any, Any]) -> None:
        """Keep rows that are now in the store."""
        self._young.update(rows)
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old = {}, {}


class Folded(Struct):
    """What folding some events comes to.

    ``rows`` are all rows touched (None: absent now); ``put`` and ``deleted`` what must be written.
    ``failed`` is the position of the event that could not be folded; the rest comes before it.
    """

    rows: dict[Any, Any]
    put: list[Any]
    deleted: list[Any]
    blocks: dict[int, Tally]
    slices: dict[int, Tally]
    events: int
    failed: int = 0
    error: Exception | None = None


class _Failed(Exception):
    def __init__(self, index: int, error: Exception) -> None:
        super().__init__()
        self.index = index
        self.error = error


class Span:
    """Some neighbouring slices of a projection's keys, and the hashes of keys."""

    def __init__(self, slices: int, start: int = 0, end: int | None = None) -> None:
        self.hashes = KeyHashes(slices)
        self.start = start
        self.end = slices if end is None else end
        self.whole = (self.start, self.end) == (0, slices)


def fold_used(one: Keyed, cache: RowCache, span: Span, used: Sequence[Used]) -> Folding:
    """Fold the events that a projection uses; stop before the first that cannot be folded.

    Keys of slices outside the span are passed over.
    """
    failed, error = 0, None
    while True:
        try:
            folded = yield from _fold(one, cache, span, used)
        except _Failed as failure:
            # Folds are pure: what came before the failure is simply folded again without it.
            failed, error = used[failure.index][0].position, failure.error
            used = used[: failure.index]
            continue
        folded.failed, folded.error = failed, error
        return folded


def _fold(one: Keyed, cache: RowCache, span: Span, used: Sequence[Used]) -> Folding:
    keys, which = yield from _keys(one, used)
    hashed = _hashed(span, keys, which)
    if not span.whole:
        start, end = span.start, span.end
        mine = [start <= number < end for _, number in hashed]
        keys, which = list(compress(keys, mine)), list(compress(which, mine))
        hashed = list(compress(hashed, mine))
    known, missing = cache.find(dict.fromkeys(keys))
    if missing:
        loaded = yield missing
        for key in missing:
            known[key] = loaded.get(key)
    rows = dict(known)
    yield from _rows(one, used, keys, which, rows)
    hashes = [(used[i][2] * number) & MASK for i, (number, _) in zip(which, hashed, strict=True)]
    blocks = tally_blocks([used[i][0].position for i in which], hashes)
    slices = tally_slices([number for _, number in hashed], hashes)
    put = [row for key, row in rows.items() if row is not None and row is not known[key]]
    deleted = [key for key, row in rows.items() if row is None and known[key] is not None]
    return Folded(rows, put, deleted, blocks, slices, len(used))


def _hashed(span: Span, keys: list[Any], which: Sequence[int]) -> list[tuple[int, int]]:
    hashes = span.hashes
    hashes.trim()
    try:
        return list(map(hashes.__getitem__, keys))
    except Exception as error:
        for index, key in zip(which, keys, strict=True):
            try:
                _ = hashes[key]
            except Exception as again:
                raise _Failed(index, again) from again
        raise _Failed(which[0], error) from error


def _keys(
    one: Keyed, used: Sequence[Used]
) -> Generator[None, Any, tuple[list[Any], Sequence[int]]]:
    """Return the key of each effect, and the index of its event."""
    key, keys_of = one.key, one.keys_of
    listed: list[Any] = []
    which: list[int] = []
    began = perf_counter()
    for start in range(0, len(used), CHUNK):
        part = used[start : start + CHUNK]
        try:
            if key is not None:
                listed += [key(event) for _, event, _ in part]
            else:
                for index, (_, event, _) in enumerate(part, start):
                    for touched in keys_of(event):
                        listed.append(touched)
                        which.append(index)
        except Exception as error:
            raise _failure(one, used, start, error) from error
        if perf_counter() - began > PAUSE_SECONDS:
            yield None
            began = perf_counter()
    return listed, which if key is None else range(len(used))


def _failure(one: Keyed, used: Sequence[Used], start: int, error: Exception) -> _Failed:
    """Return which event of a chunk has no key."""
    for index in range(start, len(used)):
        event = used[index][1]
        if isinstance(event, Exception):
            return _Failed(index, event)
        try:
            one.keys_of(event)
        except Exception as again:
            return _Failed(index, again)
    return _Failed(start, error)


def _rows(
    one: Keyed,
    used: Sequence[Used],
    keys: Sequence[Any],
    which: Sequence[int],
    rows: dict[Any, Any],
) -> Generator[None, Any, None]:
    function, view, key_of = one.function, one.view, one.definition.key_of
    plain = one.plain
    began = perf_counter()
    for start in range(0, len(keys), CHUNK):
        index = start
        chunk = keys[start : start + CHUNK]
        events = [used[i] for i in which[start : start + CHUNK]]
        try:
            for key, (stored, event, _) in zip(chunk, events, strict=True):
                if plain:
                    row = function(rows[key], event)
                else:
                    record = recorded(stored, event) if one.asks_record else None
                    row = one.fold(rows[key], event, key, record)
                if row is not None and (type(row) is not view or key_of(row) != key):
                    one.check_row(row, key)
                rows[key] = row
                index += 1
        except Exception as error:
            raise _Failed(which[index], error) from error
        if perf_counter() - began > PAUSE_SECONDS:
            yield None
            began = perf_counter()


def recorded(stored: StoredEvent, event: Any) -> Recorded:
    """Return a stored event, decoded already, as its users see it."""
    return Recorded(stored.position, stored.id, event, stored.tags, metadata_of(stored))
