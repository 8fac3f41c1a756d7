"""Verify: has a projection applied exactly the events of its log, each once?

The log is read once up to the checkpoints; count and digest are made anew, by block and by slice,
and compared with what the store holds. A block that differs is taken apart to name the positions.
What was proved is kept: ``since="last"`` reads only what the log has got since.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby, islice, pairwise
from typing import Any, Final, Literal

from msgspec import Struct

from diptych.codec import Codec
from diptych.errors import ForeignCheckpoint, LogUnusable, Unavailable, ViewLost
from diptych.log import Log, StoredEvent, last_position
from diptych.read.following.fold import PAUSE_SECONDS
from diptych.read.parking.excused import excuse
from diptych.read.port import Checkpoint, Parked, Proof, ViewStore, pack, unpack
from diptych.read.projections import Projection
from diptych.read.proving.audit import Audit, Effects, Reader
from diptych.read.proving.blame import Unit, explain
from diptych.read.proving.mending import mending
from diptych.read.proving.proof import BLOCK_SHIFT, MODULUS, Tally, is_whole, total_of
from diptych.read.proving.refusing import require_comparable

PAGE: Final = 1 << BLOCK_SHIFT
"""How many events are read at a time: a block. (Of larger pages the garbage collector looks through
what was just made again and again.)"""

AHEAD: Final = 2
"""How many pages are read ahead: the thread that reads gets no turn to begin the next one while
this one is busy; it goes on with one that is in line already."""

Since = Literal["start", "last"]

Outcome = Literal["compared", "refused", "unprovable", "new"]


class Fault(Struct, frozen=True):
    """An effect that was not applied exactly once: ``what`` is missing, doubled or ahead."""

    what: str
    position: int
    event_id: str
    event: str
    key: Any


class Verdict(Struct, frozen=True, kw_only=True):
    """What was found. ``ok``: complete up to ``position``, and nothing twice.

    But for as many effects as are ``parked`` or were ``skipped``: these are not applied, and it is
    known which (`diptych parked list`). ``unknown``: how many events that were read are of types
    that the application does not know; no projection uses them.

    ``missing``: positions that were skipped; ``doubled``: applied once too often (thrice: named
    twice); ``ahead``: applied although they lie beyond the checkpoint; ``faults`` has the events
    and keys of them. ``unresolved``: ranges of positions where something is wrong that could not
    be told apart. ``gaps``: ranges of positions at which the log itself has no event, though it
    lies behind its head: what was there cannot be known. ``reason`` says it in words, ``remedy``
    what to do. ``position`` is that of the slices furthest behind.
    ``version`` and ``phase`` (live, building, held, old) tell which version it is of. ``outcome``:
    what was applied was compared; or refused, as the rows are those of another log or projection;
    or unprovable: only a program with the code of that version can compare; or new: nothing was
    ever applied, as the projection is made at the first start.
    """

    projection: str
    ok: bool
    position: int
    count: int
    seconds: float
    missing: list[int] = []
    doubled: list[int] = []
    ahead: list[int] = []
    faults: list[Fault] = []
    unresolved: list[tuple[int, int]] = []
    gaps: list[tuple[int, int]] = []
    reason: str = ""
    remedy: str = ""
    parked: int = 0
    skipped: int = 0
    unknown: dict[str, int] = {}
    version: str = ""
    phase: str = "live"
    outcome: Outcome = "compared"


async def verify(
    log: Log,
    codec: Codec,
    store: ViewStore,
    projections: Iterable[Projection],
    *,
    since: Since = "start",
) -> list[Verdict]:
    """Verify projections against their log, reading it once for all of them.

    ``since="last"``: from where they were last proved, and all of it only where something is wrong.
    """
    began = time.perf_counter()
    listed = list(projections)
    proofs = await store.proofs() if since == "last" else {}
    verdicts = await _verify(log, codec, store, listed, proofs, began)
    again = [one for one in listed if one.name in proofs and not verdicts[one.name].ok]
    if again:
        verdicts |= await _verify(log, codec, store, again, {}, began)
    return [verdicts[one.name] for one in listed]


async def _verify(
    log: Log,
    codec: Codec,
    store: ViewStore,
    projections: Sequence[Projection],
    proofs: dict[str, Proof],
    began: float,
) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {}
    lost = await store.lost_rows()
    looked: list[_Look] = []
    parked: dict[str, list[Parked]] = {}
    for one in projections:
        spans, blocks, parked[one.name] = await _stored(store, one.name)
        try:
            await require_comparable(one, spans, lost, store, log)
        except (ForeignCheckpoint, ViewLost) as error:
            verdicts[one.name] = Verdict(
                projection=one.name,
                ok=False,
                position=min((span.position for span in spans), default=0),
                count=sum(span.count for span in spans),
                seconds=time.perf_counter() - began,
                reason=str(error),
                remedy=mending(one, spans, log),
                outcome="refused",
            )
            continue
        looked.append(_Look(one, codec, spans, blocks, proofs.get(one.name)))
    head, last = await log.head(), await last_position(log)
    gaps = await _read(log, codec, [look.audit for look in looked])
    for look in looked:
        reach = max(look.audit.reach)
        look.gaps = [gap for gap in gaps if gap[0] <= reach]
        if last <= reach < head:  # what it would apply next is gone, up to the head
            look.gaps.append((reach + 1, head))
        await excuse(log, look.audit, parked[look.audit.projection.name])
        verdict = verdicts[look.audit.projection.name] = await look.verdict(log, began)
        with suppress(Unavailable, LogUnusable):  # a copy, or a role, that may only read
            await store.prove(look.proof(verdict))
    return verdicts


async def _stored(
    store: ViewStore, name: str
) -> tuple[list[Checkpoint], dict[int, Tally], list[Parked]]:
    """Return spans, blocks and what is parked, as they were at one moment.

    What was parked by steps since then lies behind the spans; all else raises a revision.
    """
    while True:
        spans, blocks = await store.proof(name)
        parked = await store.desk.parked(name)
        if _revisions((await store.checkpoints()).get(name, [])) == _revisions(spans):
            return spans, blocks, parked


def _revisions(spans: Sequence[Checkpoint]) -> list[int]:
    return [span.revision for span in spans for _ in range(span.slices)]


async def _read(log: Log, codec: Codec, audits: Sequence[Audit]) -> list[tuple[int, int]]:
    """Read the log for audits; return the ranges of positions at which it has no event."""
    until = max((position for audit in audits for position in audit.reach), default=0)
    after = min((position for audit in audits for position in audit.after), default=0)
    reader = Reader(codec, audits)
    gaps: list[tuple[int, int]] = []
    bounds = _bounds(after, until)
    reading: deque[tuple[int, int, asyncio.Task[list[StoredEvent]]]] = deque()

    def read_on() -> None:
        for first, last in islice(bounds, AHEAD - len(reading)):
            reading.append((first, last, asyncio.ensure_future(_events(log, first, last))))

    began = time.perf_counter()
    read_on()
    try:
        while reading:
            first, last, page = reading.popleft()
            events = await page
            read_on()
            if len(events) != last - first:
                gaps += _gaps(events, first, last)
            for _ in reader.take(events):
                if time.perf_counter() - began > PAUSE_SECONDS:
                    await asyncio.sleep(0)
                    began = time.perf_counter()
    finally:
        for *_, page in reading:
            page.cancel()
        await asyncio.gather(*(page for *_, page in reading), return_exceptions=True)
    return gaps


def _bounds(after: int, until: int) -> Iterator[tuple[int, int]]:
    """Return the bounds of the pages of (after, until]."""
    while after < until:
        last = min(((after + 1) // PAGE + 1) * PAGE - 1, until)
        yield after, last
        after = last


async def _events(log: Log, after: int, until: int) -> list[StoredEvent]:
    """Return the events in (after, until], as many as there are: people delete some."""
    events: list[StoredEvent] = []
    while after < until:
        page = await log.read(after=after, until=until, limit=until - after)
        if page.upto <= after:
            break
        events = [*events, *page.events] if events else page.events
        after = page.upto
    return events


def _gaps(events: Sequence[StoredEvent], after: int, upto: int) -> list[tuple[int, int]]:
    """Return the ranges in (after, upto] where there is no event."""
    there = [after, *(stored.position for stored in events), upto + 1]
    return [(a + 1, b - 1) for a, b in pairwise(there) if b - a > 1]


class _Look:
    """The comparison for one projection."""

    def __init__(
        self,
        one: Projection,
        codec: Codec,
        spans: list[Checkpoint],
        blocks: dict[int, Tally],
        proof: Proof | None,
    ) -> None:
        self.spans = spans
        self.blocks = blocks
        self.gaps: list[tuple[int, int]] = []
        self.partly = proof is not None and _fits(proof, spans)
        if self.partly:
            assert proof is not None
            known = unpack(proof.tallies)
            self.audit = Audit(one, codec, spans, after=proof.reach, known=known)
            # What has become known since then is reported no more.
            unknown = {name: n for name, n in proof.unknown.items() if name not in codec.events}
            self.audit.unknown.update(unknown)
        else:
            self.audit = Audit(one, codec, spans)

    async def verdict(self, log: Log, began: float) -> Verdict:
        """Compare; where blocks differ, name the positions."""
        faults: list[Fault] = []
        unresolved: list[tuple[int, int]] = []
        tails = _Tails(self.spans)
        if not self.partly:
            await self._blame(log, faults, unresolved, tails)
        reason = self._reason(faults, unresolved, tails)
        wrong = {what: _positions(faults, what) for what in ("missing", "doubled", "ahead")}
        return Verdict(
            projection=self.audit.projection.name,
            ok=not reason,
            position=min(self.audit.reach),
            count=sum(span.count for span in self.spans),
            seconds=time.perf_counter() - began,
            missing=wrong["missing"],
            doubled=wrong["doubled"],
            ahead=wrong["ahead"],
            faults=faults,
            unresolved=unresolved,
            gaps=self.gaps,
            reason=reason,
            remedy=mending(
                *(self.audit.projection, self.spans, log),
                gaps=bool(self.gaps or self.audit.unreadable),
                unknown=self.audit.unknown,
                wrong=wrong,
            )
            if reason
            else "",
            parked=self.audit.parked,
            skipped=self.audit.skipped,
            unknown=dict(self.audit.unknown),
        )

    def proof(self, verdict: Verdict) -> Proof:
        """Return what is to be kept of a verdict."""
        return Proof(
            verdict.projection,
            self.spans[0].log,
            datetime.now(UTC),
            verdict.ok,
            verdict.position,
            verdict.count,
            verdict.reason or (f"effects parked: {verdict.parked}" if verdict.parked else ""),
            self.audit.reach,
            pack(self.audit.stored),
            verdict.unknown,
        )

    async def _blame(
        self, log: Log, faults: list[Fault], unresolved: list[tuple[int, int]], tails: _Tails
    ) -> None:
        nothing = Tally()
        blocks = self.audit.blocks
        for number in sorted(blocks.keys() | self.blocks.keys()):
            expected = blocks.get(number, nothing)
            actual = self.blocks.get(number, nothing)
            if expected == actual and not tails.open:
                continue
            first, last = number << BLOCK_SHIFT, ((number + 1) << BLOCK_SHIFT) - 1
            page = await log.read(after=max(first - 1, 0), until=last, limit=1 << BLOCK_SHIFT)
            effects = self.audit.effects(page.events)
            found = [] if expected == actual else _explained(effects, actual, expected)
            if found is None:
                unresolved.append((max(first, 1), min(last, max(self.audit.reach))))
                tails.close()
                continue
            tails.look(effects, {index for sign, index in found if sign < 0})
            faults += [self._fault(effects, sign, index) for sign, index in found]
            await asyncio.sleep(0)

    def _fault(self, effects: Effects, sign: int, index: int) -> Fault:
        stored = effects.events[index]
        beyond = stored.position > self.audit.reach[effects.slices[index]]
        what = "missing" if sign < 0 else "ahead" if beyond else "doubled"
        return Fault(what, stored.position, stored.id, stored.type, effects.keys[index])

    def _reason(self, faults: list[Fault], unresolved: list[tuple[int, int]], tails: _Tails) -> str:
        said: list[str] = []
        if self.gaps:
            lost = ranges(p for a, b in self.gaps for p in range(a, b + 1))
            said.append(f"the log itself has no event at: {lost}; somebody has deleted it")
        if missing := _positions(faults, "missing"):
            said.append(f"missing: {ranges(missing)}")
            said += tails.told()
        if doubled := _positions(faults, "doubled"):
            said.append(f"applied more than once: {ranges(doubled)}")
        if ahead := _positions(faults, "ahead"):
            said.append(
                f"applied beyond the checkpoint: {ranges(ahead)}; the checkpoint was moved back"
            )
        said += [f"positions {a} to {b} differ in a way that cannot be told" for a, b in unresolved]
        if self.audit.unreadable:
            said.append(f"no key can be had of: {ranges(self.audit.unreadable)}")
        stored = self.audit.stored
        total = total_of(Tally(span.count, span.digest) for span in self.spans)
        if total_of(self.blocks.values()) != total:
            said.append("the checkpoint's count and digest are not the sum of its blocks")
        if total_of(stored) != total:
            said.append("the checkpoint's count and digest are not the sum of its slices")
        elif not said:
            expected = self.audit.slices
            wrong = [n for n, tally in enumerate(stored) if tally != expected[n]]
            if wrong:
                said.append(f"slices {ranges(wrong)} have not applied what is theirs")
        return "; ".join(said)


def _fits(proof: Proof, spans: Sequence[Checkpoint]) -> bool:
    """Whether one can go on from a proof: of the same log, and not beyond the checkpoints."""
    reach = [span.position for span in spans for _ in range(span.slices)]
    return (
        proof.ok
        and proof.log == spans[0].log
        and len(proof.reach) == len(reach)
        and is_whole(proof.tallies, len(reach))
        and all(before <= now for before, now in zip(proof.reach, reach, strict=True))
    )


class _Tails:
    """Whether from the first missing effect of a span on, everything of it is missing."""

    def __init__(self, spans: Sequence[Checkpoint]) -> None:
        self._spans = spans
        self._place = [place for place, span in enumerate(spans) for _ in range(span.slices)]
        self._first: dict[int, int] = {}
        self._broken: set[int] = set()

    @property
    def open(self) -> bool:
        """Whether any span may still turn out to have applied nothing after some position."""
        return len(self._first) > len(self._broken)

    def look(self, effects: Effects, missing: set[int]) -> None:
        """Take a block's effects into account, ``missing`` of them by index."""
        for index, (stored, number) in enumerate(zip(effects.events, effects.slices, strict=True)):
            place = self._place[number]
            if index in missing:
                self._first.setdefault(place, stored.position)
            elif place in self._first and stored.position <= self._spans[place].position:
                self._broken.add(place)

    def close(self) -> None:
        """Know no more: a block could not be told."""
        self._broken.update(self._first)

    def told(self) -> list[str]:
        """Return what to say of each."""
        said: list[str] = []
        for place, first in self._first.items():
            if place in self._broken:
                continue
            span = self._spans[place]
            which = f" in slices {span.slice} to {span.end - 1}" if len(self._spans) > 1 else ""
            said.append(
                f"nothing after position {first - 1} has been applied{which}: the checkpoint was "
                "moved forward"
            )
        return said


def _positions(faults: Iterable[Fault], what: str) -> list[int]:
    """Return the positions of faults; one that was applied thrice stands there twice."""
    times: dict[int, Counter[Any]] = {}
    for fault in faults:
        if fault.what == what:
            times.setdefault(fault.position, Counter())[repr(fault.key)] += 1
    return sorted(p for p, keys in times.items() for _ in range(max(keys.values())))


def _explained(effects: Effects, actual: Tally, expected: Tally) -> list[tuple[int, int]] | None:
    """Return (sign, index of an effect) for what explains a difference; None: nothing does."""
    single = [
        Unit(stored.position, digest)
        for stored, digest in zip(effects.events, effects.hashes, strict=True)
    ]
    whole: list[Unit] = []
    members: list[list[int]] = []
    for position, found in groupby(range(len(single)), lambda index: single[index].position):
        indexes = list(found)
        total = sum(single[index].digest for index in indexes) % MODULUS
        whole.append(Unit(position, total, len(indexes)))
        members.append(indexes)
    digest = (actual.digest - expected.digest) % MODULUS
    count = actual.count - expected.count
    for units, of in ((whole, members), (single, [[index] for index in range(len(single))])):
        explained = explain(units, digest, count)
        if explained is not None:
            return [(sign, index) for sign, run in explained for unit in run for index in of[unit]]
    return None


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
