"""Parking: an effect that fails is set aside with all later ones of its key; other keys go on.

An event of which no key can be had is set aside alone: it holds up nothing. When it can be read in
the end, the rows of its keys are folded anew from the log (`retrying`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from diptych.codec import Codec, time_of
from diptych.errors import ProjectionFailed, Unavailable, raised_at, said
from diptych.log import StoredEvent
from diptych.messages import type_hints
from diptych.read.parking.desk import NO_KEY, Parked, ParkedKey
from diptych.read.projections import Keyed, Projection
from diptych.read.proving.proof import hash_text, key_text

MOST_KEYS: Final = 1000
"""Keys (and events without one) that a span parks. With more it is the function that is at fault,
and the projection stands still, rather than filling the database."""

LONGEST_ERROR: Final = 2000

PASSING: Final = (Unavailable, ConnectionError, TimeoutError, MemoryError)


def is_passing(error: Exception) -> bool:
    """Whether an error is none of the event's, and will pass: it is tried again, and not parked."""
    return isinstance(error, PASSING)


class StopBefore(Exception):
    """Folding cannot go beyond the event of this index."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__()
        self.index = index
        self.error = error


class Held(Struct, frozen=True):
    """An effect that is not applied. Without ``error`` it waits; of no key: ``slices`` is not 0."""

    stored: StoredEvent
    key: Any
    number: int
    slice: int
    error: Exception | None
    slices: int = 0


class Parking:
    """What a span of a projection has parked, as its follower knows it.

    ``numbers`` are the hashes of parked keys. ``condemned`` are effects, by position and hash of
    the key, whose rows cannot be written. ``skipped`` are positions that a handler passes over,
    ``standing`` is the event that it stands before, as it fails on it. ``decided`` are the effects
    that a fold passes over when it gets there: they were skipped for good in the version that was
    live before.
    """

    def __init__(self, one: Projection, codec: Codec) -> None:
        self._one = one
        self._codec = codec
        self._readers: dict[str, msgspec.json.Decoder[Any]] = {}
        self.numbers: set[int] = set()
        self.without_key = 0
        self.condemned: dict[tuple[int, int], Exception] = {}
        self.skipped: frozenset[int] = frozenset()
        self.standing: Parked | None = None
        self.decided: Aside | None = None
        self.some = False

    def know(self, keys: Iterable[ParkedKey], start: int, end: int) -> None:
        """Take over what the store holds for these slices."""
        self.numbers.clear()
        self.without_key = 0
        self.some = False
        for key in keys:
            self.some = True
            if key.key == NO_KEY:
                self.without_key = key.events
            elif key.events and start <= key.slice < end:
                self.numbers.add(hash_text(key.key.encode()))

    def key_of(self, stored: StoredEvent, error: Exception) -> Any:
        """Return the key of an event that cannot be decoded as a whole; else raise its error."""
        if not isinstance(self._one, Keyed) or self._one.key is None:
            raise error
        reader = self._readers.get(stored.type)
        if reader is None:
            names = self._one.key_names
            part = part_of(self._codec, stored.type, names)
            reader = self._readers[stored.type] = msgspec.json.Decoder(part)
        try:
            return self._one.key(reader.decode(stored.data))
        except Exception:
            raise error from None

    def require_room(self, held: Sequence[Held], index: int, error: Exception) -> None:
        """Raise ``StopBefore`` when there are too many parked keys."""
        fresh = sum(one.error is not None for one in held)
        if len(self.numbers) + self.without_key + fresh >= MOST_KEYS:
            failure = ProjectionFailed(
                f"The projection cannot apply this event, and has parked {MOST_KEYS} keys already: "
                "its function is at fault, so it stands still and tries again from time to time. "
                "Correct the function and restart",
                projection=self._one.title,
                why=said(error),
                at=self._one.at,
            )
            failure.__cause__ = error
            raise StopBefore(index, failure)

    def park(self, held: Iterable[Held]) -> tuple[Parked, ...]:
        """Note what is held; return it as the store keeps it."""
        now = datetime.now(UTC)
        found: list[Parked] = []
        for one in held:
            found.append(parked_of(self._one.name, one, now))
            if not one.slices:
                self.numbers.add(one.number)
            elif one.error is not None:
                self.without_key += 1
        return tuple(found)

    def stand(self, stored: StoredEvent, error: Exception) -> Parked:
        """Return what a handler stands before as the store keeps it: since when, and why."""
        now, before = datetime.now(UTC), self.standing
        parked = parked_of(self._one.name, Held(stored, None, 0, 0, error), now)
        if before is None or before.place != parked.place:
            return parked
        return structs.replace(parked, since=before.since, attempts=before.attempts + 1)


class Aside:
    """Which effects are not in the rows, being parked or skipped."""

    def __init__(self, parked: Iterable[Parked]) -> None:
        self._keyed: set[tuple[int, int]] = set()
        self._passed: set[tuple[int, int]] = set()
        for one in parked:
            if one.key == NO_KEY:
                places = range(one.slice, one.slice + one.slices)
                self._passed.update((one.position, place) for place in places)
            else:
                self._keyed.add((one.position, hash_text(one.key.encode())))
        self.without_key = {position for position, _ in self._passed}

    def has(self, position: int, number: int, slice_: int) -> bool:
        """Whether an effect is one of them; ``number`` is the hash of its key."""
        return (position, number) in self._keyed or (position, slice_) in self._passed


def parked_of(projection: str, held: Held, now: datetime) -> Parked:
    """Return an effect that is held as the store keeps it."""
    stored, error = held.stored, held.error
    return Parked(
        projection,
        NO_KEY if held.slices else key_text(held.key),
        stored.position,
        held.slice,
        held.slices or 1,
        stored.id,
        stored.type,
        time_of(stored) or now,
        now,
        *told(error),
        int(error is not None),
    )


def told(error: Exception | None) -> tuple[str, str]:
    """Return the kind and the text of an error, as every database can hold them.

    The text ends with the place in the application's code, unless the error says it itself.
    """
    if error is None:
        return "", ""
    kind, _, text = said(error).partition(": ")
    at = raised_at(error)
    where = f" (at: {at})" if at and at not in text else ""
    text = (text[: LONGEST_ERROR - len(where)] + where).replace("\0", "\\0")
    return kind, text.encode(errors="backslashreplace").decode()


def part_of(codec: Codec, type_: str, names: Iterable[str]) -> type[Any]:
    """Return a type that reads no more of an event of a type than these fields."""
    event: Any = codec.events[type_].cls
    hints = type_hints(event)
    encoded = dict(zip(event.__struct_fields__, event.__struct_encode_fields__, strict=True))
    names = sorted(set(names))
    return msgspec.defstruct(
        event.__name__,
        [(name, hints[name]) for name in names],
        rename={name: encoded[name] for name in names},
        gc=False,
    )
