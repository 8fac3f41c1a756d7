"""How the projections fare, for operators."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct, structs

from diptych.codec import time_of
from diptych.errors import Unavailable
from diptych.log import Log
from diptych.read.following.crew import LEASE_SECONDS, shares
from diptych.read.following.spans import Spans
from diptych.read.freshness import Freshness, ReadMeasures
from diptych.read.parking.failing import failure_noted
from diptych.read.port import Checkpoint, ParkedKey, Pause, Proof, Version, ViewStore, Worker
from diptych.read.projections import Keyed, Projection
from diptych.read.versioning.objections import objections
from diptych.read.versioning.versions import BUILT, Versions, parts_in

STORE_SECONDS: Final = 5.0
"""How long a read database may take to answer; then it is away."""


class SpanStatus(Struct, frozen=True):
    """How far neighbouring slices are, from ``first`` to ``last``; ``lag`` as in ``Status``."""

    first: int
    last: int
    position: int
    lag: int
    lag_seconds: float
    count: int


class Proved(Struct, frozen=True):
    """What ``verify`` found last of a projection, when (UTC), and ``age`` seconds ago.

    ``reason`` says what is wrong, or that effects were parked then: ``ok`` all the same.
    ``unknown``: how many events it passed over, by type, as the program did not know these.
    """

    ok: bool
    position: int
    time: datetime
    age: float
    reason: str
    unknown: dict[str, int] = {}


class Status(Struct, frozen=True):
    """The state of a projection, or of a version of it: ``lag`` in events, ``lag_seconds`` in s.

    ``position`` is that of the slices furthest behind; ``spans`` has all of them.
    ``lag_seconds`` is the age of the oldest event not yet applied, a parked one too; 0.0 when there
    is none. ``state``: new, running, standby (another worker does it), failed, paused, refused; or
    away: its read database does not answer, ``error`` says why, and all else is what this process
    knew last (``spans`` are empty where it knows nothing). Where only its rows do not answer or
    are gone, as they are kept apart from its checkpoints, all else is as it is.
    ``parked_keys`` have ``parked_events`` that were not applied; ``skipped`` ones never will be. A
    handler that stands before an event that it fails on has failed, whichever process holds it, and
    that event is the parked one.
    ``freshness``: how it keeps its ``fresh_within``, None where it has none. ``workers``: how many
    processes share it just now. ``proved``: what was last proved, None where nothing was.
    ``phase`` is that of the version: live, building, held, old; or
    new: it is made at the first start. ``objections``: what it lacks of
    what the live version has, so that it is held.
    """

    projection: str
    position: int
    head: int
    lag: int
    lag_seconds: float
    state: str
    error: str | None = None
    failed_position: int = 0
    inline: bool = False
    count: int = 0
    spans: tuple[SpanStatus, ...] = ()
    freshness: Freshness | None = None
    workers: int = 0
    proved: Proved | None = None
    parked_keys: int = 0
    parked_events: int = 0
    skipped: int = 0
    paused: Pause | None = None
    version: str = ""
    phase: str = "live"
    objections: list[str] = []


STATES: Final = ("away", "refused", "failed", "paused", "standby", "new", "running")
"""What a projection can be in, the gravest first."""


class _Stored(Struct):
    """What a read database holds of all its projections."""

    checkpoints: Mapping[str, Sequence[Checkpoint]]
    proofs: Mapping[str, Proof]
    workers: Sequence[Worker]
    keys: Mapping[str, Sequence[ParkedKey]]
    pauses: Mapping[str, Pause]
    objections: Mapping[str, list[str]]
    gone: Mapping[str, Exception]

    @classmethod
    async def of(cls, store: ViewStore, versions: Versions) -> _Stored:
        """Read it; the checkpoints first: what moves meanwhile must not seem to be ahead."""
        return cls(
            await store.checkpoints(),
            await store.proofs(),
            await store.workers(LEASE_SECONDS),
            await store.desk.keys(),
            await store.desk.pauses(),
            {
                one.name: await objections(store, live, row)
                for one, row in versions.shown()
                if (live := versions.live(one.title)) and row.state in BUILT
            },
            await _gone(store, versions),
        )


async def _gone(store: ViewStore, versions: Versions) -> Mapping[str, Exception]:
    """Return why the rows of projections cannot be had, while the checkpoints can."""
    try:
        return await store.lost_rows()
    except Unavailable as error:
        return {one.name: error for one, _ in versions.shown()}


async def status_of(
    log: Log, store: ViewStore, spans: Spans, versions: Versions, measures: ReadMeasures
) -> list[Status]:
    """Return the state of every projection, from the checkpoints in the store.

    Of those that another version serves, also the state of that one. Raises ``Unavailable`` where
    the log does not answer; where the store does not, its projections are away.
    """
    try:
        async with asyncio.timeout(STORE_SECONDS):
            stored = await _Stored.of(store, versions)
    except Unavailable as failure:
        return await _away(log, spans, versions, measures, str(failure))
    except TimeoutError:
        why = f"The read database has not answered within {STORE_SECONDS:g} s"
        return await _away(log, spans, versions, measures, why)
    head, ages = await log.head(), dict[int, float]()
    found: list[Status] = []
    for one, row in _shown(versions):
        name = one.name
        held = stored.checkpoints.get(name) or [Checkpoint(name, "", slices=one.slices)]
        parts = [await _part(log, head, ages, span) for span in held]
        last = min(parts, key=lambda part: part.position)
        worst = min(spans.of(name), key=lambda f: STATES.index(f.state), default=None)
        state: str = "standby" if worst is None else worst.state
        pause = stored.pauses.get(name)
        if pause is not None and state != "refused":
            state = "paused"
        parked = [key for key in stored.keys.get(name, ()) if key.events]
        error = None if worst is None or worst.error is None else str(worst.error)
        failed = worst.failed_position if worst is not None and worst.state == "failed" else 0
        if not isinstance(one, Keyed) and parked and state not in ("refused", "paused"):
            # Whichever process holds the handler: it has noted what it stands before, and why.
            state, error, failed = "failed", str(failure_noted(one, parked[0])), parked[0].position
        if name in stored.gone:
            state, error = "away", str(stored.gone[name])
        measures.parked(name, len(parked))
        oldest = min((key.time for key in parked if key.time is not None), default=None)
        found.append(
            Status(
                one.title,
                last.position,
                head,
                last.lag,
                max(last.lag_seconds, 0.0 if oldest is None else _age(oldest)),
                state,
                error,
                failed,
                one.inline,
                sum(part.count for part in parts),
                tuple(parts),
                measures.freshness(name),
                sum(map(bool, shares(name, one.slices, stored.workers).values())),
                _proved(stored.proofs.get(name)),
                len(parked),
                sum(key.events for key in parked),
                sum(key.skipped for key in stored.keys.get(name, ())),
                pause,
                row.version,
                row.state,
                stored.objections.get(name, []),
            )
        )
    for name in versions.declared:
        if versions.is_new(name):
            age = await age_after(log, 0)
            version = versions.version(name)
            found.append(Status(name, 0, head, head, age, "new", version=version, phase="new"))
    return found


def _shown(versions: Versions) -> list[tuple[Projection, Version]]:
    """Return what is shown; a version of other code has slices of its own, and more are async."""
    found: list[tuple[Projection, Version]] = []
    for one, row in versions.shown():
        slices = parts_in(row).slices
        other = slices != one.slices
        found.append((structs.replace(one, slices=slices, inline=False) if other else one, row))
    return found


async def _part(log: Log, head: int, ages: dict[int, float], span: Checkpoint) -> SpanStatus:
    at = span.position
    if at not in ages:
        ages[at] = await age_after(log, at)
    return SpanStatus(span.slice, span.end - 1, at, max(head - at, 0), ages[at], span.count)


async def _away(
    log: Log, spans: Spans, versions: Versions, measures: ReadMeasures, why: str
) -> list[Status]:
    """Return what is known here of projections whose store does not answer."""
    head, ages = await log.head(), dict[int, float]()
    found: list[Status] = []
    for one, row in _shown(versions):
        known = [follower.checkpoint for follower in spans.of(one.name)]
        parts = [await _part(log, head, ages, span) for span in known]
        last = min(parts, key=lambda part: part.position, default=None)
        found.append(
            Status(
                one.title,
                0 if last is None else last.position,
                head,
                head if last is None else last.lag,
                0.0 if last is None else last.lag_seconds,
                "away",
                why,
                inline=one.inline,
                count=sum(part.count for part in parts),
                spans=tuple(parts),
                freshness=measures.freshness(one.name),
                version=row.version,
                phase=row.state,
            )
        )
    named = {one.projection for one in found}
    for name, one in versions.declared.items():
        if name not in named:  # it was never opened here
            found.append(Status(name, 0, head, head, 0.0, "away", why, inline=one.inline))
    return found


def _proved(proof: Proof | None) -> Proved | None:
    if proof is None:
        return None
    age = max((datetime.now(UTC) - proof.time).total_seconds(), 0.0)
    return Proved(proof.ok, proof.position, proof.time, age, proof.reason, proof.unknown)


async def age_after(log: Log, position: int) -> float:
    """Return the age in seconds of the first event after a position; 0.0 when there is none."""
    page = await log.read(after=position, limit=1)
    time = time_of(page.events[0]) if page.events else None
    return 0.0 if time is None else _age(time)


def _age(time: datetime) -> float:
    return max((datetime.now(UTC) - time).total_seconds(), 0.0)
