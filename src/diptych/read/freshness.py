"""What the read side measures: what projections do, and how soon events can be read.

The engine tells ``ReadMeasures``, from a few places, what it has done; all reckoning is here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final

import msgspec
from msgspec import Struct

from diptych.codec import metadata_of, time_of
from diptych.errors import outcome_of
from diptych.log import StoredEvent
from diptych.read.following.fold import Used
from diptych.read.port import Applied, Change
from diptych.read.projections import Projection
from diptych.telemetry import declared
from diptych.telemetry.metrics import Telemetry

BUILT_SECONDS: Final = 1.0
"""A slice that began with nothing counts as built when it is less than this behind."""

WINDOWS: Final = {"5m": 5, "1h": 60}
"""The windows of burn rates, in minutes."""


class Freshness(Struct, frozen=True):
    """How a projection keeps what was promised by ``fresh_within`` (seconds) and ``fresh_share``.

    ``met`` is the share of effects that could be read in time over the last hour, of ``effects``
    that this process has applied in it; None when there were none. ``burn_5m`` and ``burn_1h`` say
    how fast the permitted share of late ones was used up: at 1 it would be used up exactly.
    """

    within: float
    share: float
    met: float | None = None
    effects: int = 0
    burn_5m: float | None = None
    burn_1h: float | None = None


class Window:
    """Effects of the last hour that were readable in time, or not, counted by the minute."""

    MINUTES: Final = 60

    def __init__(self) -> None:
        self._minute = [-self.MINUTES] * self.MINUTES
        self._met = [0] * self.MINUTES
        self._missed = [0] * self.MINUTES

    def add(self, met: int, missed: int, now: float) -> None:
        """Count effects at a time in seconds."""
        minute = int(now // 60)
        at = minute % self.MINUTES
        if self._minute[at] != minute:
            self._minute[at], self._met[at], self._missed[at] = minute, 0, 0
        self._met[at] += met
        self._missed[at] += missed

    def counts(self, minutes: int, now: float) -> tuple[int, int]:
        """Return how many were in time, and how many not, in this minute and those before it."""
        last = int(now // 60)  # beyond it lies what was counted before the clock was set back
        within = [at for at, one in enumerate(self._minute) if last - minutes < one <= last]
        return sum(self._met[at] for at in within), sum(self._missed[at] for at in within)


class _Measured:
    """What is kept of one projection."""

    def __init__(self, projection: Projection, telemetry: Telemetry) -> None:
        name = self.name = projection.name
        self.within = projection.fresh_within
        self.share = projection.fresh_share
        self.window = Window()
        self.building: set[int] = set()  # slices
        self.events = telemetry.number(declared.PROJECTION_EVENTS)[name,]
        self.effects = telemetry.number(declared.PROJECTION_EFFECTS)[name,]
        self.steps = telemetry.histogram(declared.PROJECTION_STEP)[name,]
        self.lost = telemetry.number(declared.PROJECTION_LOST)[name,]
        self.failures = telemetry.number(declared.PROJECTION_FAILURES)[name,]
        self.latency = telemetry.histogram(declared.PROJECTION_LATENCY)[name,]
        if self.within is not None:
            kept = telemetry.number(declared.FRESHNESS_EFFECTS)
            self.met, self.missed = kept[name, "met"], kept[name, "missed"]
            telemetry.number(declared.FRESHNESS_OBJECTIVE)[name,].value = self.within
            telemetry.number(declared.FRESHNESS_TARGET)[name,].value = self.share


class ReadMeasures:
    """Told by the engine. ``clock`` gives the time of day, in seconds since 1970.

    An event's latency runs from the time in its metadata, its command's arrival at whatever
    machine that was, so clocks that differ show in it; it is never below 0. Of a step only the
    first and the last event are looked at, and the others taken to lie evenly between.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        projections: Iterable[Projection],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._telemetry = telemetry
        self._clock = clock
        self._projections = {one.name: one for one in projections}
        self._of = {name: _Measured(one, telemetry) for name, one in self._projections.items()}

    def _one(self, instance: str) -> _Measured:
        """Return what is kept of a version's instance: told under its projection's name."""
        if instance not in self._of:
            name = instance.partition("@")[0]
            self._of[instance] = _Measured(self._projections[name], self._telemetry)
        return self._of[instance]

    # --- told by the engine -----------------------------------------------------------------------

    def noted(self, change: Change, used: Sequence[Used]) -> Change:
        """Return a step that says which events it applies: those used, as far as it goes."""
        if used and used[-1][0].position > change.after.position:
            used = [each for each in used if each[0].position <= change.after.position]
        if not used:
            return change
        traced: list[StoredEvent] = []
        if self._telemetry.tracing is not None:
            traced = [stored for stored, _, _ in used[-declared.MOST_LINKS :]]
        applied = Applied(len(used), used[0][0], used[-1][0], tuple(traced))
        return msgspec.structs.replace(change, applied=applied)

    def applied(self, change: Change, seconds: float) -> None:
        """Count a step that is committed, and took so many seconds."""
        one = self._one(change.after.projection)
        one.steps.observe(seconds)
        span = range(change.after.slice, change.after.end)
        if change.before.position == 0:
            one.building.update(span)
        applied = change.applied
        if applied is None:
            return
        one.events.value += applied.events
        if effects := change.after.count - change.before.count:
            one.effects.value += effects
            self._latency(one, span, applied, effects)
            if self._telemetry.tracing is not None:
                self._telemetry.tracing.project(
                    one.name,
                    position=change.after.position,
                    events=applied.events,
                    seconds=seconds,
                    origins=_origins(applied.traced),
                )

    def lost(self, projection: str) -> None:
        """Count a step that another worker made first."""
        self._one(projection).lost.value += 1

    def failed(self, projection: str) -> None:
        """Count an attempt at an event that the projection's function failed on."""
        self._one(projection).failures.value += 1

    def parked(self, projection: str, keys: int) -> None:
        """Note how many keys are parked."""
        self._telemetry.number(declared.PROJECTION_PARKED)[projection,].value = keys

    def rebuilding(self, projection: str, done: int, remaining: int) -> None:
        """Note how many events a version that is being built has applied, and has yet to."""
        self._telemetry.number(declared.REBUILD_DONE)[projection,].value = done
        self._telemetry.number(declared.REBUILD_REMAINING)[projection,].value = remaining

    def _latency(self, one: _Measured, span: range, applied: Applied, effects: int) -> None:
        now, last, first = self._clock(), time_of(applied.last), time_of(applied.first)
        if last is None or first is None:
            return  # the log is damaged
        low = max(now - last.timestamp(), 0.0)
        high = max(now - first.timestamp(), low)
        if one.building and not one.building.isdisjoint(span):
            if low > BUILT_SECONDS:
                return  # what happened before there was a projection is not late
            one.building.difference_update(span)
        one.latency.spread(low, high, effects)
        if one.within is None:
            return
        met = effects
        if high > one.within:
            met = 0 if low > one.within else int(met * (one.within - low) / (high - low))
        missed = effects - met
        one.met.value += met
        one.missed.value += missed
        one.window.add(met, missed, now)

    # --- told to operators ------------------------------------------------------------------------

    def freshness(self, projection: str) -> Freshness | None:
        """Return how a projection keeps its promise; None where it makes none."""
        one = self._one(projection)
        if one.within is None:
            return None
        now = self._clock()
        burns: dict[str, float | None] = {}
        hour, effects = None, 0
        for window, minutes in WINDOWS.items():
            met, missed = one.window.counts(minutes, now)
            effects = met + missed
            hour = met / effects if effects else None
            burns[window] = missed / effects / (1 - one.share) if effects else None
        return Freshness(one.within, one.share, hour, effects, burns["5m"], burns["1h"])


class QueryMeasures:
    """Told by the queries. Times are in seconds of ``time.perf_counter()``."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._tracing = telemetry.tracing
        self._queries = telemetry.histogram(declared.QUERY_DURATION)
        self._waits = telemetry.histogram(declared.QUERY_WAIT)

    def asked(self, query: object) -> Asked:
        """Count a query that is answered, or not, within: ``with measures.asked(query):``."""
        return Asked(self, getattr(query, "message_name", type(query).__name__))

    def begin(self, asked: Asked) -> None:
        """Note that a query is about to be answered."""
        if self._tracing is not None:
            asked.spanned = self._tracing.query(asked.name)
            asked.span = asked.spanned.__enter__()

    def end(self, asked: Asked, seconds: float) -> None:
        """Note how it has fared, after so many seconds."""
        self._queries[asked.name, asked.outcome].observe(seconds)
        if asked.waited is not None:
            met = "stale" if asked.outcome in ("stale", "stale-answer") else "met"
            self._waits[asked.name, met].observe(asked.waited)
        if self._tracing is not None and asked.span is not None:
            fine = asked.outcome in ("answered", "stale")
            self._tracing.end(asked.span, asked.outcome, fine=fine)


class Asked:
    """How a query fares: ``waited`` is for how many seconds, None where it had no token.

    A class, as a generator would take three times as long.
    """

    __slots__ = ("_began", "_measures", "name", "outcome", "span", "spanned", "waited")

    def __init__(self, measures: QueryMeasures, name: str) -> None:
        self._measures = measures
        self.name = name
        self.outcome = "answered"
        self.waited: float | None = None
        self.spanned: AbstractContextManager[Any] | None = None
        self.span: Any = None

    def __enter__(self) -> Asked:
        self._began = time.perf_counter()
        self._measures.begin(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.outcome = outcome_of(error) if isinstance(error, Exception) else "cancelled"
        try:
            self._measures.end(self, time.perf_counter() - self._began)
        finally:
            if self.spanned is not None:
                self.spanned.__exit__(kind, error, trace)


def _origins(events: Sequence[StoredEvent]) -> list[tuple[str, str]]:
    """Return traceparent and correlation id of the commands behind events, where traced."""
    found = [metadata_of(stored) for stored in events if time_of(stored) is not None]
    return [(one.traceparent, one.correlation_id) for one in found if one.traceparent is not None]
