"""Retry and skip: what was parked is applied in its order, or passed over for good.

Each step is made like an engine's, by compare-and-set of the checkpoint, whose revision it raises:
so it works beside engines that run, wherever they are. A key's queue is folded onto its row. For an
event that had no key, the rows of the keys that it turns out to touch are folded anew from the log,
as later events of theirs may have been applied.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct, structs

from diptych.codec import Codec
from diptych.errors import CheckpointMoved, ProjectionFailed, ProjectionPaused, Unavailable, said
from diptych.log import Log, StoredEvent
from diptych.read.following.follower import refuse_foreign_spans
from diptych.read.history import Effect, History, fold_one
from diptych.read.parking.desk import NO_KEY, Parked, Pause
from diptych.read.parking.failing import unwritable
from diptych.read.parking.parking import is_passing, told
from diptych.read.port import BLOCK_SHIFT, Change, Checkpoint, ViewStore, Writes
from diptych.read.projections import Keyed, Projection
from diptych.read.proving.proof import MODULUS, Tally, add_packed, hash_key, key_text, slice_of
from diptych.read.rowstore import Loaded

AT_ONCE: Final = 500
"""Events of a queue in one step."""

ATTEMPTS: Final = 200


class Retried(Struct, frozen=True):
    """What a retry of a key came to: events applied, events still parked, and why they are."""

    projection: str
    key: str
    applied: int
    left: int
    error: str = ""


class Retry:
    """Retries what one projection has parked."""

    def __init__(self, log: Log, codec: Codec, store: ViewStore, one: Projection) -> None:
        self._log = log
        self._codec = codec
        self._store = store
        self._one = one
        self._attempts = 0

    async def key(self, key: str) -> Retried:
        """Fold a key's queue in order, until it is empty or an event fails.

        Raises ``ProjectionPaused``, ``CheckpointMoved`` (try again), ``Unavailable``.
        """
        if not isinstance(self._one, Keyed):
            return await self._standing()
        if key == NO_KEY:
            return await self._without_key()
        applied, at_once = 0, AT_ONCE
        while True:
            spans = await self._spans()
            queue = await self._store.desk.parked(self._one.name, key, queued=True, limit=at_once)
            if not queue:
                return Retried(self._one.title, key, applied, 0)
            span = _span_of(spans, queue[0].slice)
            folded = await self._fold(queue)
            if folded.done:
                try:
                    moved = await self._apply(span, folded)
                except Unavailable:
                    raise
                except Exception as error:
                    if len(folded.done) > 1:  # find out which event it is
                        at_once = 1
                        continue
                    folded = _Folded([], {}, folded.done[0][0], error)
                else:
                    if not moved:
                        await self._wait()
                        continue
                    applied += len(folded.done)
                    self._attempts = 0
            if folded.failed is not None:
                assert folded.error is not None
                if not await self._note(folded.failed, folded.error):
                    continue
                left = await self._store.desk.parked(self._one.name, key, queued=True)
                return Retried(
                    self._one.title,
                    key,
                    applied,
                    len(left),
                    ": ".join(filter(None, told(folded.error))),
                )

    async def _standing(self) -> Retried:
        """Return what a handler stands before: its worker tries it again, nobody beside it."""
        queue = await self._store.desk.parked(self._one.name, queued=True)
        why = "; ".join(": ".join(filter(None, (one.kind, one.error))) for one in queue)
        return Retried(self._one.name, key_text(None), 0, len(queue), why)

    async def skip(self, effects: Sequence[Parked], actor: str, why: str) -> None:
        """Pass over effects for good; say who did so, and why."""
        now = datetime.now(UTC)
        skipped = tuple(
            structs.replace(one, state="skipped", actor=actor, why=why, decided=now)
            for one in effects
        )
        while True:
            span = _span_of(await self._spans(), effects[0].slice)
            if not await self._are_waiting(effects, span):
                raise CheckpointMoved(
                    "What was to be skipped has been applied, or skipped, by somebody else",
                    projection=self._one.title,
                    position=effects[0].position,
                )
            change = Change(span, _raised(span), {}, (), skipped)
            if (await self._store.apply([change]))[0]:
                return
            await self._wait()

    async def _are_waiting(self, effects: Sequence[Parked], span: Checkpoint) -> bool:
        queue = await self._store.desk.parked(self._one.name, effects[0].key, queued=True)
        if not isinstance(self._one, Keyed):  # which goes on trying it
            places = [one.place for one in queue]
            return span.position < effects[0].position and effects[0].place in places
        return all(one in queue for one in effects)

    # --- a key's queue ----------------------------------------------------------------------------

    async def _fold(self, queue: Sequence[Parked]) -> _Folded:
        """Fold a queue's events onto the key's row, up to the first that fails."""
        one = self._one
        assert isinstance(one, Keyed)
        found = _Folded([], {}, None, None)
        for parked in queue:
            try:
                effect = await self._effect(parked)
                if not found.rows:
                    stored = await self._store.load(one.view, [effect.key])
                    found.rows[effect.key] = stored.get(effect.key)
                    found.known = found.rows[effect.key]
                    if isinstance(stored, Loaded):
                        found.reached = stored.positions.get(effect.key, 0)
                if parked.position > found.reached:
                    if found.done and found.rows[effect.key] is not None:
                        found.passed.append(found.rows[effect.key])
                    found.rows[effect.key] = fold_one(one, found.rows[effect.key], effect)
            except Exception as error:
                if is_passing(error):
                    raise
                found.failed, found.error = parked, error
                break
            found.done.append((parked, effect))
        return found

    async def _effect(self, parked: Parked) -> Effect:
        stored = await self._stored(parked)
        event = self._codec.event(stored)
        for effect in self._effects(stored, event):
            if key_text(effect.key) == parked.key:
                return effect
        raise ProjectionFailed(
            "The event does not touch this key any more: the key function has changed since. "
            "Rewind the projection, and it is built anew",
            projection=self._one.title,
            key=parked.key,
            position=parked.position,
        )

    async def _stored(self, parked: Parked) -> StoredEvent:
        position = parked.position
        page = await self._log.read(after=position - 1, until=position, limit=1)
        if not page.events or page.events[0].id != parked.event_id:
            raise ProjectionFailed(
                "The log holds another event at this position than the one that was parked",
                projection=self._one.title,
                position=position,
            )
        return page.events[0]

    def _effects(self, stored: StoredEvent, event: Any) -> list[Effect]:
        one = self._one
        assert isinstance(one, Keyed)
        return [
            Effect(stored, event, key, hash_key(key), slice_of(key, one.slices))
            for key in one.keys_of(event)
        ]

    async def _apply(self, span: Checkpoint, folded: _Folded) -> bool:
        one = self._one
        assert isinstance(one, Keyed)
        ((key, row),) = folded.rows.items()
        writes: tuple[Writes, ...] = ()
        positions = {key: max(folded.reached, folded.done[-1][0].position)} if folded.done else {}
        if row is not None:
            writes = (Writes(one.view, [row], [], positions, passed=folded.passed),)
        elif folded.known is not None or folded.passed:
            writes = (Writes(one.view, [], [key], positions, passed=folded.passed),)
        change = await self._change(
            span,
            [(1, effect) for _, effect in folded.done],
            writes,
            unparked=tuple(parked.place for parked, _ in folded.done),
        )
        return (await self._store.apply([change]))[0]

    async def _note(self, parked: Parked, error: Exception) -> bool:
        """Note a further attempt that failed; False: somebody else has changed things."""
        span = _span_of(await self._spans(), parked.slice)
        if parked not in await self._store.desk.parked(self._one.name, parked.key, queued=True):
            return False
        change = Change(span, _raised(span), {}, (), (_again(parked, error),))
        if (await self._store.apply([change]))[0]:
            return True
        await self._wait()
        return False

    # --- events without a key ---------------------------------------------------------------------

    async def _without_key(self) -> Retried:
        name = self._one.name
        readable: dict[int, list[Effect]] = {}
        errors: dict[int, Exception] = {}
        rows = await self._store.desk.parked(name, NO_KEY, queued=True)
        for row in rows:
            if row.position not in readable and row.position not in errors:
                try:
                    stored = await self._stored(row)
                    readable[row.position] = self._effects(stored, self._codec.event(stored))
                except Exception as error:
                    if is_passing(error):
                        raise
                    errors[row.position] = error
        history = History(self._log, self._codec, self._one, readable)
        while await self._settle(history):
            pass
        noted: set[int] = set()
        for row in await self._store.desk.parked(name, NO_KEY, queued=True):
            if row.position in errors and row.position not in noted:
                noted.add(row.position)
                await self._note(row, errors[row.position])
        why = "; ".join(
            dict.fromkeys(": ".join(filter(None, told(error))) for error in errors.values())
        )
        return Retried(self._one.title, NO_KEY, len(readable), len(errors), why)

    async def _settle(self, history: History) -> bool:
        """Apply events that had no key, in one span that has passed them over; False: in none."""
        one = self._one
        assert isinstance(one, Keyed)
        spans = await self._spans()
        everyone = await self._store.desk.parked(one.name)
        rows = [
            row
            for row in everyone
            if row.key == NO_KEY and row.state == "queued" and row.position in history.readable
        ]
        if not rows:
            return False
        span = _span_of(spans, rows[0].slice)
        await history.read(span.position)
        mine = [row for row in rows if row.slice < span.end and row.slice + row.slices > span.slice]
        passed: set[tuple[int, int]] = {
            (row.position, place)
            for row in everyone
            if row.key == NO_KEY
            for place in range(max(row.slice, span.slice), min(row.slice + row.slices, span.end))
        }
        keys = {
            effect.number: effect
            for row in mine
            for effect in history.readable[row.position]
            if (row.position, effect.slice) in passed
        }
        changes: list[tuple[int, Effect]] = []
        put: list[Any] = []
        deleted: list[Any] = []
        parked: list[Parked] = []
        unparked: list[tuple[str, int, int]] = []
        for number, touched in keys.items():
            known = [row for row in everyone if row.key == key_text(touched.key)]
            row, done, rest = history.fold(number, span.position, known)
            waiting = {other.position for other in known}
            before = {
                effect.stored.position
                for effect in history.of(number, span.position)
                if effect.stored.position not in waiting
                and (effect.stored.position, effect.slice) not in passed
            }
            after = {effect.stored.position for effect in done}
            for effect in history.of(number, span.position):
                position = effect.stored.position
                if (position in after) != (position in before):
                    changes.append((1 if position in after else -1, effect))
            parked += rest
            places = {other.place for other in rest}
            unparked += [
                other.place
                for other in known
                if other.state == "queued" and other.place not in places
            ]
            if row is None:
                deleted.append(touched.key)
            else:
                put.append(row)
        for row in mine:
            left = _without(row, span.slice, span.end)
            parked += left
            if row.place not in {other.place for other in left}:
                unparked.append(row.place)
        writes = (Writes(one.view, put, deleted),) if put or deleted else ()
        change = await self._change(span, changes, writes, tuple(parked), tuple(unparked))
        try:
            if not (await self._store.apply([change]))[0]:
                await self._wait()
        except Unavailable:
            raise
        except Exception as error:
            condemned = await unwritable(self._store, change)
            if not history.condemn(condemned):
                raise ProjectionFailed(
                    "What was parked cannot be written",
                    projection=one.title,
                    why=said(error),
                ) from error
        return True

    # --- steps ------------------------------------------------------------------------------------

    async def _spans(self) -> list[Checkpoint]:
        """Return the checkpoints; raise ``ProjectionPaused``, ``ForeignCheckpoint``."""
        spans = (await self._store.checkpoints()).get(self._one.name, [])
        await refuse_foreign_spans(self._one.name, spans, self._log)
        pause: Pause | None = (await self._store.desk.pauses()).get(self._one.name)
        if pause is not None:
            raise ProjectionPaused(
                "The projection is paused; resume it first",
                projection=self._one.title,
                by=pause.actor,
                why=pause.why,
            )
        return spans

    async def _change(
        self,
        span: Checkpoint,
        effects: Sequence[tuple[int, Effect]],
        writes: tuple[Writes, ...],
        parked: tuple[Parked, ...] = (),
        unparked: tuple[tuple[str, int, int], ...] = (),
    ) -> Change:
        """Return a step that stays where it is, and applies effects (sign -1: takes them away)."""
        blocks: dict[int, Tally] = {}
        slices: dict[int, Tally] = {}
        for sign, effect in effects:
            tally = Tally(sign, sign * effect.digest % MODULUS)
            for sums, place in (
                (blocks, effect.stored.position >> BLOCK_SHIFT),
                (slices, effect.slice - span.slice),
            ):
                sums[place] = sums.get(place, Tally()).plus(tally)
        total = Tally(span.count, span.digest)
        for tally in slices.values():
            total = total.plus(tally)
        after = structs.replace(
            _raised(span),
            count=total.count,
            digest=total.digest,
            tallies=add_packed(span.tallies, slices),
        )
        new = {
            number: (await self._store.block(self._one.name, span.slice, number)).plus(tally)
            for number, tally in blocks.items()
        }
        return Change(span, after, new, writes, parked, unparked)

    async def _wait(self) -> None:
        """Let others go first; give up after many times."""
        self._attempts += 1
        if self._attempts > ATTEMPTS:
            raise CheckpointMoved(
                "Workers have moved the checkpoint all the time; try again",
                projection=self._one.title,
            )
        await asyncio.sleep(random.uniform(0, 0.01))


class _Folded(Struct):
    """What folding a queue came to: a row, the effects in it, and the one that failed."""

    done: list[tuple[Parked, Effect]]
    rows: dict[Any, Any]
    failed: Parked | None
    error: Exception | None
    known: Any = None
    reached: int = 0
    passed: list[Any] = []


def _again(parked: Parked, error: Exception) -> Parked:
    kind, text = told(error)
    return structs.replace(parked, kind=kind, error=text, attempts=parked.attempts + 1)


def _without(row: Parked, start: int, end: int) -> list[Parked]:
    """Return what is left of an event without a key, where some slices have applied it."""
    parts = [(row.slice, min(start, row.slice + row.slices)), (end, row.slice + row.slices)]
    return [
        structs.replace(row, slice=first, slices=last - first)
        for first, last in parts
        if first < last
    ]


def _raised(span: Checkpoint) -> Checkpoint:
    return structs.replace(span, revision=span.revision + 1)


def _span_of(spans: Sequence[Checkpoint], slice_: int) -> Checkpoint:
    return next(span for span in spans if span.slice <= slice_ < span.end)
