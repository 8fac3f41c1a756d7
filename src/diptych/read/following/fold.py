"""Folding a page of events for one projection: the inner loop of the read side.

It is written as a generator that asks for rows and offers pauses, so that the engine (async, on
the event loop) and inline projections (in the append's transaction) share it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from itertools import compress
from time import perf_counter
from typing import Any, Final, TypeAlias

from msgspec import Struct

from diptych.codec import metadata_of
from diptych.errors import DamagedRow, raised
from diptych.log import StoredEvent
from diptych.messages import Recorded
from diptych.read.following.unseen import Unseen
from diptych.read.parking.parking import Held, Parking, StopBefore, is_passing
from diptych.read.projections import Keyed
from diptych.read.proving.proof import KeyHashes, Tally, tally_blocks, tally_slices
from diptych.read.rowstore import Loaded

PAUSE_SECONDS: Final = 0.002
"""How long folding holds the event loop before it lets others run."""

LONG_SECONDS: Final = 0.05
CHUNK: Final = 128

Used: TypeAlias = tuple[StoredEvent, Any, int]
"""An event, its decoded form (or the error of decoding it), and its part of its effects' hashes."""

Folding: TypeAlias = Generator["Sequence[Any] | None", "dict[Any, Any]", "Folded"]
"""Yields keys whose rows are to be sent in, or None where others may run (send anything)."""


class RowCache:
    """The rows (or their known absence) last used, at most about ``size`` of them.

    Two generations: what the older one holds and nobody asks for is dropped when the younger is
    full. It costs less than an exact order of use. What is not yet in the store is never dropped.
    """

    def __init__(self, size: int) -> None:
        self._half = max(size // 2, 1)
        self._young: dict[Any, Any] = {}
        self._old: dict[Any, Any] = {}
        self.ahead: dict[Any, int] | None = None
        """How far rows go that stand beyond the checkpoint; None where there can be none."""
        self._unseen: Unseen | None = None
        self._asked = False

    def begin(self) -> None:
        """Note that nothing has been applied: there are no rows but those folded from now on."""
        self._unseen, self._asked = Unseen(), False

    def possible(self, keys: list[Any]) -> list[Any]:
        """Return those of the keys that may have a row in the store."""
        if self._unseen is None:
            return keys
        found = self._unseen.note(keys)
        # Whether rows may stand beyond the checkpoint is first known when some were asked for.
        asked, self._asked = self._asked, True
        return found if asked else keys

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

    def note(self, loaded: Loaded, first: int) -> None:
        """Note how far loaded rows go beyond what comes before an event."""
        self._unseen = None
        self.ahead = self.ahead or {}
        self.ahead.update((key, p) for key, p in loaded.positions.items() if p >= first)

    def keep(self, rows: dict[Any, Any], upto: int = 0) -> None:
        """Keep rows that are on their way into the store, folded up to a position."""
        if self.ahead:
            self.ahead = {key: p for key, p in self.ahead.items() if p > upto}
        self._young.update(rows)

    def trim(self) -> None:
        """Drop what was not used lately; to be called each time when a transaction has ended.

        What is dropped was folded before the one before it had ended: so it is in the store, as all
        that is folded is part of the next one at the latest.
        """
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old = {}, {}
        self.ahead = self._unseen = None


class Folded(Struct):
    """What folding some events comes to.

    ``rows`` are all rows touched (None: absent now); ``put`` and ``deleted`` what must be written.
    The first ``new`` of ``put`` were absent before.
    ``passed`` are rows that later ones replaced.
    ``held`` are effects that were not applied. ``failed`` is the position of an event at which
    folding must stop and be tried again; the rest comes before it.
    """

    rows: dict[Any, Any]
    put: list[Any]
    deleted: list[Any]
    blocks: dict[int, Tally]
    slices: dict[int, Tally]
    events: int
    held: Sequence[Held] = ()
    positions: dict[Any, int] = {}
    new: int = 0
    passed: list[Any] = []
    failed: int = 0
    error: Exception | None = None


class Span:
    """Some neighbouring slices of a projection's keys, and the hashes of keys."""

    def __init__(self, slices: int, start: int = 0, end: int | None = None) -> None:
        self.hashes = KeyHashes(slices)
        self.start = start
        self.end = slices if end is None else end
        self.whole = (self.start, self.end) == (0, slices)


def fold_used(
    one: Keyed, cache: RowCache, span: Span, used: Sequence[Used], parking: Parking
) -> Folding:
    """Fold the events that a projection uses.

    Keys of slices outside the span are passed over. From an effect that fails on, those of its key
    are held. At what will pass by itself, folding stops before that event.
    """
    failed, error = 0, None
    while True:
        try:
            folded = yield from _fold(one, cache, span, used, parking)
        except StopBefore as failure:
            # Folds are pure: what came before the failure is simply folded again without it.
            failed, error = used[failure.index][0].position, failure.error
            used = used[: failure.index]
            continue
        folded.failed, folded.error = failed, error
        return folded


def _fold(
    one: Keyed, cache: RowCache, span: Span, used: Sequence[Used], parking: Parking
) -> Folding:
    found = yield from _effects(one, span, used, parking)
    if not span.whole:
        start, end = span.start, span.end
        found.keep([start <= number < end for _, number in found.hashed])
    if (decided := parking.decided) is not None:
        effects = zip(found.which, found.hashed, strict=True)
        found.keep([not decided.has(used[i][0].position, *hashed) for i, hashed in effects])
    if parking.numbers or parking.condemned or found.errors:
        _hold(found, used, parking)
    known, missing = cache.find(dict.fromkeys(found.keys))
    if missing:
        known |= dict.fromkeys(missing)
        asked = cache.possible(missing)
        loaded = (yield asked) if asked else {}
        known |= loaded
        if isinstance(loaded, Loaded):
            cache.note(loaded, used[0][0].position)
        _hold_damaged(known, used, found, parking)
    rows = dict(known)
    passed = found.pass_over(cache.ahead, used) if cache.ahead else None
    # Whether a row can be stored is not to depend on which events share a step with its own.
    made: list[Any] | None = [] if len(found.keys) > len(rows) else None
    yield from _rows(one, used, found, rows, parking, made)
    replaced: list[Any] = []
    if made:
        last = set(map(id, rows.values()))
        replaced = [row for row in made if row is not None and id(row) not in last]
    positions = None if cache.ahead is None else found.positions(used)
    if passed is not None:
        found.join(passed)
    which, hashed = found.which, found.hashed
    hashes = [used[i][2] * number for i, (number, _) in zip(which, hashed, strict=True)]
    blocks = tally_blocks([used[i][0].position for i in which], hashes)
    slices = tally_slices([number for _, number in hashed], hashes)
    put = [row for key, row in rows.items() if row is not None and known[key] is None]
    new = len(put)
    put += [
        row for key, row in rows.items() if row is not None and row is not known[key] is not None
    ]
    deleted = [key for key, row in rows.items() if row is None and known[key] is not None]
    if positions is not None:
        # Another engine, with other pages, may have written what a key was meanwhile.
        new = 0
        put = [row for key, row in rows.items() if row is not None and key in positions]
        deleted = [key for key, row in rows.items() if row is None and key in positions]
    return Folded(
        *(rows, put, deleted, blocks, slices, len(used), found.held, positions or {}),
        *(new, replaced),
    )


class _Found(Struct):
    """The effects of events, column by column, and what of them was held."""

    keys: list[Any]
    which: Sequence[int]
    hashed: list[tuple[int, int]]
    errors: dict[int, Exception]
    held: list[Held]

    def keep(self, wanted: Iterable[bool]) -> None:
        """Keep these effects only."""
        chosen = list(wanted)
        self.keys = list(compress(self.keys, chosen))
        self.which = list(compress(self.which, chosen))
        self.hashed = list(compress(self.hashed, chosen))

    def pass_over(self, ahead: Mapping[Any, int], used: Sequence[Used]) -> _Found:
        """Take out, and return, the effects that the rows have already."""
        new = [
            used[index][0].position > ahead.get(key, 0)
            for key, index in zip(self.keys, self.which, strict=True)
        ]
        passed = _Found(self.keys, self.which, self.hashed, {}, [])
        passed.keep(not wanted for wanted in new)
        self.keep(new)
        return passed

    def join(self, passed: _Found) -> None:
        """Put effects back in that were taken out, for what is counted of them."""
        both = sorted(
            zip([*self.which, *passed.which], [*self.hashed, *passed.hashed], strict=True)
        )
        self.keys = []
        self.which, self.hashed = [index for index, _ in both], [pair for _, pair in both]

    def positions(self, used: Sequence[Used]) -> dict[Any, int]:
        """Return the last event of each key."""
        return {
            key: used[index][0].position for key, index in zip(self.keys, self.which, strict=True)
        }

    def hold(self, place: int, used: Sequence[Used], error: Exception | None) -> None:
        """Note that an effect is not applied."""
        stored = used[self.which[place]][0]
        self.held.append(Held(stored, self.keys[place], *self.hashed[place], error))


def _effects(
    one: Keyed, span: Span, used: Sequence[Used], parking: Parking
) -> Generator[None, Any, _Found]:
    """Return the key of each effect, its hash and slice, and the index of its event."""
    span.hashes.trim()
    # (An event that is an exception is found by its type, in one go.)
    types: set[type[Any]] = {type(event) for _, event, _ in used}
    if not any(issubclass(cls, Exception) for cls in types):
        try:
            keys, which = yield from _keys(one, used)
            return _Found(keys, which, list(map(span.hashes.__getitem__, keys)), {}, [])
        except Exception:  # one by one, then
            pass
    found = _Found([], [], [], {}, [])
    which = found.which = list[int]()
    for index, (stored, event, _) in enumerate(used):
        try:
            if isinstance(event, Exception):
                keys = [parking.key_of(stored, event)]
                found.errors[index] = event
            else:
                keys = list(one.keys_of(event))
            hashed = [span.hashes[key] for key in keys]
        except Exception as error:
            if is_passing(error):
                raise StopBefore(index, error) from error
            if parking.decided is not None and stored.position in parking.decided.without_key:
                continue
            parking.require_room(found.held, index, error)
            found.held.append(Held(stored, None, 0, span.start, error, span.end - span.start))
            continue
        found.keys += keys
        found.hashed += hashed
        which += [index] * len(keys)
        if not index % CHUNK:
            yield None
    return found


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
        if key is not None:
            listed += [key(event) for _, event, _ in part]
        else:
            for index, (_, event, _) in enumerate(part, start):
                for touched in keys_of(event):
                    listed.append(touched)
                    which.append(index)
        if perf_counter() - began > PAUSE_SECONDS:
            yield None
            began = perf_counter()
    return listed, which if key is None else range(len(used))


def _hold(found: _Found, used: Sequence[Used], parking: Parking) -> None:
    """Hold the effects of keys that are parked, or are to be."""
    numbers = set(parking.numbers)
    wanted: list[bool] = []
    for place, (index, (number, _)) in enumerate(zip(found.which, found.hashed, strict=True)):
        error = None
        if number not in numbers:
            doomed = parking.condemned.get((used[index][0].position, number))
            error = found.errors.get(index) or doomed
            if error is not None:
                parking.require_room(found.held, index, error)
                numbers.add(number)
        wanted.append(number not in numbers)
        if number in numbers:
            found.hold(place, used, error)
    if found.held:
        found.keep(wanted)


def _rows(
    one: Keyed,
    used: Sequence[Used],
    found: _Found,
    rows: dict[Any, Any],
    parking: Parking,
    made: list[Any] | None,
) -> Generator[None, Any, None]:
    """Fold; ``made`` gets all rows that come of it."""
    function, view, key_of = one.function, one.view, one.definition.key_of
    plain = one.plain
    began = perf_counter()
    start, size = 0, CHUNK
    while start < len(found.keys):
        index = start
        chunk = found.keys[start : start + size]
        events = [used[i] for i in found.which[start : start + size]]
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
                if made is not None:
                    made.append(row)
                index += 1
        except BaseException as failure:
            error = raised(failure)
            if is_passing(error):
                raise StopBefore(found.which[index], error) from failure
            parking.require_room(found.held, found.which[index], error)
            _hold_from(found, used, index, error)
        start = index
        took = perf_counter() - began
        if took > PAUSE_SECONDS:
            yield None
            began = perf_counter()
        if took > LONG_SECONDS:  # one waits for this loop, be it the transaction under way
            size = max(size // 8, 1)


def _hold_from(found: _Found, used: Sequence[Used], first: int, error: Exception) -> None:
    """Hold an effect that failed, and all later ones of its key."""
    key, wanted = found.hashed[first], [True] * len(found.keys)
    for place in range(first, len(found.keys)):
        if found.hashed[place] == key:
            found.hold(place, used, error if place == first else None)
            wanted[place] = False
    found.keep(wanted)


def _hold_damaged(
    known: dict[Any, Any], used: Sequence[Used], found: _Found, parking: Parking
) -> None:
    """Hold all effects of keys whose rows cannot be read."""
    damaged = {key: row for key, row in known.items() if isinstance(row, DamagedRow)}
    for key, error in damaged.items():
        del known[key]
        first = found.keys.index(key)
        parking.require_room(found.held, found.which[first], error)
        _hold_from(found, used, first, error)


def recorded(stored: StoredEvent, event: Any) -> Recorded:
    """Return a stored event, decoded already, as its users see it."""
    return Recorded(stored.position, stored.id, event, stored.tags, metadata_of(stored))
