"""The history of some keys, from the log: to fold their rows anew."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct, structs

from diptych.codec import Codec
from diptych.errors import raised
from diptych.log import EventQuery, Log, StoredEvent
from diptych.read.following.fold import recorded
from diptych.read.parking.desk import Parked
from diptych.read.parking.parking import Held, Parking, is_passing, parked_of
from diptych.read.projections import Keyed, Projection
from diptych.read.proving.proof import MODULUS, hash_event, hash_key, slice_of

PAGE: Final = 2000


class Effect(Struct, frozen=True):
    """An event on a key, and its part of the digest."""

    stored: StoredEvent
    event: Any
    key: Any
    number: int
    slice: int

    @property
    def digest(self) -> int:
        """The effect's hash."""
        return hash_event(self.stored.position, self.stored.id) * self.number % MODULUS


class History:
    """All effects, from the log, on the keys that some events touch."""

    def __init__(
        self, log: Log, codec: Codec, one: Projection, readable: Mapping[int, list[Effect]]
    ) -> None:
        assert isinstance(one, Keyed)
        self._log = log
        self._codec = codec
        self._one = one
        self._parking = Parking(one, codec)
        self._types = tuple(codec.of(event).name for event in one.events)
        self._upto = 0
        self._condemned: dict[tuple[int, int], Exception] = {}
        self.readable = readable
        self._of: dict[int, list[Effect]] = {
            effect.number: [] for effects in readable.values() for effect in effects
        }

    async def read(self, until: int) -> None:
        """Read on, up to a position."""
        query = EventQuery.of(self._types)
        while self._of and self._upto < until:
            page = await self._log.read(query, after=self._upto, until=until, limit=PAGE)
            for stored in page.events:
                for key, event in self._keys(stored):
                    number = hash_key(key)
                    if number in self._of:
                        slice_ = slice_of(key, self._one.slices)
                        effect = Effect(stored, event, key, number, slice_)
                        self._of[number].append(effect)
            self._upto = page.upto
            await asyncio.sleep(0)

    def _keys(self, stored: StoredEvent) -> Iterable[tuple[Any, Any]]:
        try:
            event: Any = self._codec.event(stored)
        except Exception as error:
            try:
                return [(self._parking.key_of(stored, error), error)]
            except Exception:
                return ()
        try:
            return [(key, event) for key in self._one.keys_of(event)]
        except Exception:
            return ()  # it is parked without a key still

    def of(self, number: int, until: int) -> list[Effect]:
        """Return the effects on a key, up to a position."""
        return [effect for effect in self._of[number] if effect.stored.position <= until]

    def fold(
        self, number: int, until: int, known: Sequence[Parked]
    ) -> tuple[Any, list[Effect], list[Parked]]:
        """Return a key's row, the effects in it, and those that are to be parked from now on."""
        skipped = {one.position for one in known if one.state == "skipped"}
        before = {one.position: one for one in known}
        now = datetime.now(UTC)
        row: Any = None
        done: list[Effect] = []
        rest: list[Parked] = []
        for effect in self.of(number, until):
            position = effect.stored.position
            if position in skipped:
                continue
            error = self._condemned.get((position, number))
            if not rest and error is None:
                try:
                    row = fold_one(self._one, row, effect)
                    done.append(effect)
                    continue
                except Exception as raised:
                    if is_passing(raised):
                        raise
                    error = raised
            if rest:
                error = None
            held = Held(effect.stored, effect.key, number, effect.slice, error)
            made = parked_of(self._one.name, held, now)
            if (was := before.get(position)) is not None:
                made = structs.replace(
                    made, since=was.since, attempts=was.attempts + int(error is not None)
                )
            rest.append(made)
        return row, done, rest

    def condemn(self, unwritten: Mapping[tuple[int, int], Exception]) -> bool:
        """Take it that it is the events that had no key whose rows cannot be written."""
        fresh = False
        for (_, number), error in unwritten.items():
            for position, effects in sorted(self.readable.items()):
                if any(effect.number == number for effect in effects):
                    fresh |= (position, number) not in self._condemned
                    self._condemned[position, number] = error
                    break
        return fresh


def fold_one(one: Keyed, row: Any, effect: Effect) -> Any:
    """Return a row with one more event folded in; what the fold raises comes through."""
    if isinstance(effect.event, Exception):
        raise effect.event
    record = recorded(effect.stored, effect.event) if one.asks_record else None
    try:
        row = one.fold(row, effect.event, effect.key, record)
    except BaseException as error:
        raise raised(error) from error
    if row is not None:
        one.check_row(row, effect.key)
    return row
