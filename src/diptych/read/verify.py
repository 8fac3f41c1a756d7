"""Verify: has a projection applied exactly the events of its log, each once?

The log is read once up to the checkpoints; count and digest are made anew, block by block, and
compared with what the store holds. A block that differs is taken apart to name the positions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
from msgspec import Struct

from diptych.codec import Codec
from diptych.errors import ForeignCheckpoint
from diptych.log import Log, StoredEvent
from diptych.messages import type_hints
from diptych.read.blame import Unit, explain
from diptych.read.follower import refuse_foreign
from diptych.read.port import Checkpoint, ViewStore
from diptych.read.projections import Keyed, Projection
from diptych.read.proof import BLOCK_SHIFT, MODULUS, Tally, hash_effects, tally_blocks

PAGE: Final = 2000

KeysOf = Callable[[Any], Sequence[Any]]


class Verdict(Struct, frozen=True, kw_only=True):
    """What was found. ``ok``: complete up to ``position``, and nothing twice.

    ``missing``: positions that were skipped; ``doubled``: applied once too often (thrice: named
    twice); ``ahead``: applied although they lie beyond the checkpoint; ``unresolved``: ranges of
    positions where something is wrong that could not be told apart. ``reason`` says it in words.
    """

    projection: str
    ok: bool
    position: int
    count: int
    seconds: float
    missing: list[int] = []
    doubled: list[int] = []
    ahead: list[int] = []
    unresolved: list[tuple[int, int]] = []
    reason: str = ""


async def verify(
    log: Log, codec: Codec, store: ViewStore, projections: Iterable[Projection]
) -> list[Verdict]:
    """Verify projections against their log, reading it once for all of them."""
    began = time.perf_counter()
    verdicts: dict[str, Verdict] = {}
    audits: list[_Audit] = []
    listed = list(projections)
    for one in listed:
        checkpoint, blocks = await store.proof(one.name)
        try:
            await refuse_foreign(checkpoint, log)
        except ForeignCheckpoint as error:
            verdicts[one.name] = Verdict(
                projection=one.name,
                ok=False,
                position=checkpoint.position,
                count=checkpoint.count,
                seconds=time.perf_counter() - began,
                reason=str(error),
            )
            continue
        audits.append(_Audit(one, codec, checkpoint, blocks))
    await _read(log, audits)
    for audit in audits:
        verdicts[audit.projection.name] = await audit.verdict(log, began)
    return [verdicts[one.name] for one in listed]


async def _read(log: Log, audits: Sequence[_Audit]) -> None:
    until = max((a.checkpoint.position for a in audits), default=0)
    after = 0
    reading: asyncio.Task[Any] | None = None
    while after < until:
        page = await (reading or log.read(after=after, until=until, limit=PAGE))
        after = page.upto
        reading = (
            asyncio.ensure_future(log.read(after=after, until=until, limit=PAGE))
            if after < until
            else None
        )
        for audit in audits:
            audit.take(page.events)
            await asyncio.sleep(0)


class _Audit:
    """The comparison for one projection."""

    def __init__(
        self,
        projection: Projection,
        codec: Codec,
        checkpoint: Checkpoint,
        blocks: dict[int, Tally],
    ) -> None:
        self.projection = projection
        self.checkpoint = checkpoint
        self.actual = blocks
        self.expected: dict[int, Tally] = {}
        self._keys = keys_by_type(projection, codec)
        self._unreadable: list[int] = []
        # Whether from the first missing event on, everything is missing.
        self._tail = True

    def take(self, events: Sequence[StoredEvent]) -> None:
        """Add a page's effects, up to the checkpoint."""
        if events and events[-1].position > self.checkpoint.position:
            events = [e for e in events if e.position <= self.checkpoint.position]
        positions, effects = self._effects(events)
        for number, tally in tally_blocks(positions, hash_effects(effects)).items():
            before = self.expected.get(number)
            self.expected[number] = tally if before is None else before.plus(tally)

    def _effects(
        self, events: Sequence[StoredEvent]
    ) -> tuple[list[int], list[tuple[int, str, Any]]]:
        keys_by = self._keys
        effects: list[tuple[int, str, Any]] = []
        for stored in events:
            keys_of = keys_by.get(stored.type)
            if keys_of is None:
                continue
            try:
                keys = keys_of(stored.data)
            except Exception:
                self._unreadable.append(stored.position)
                continue
            effects += [(stored.position, stored.id, key) for key in keys]
        return [effect[0] for effect in effects], effects

    async def verdict(self, log: Log, began: float) -> Verdict:
        """Compare; where blocks differ, name the positions."""
        missing: list[int] = []
        doubled: list[int] = []
        ahead: list[int] = []
        unresolved: list[tuple[int, int]] = []
        nothing = Tally()
        for number in sorted(self.expected.keys() | self.actual.keys()):
            expected = self.expected.get(number, nothing)
            actual = self.actual.get(number, nothing)
            if expected == actual:
                self._tail &= not missing
                continue
            first, last = number << BLOCK_SHIFT, ((number + 1) << BLOCK_SHIFT) - 1
            page = await log.read(after=max(first - 1, 0), until=last, limit=1 << BLOCK_SHIFT)
            found = self._blame(page.events, actual, expected)
            if found is None:
                unresolved.append((max(first, 1), last))
                self._tail = False
                continue
            gone = {position for sign, position in found if sign < 0}
            start = min([*missing[:1], *gone], default=last + 1)
            self._tail &= all(
                e.position in gone
                for e in page.events
                if start <= e.position <= self.checkpoint.position and e.type in self._keys
            )
            for sign, position in found:
                if sign < 0:
                    missing.append(position)
                elif position > self.checkpoint.position:
                    ahead.append(position)
                else:
                    doubled.append(position)
            await asyncio.sleep(0)
        reason = self._reason(missing, doubled, ahead, unresolved)
        return Verdict(
            projection=self.projection.name,
            ok=not reason,
            position=self.checkpoint.position,
            count=self.checkpoint.count,
            seconds=time.perf_counter() - began,
            missing=sorted(missing),
            doubled=sorted(doubled),
            ahead=sorted(ahead),
            unresolved=unresolved,
            reason=reason,
        )

    def _blame(
        self, events: Sequence[StoredEvent], actual: Tally, expected: Tally
    ) -> list[tuple[int, int]] | None:
        positions, effects = self._effects(events)
        hashes = [int.from_bytes(h, "little") for h in hash_effects(effects)]
        single = [Unit(p, h) for p, h in zip(positions, hashes, strict=True)]
        whole = [
            Unit(position, sum(u.digest for u in units) % MODULUS, len(units))
            for position, found in groupby(single, lambda u: u.position)
            for units in [list(found)]
        ]
        digest = (actual.digest - expected.digest) % MODULUS
        count = actual.count - expected.count
        for units in (whole, single):
            found = explain(units, digest, count)
            if found is not None:
                return [(sign, units[i].position) for sign, run in found for i in run]
        return None

    def _reason(
        self,
        missing: list[int],
        doubled: list[int],
        ahead: list[int],
        unresolved: list[tuple[int, int]],
    ) -> str:
        said: list[str] = []
        if missing:
            said.append(f"missing: {ranges(missing)}")
            if self._tail:
                said.append(
                    f"nothing after position {missing[0] - 1} has been applied: the checkpoint was "
                    "moved forward"
                )
        if doubled:
            said.append(f"applied more than once: {ranges(doubled)}")
        if ahead:
            said.append(
                f"applied beyond the checkpoint: {ranges(ahead)}; the checkpoint was moved back"
            )
        said += [f"positions {a} to {b} differ in a way that cannot be told" for a, b in unresolved]
        if self._unreadable:
            said.append(f"no key can be had of: {ranges(self._unreadable)}")
        total = Tally()
        for tally in self.actual.values():
            total = total.plus(tally)
        if total != Tally(self.checkpoint.count, self.checkpoint.digest):
            said.append("the checkpoint's count and digest are not the sum of its blocks")
        return "; ".join(said)


def keys_by_type(projection: Projection, codec: Codec) -> dict[str, KeysOf]:
    """Return for each stored type the function from an event's JSON to the keys it touches.

    Where the key is made of fields, only these are decoded.
    """
    found: dict[str, KeysOf] = {}
    for event in projection.events:
        registered = codec.of(event)
        if not isinstance(projection, Keyed):
            found[registered.name] = _no_key
        elif projection.key is not None:
            found[registered.name] = _field_keys(event, projection.key_names, projection.key)
        else:
            found[registered.name] = _given_keys(registered.decode, projection)
    return found


def _no_key(_data: Any) -> Sequence[Any]:
    return (None,)


def _field_keys(event: type, names: Sequence[str], key: Callable[[Any], Any]) -> KeysOf:
    hints = type_hints(event)
    encoded: dict[str, str] = dict(
        zip(event.__struct_fields__, event.__struct_encode_fields__, strict=True)  # type: ignore[attr-defined]
    )
    part = msgspec.defstruct(
        event.__name__,
        [(name, hints[name]) for name in names],
        rename={name: encoded[name] for name in names},
    )
    decode = msgspec.json.Decoder(part).decode
    return lambda data: (key(decode(data)),)


def _given_keys(decode: Callable[[Any], Any], projection: Keyed) -> KeysOf:
    return lambda data: projection.keys_of(decode(data))


def ranges(positions: Iterable[int], most: int = 20) -> str:
    """Return positions in words: ``3, 7 to 9``; at most ``most`` ranges."""
    runs: list[list[int]] = []
    for position in sorted(positions):
        if runs and position <= runs[-1][1] + 1:
            runs[-1][1] = position
        else:
            runs.append([position, position])
    said = [str(a) if a == b else f"{a} to {b}" for a, b in runs[:most]]
    return ", ".join(said) + (f" and {len(runs) - most} more ranges" if len(runs) > most else "")
