"""Every metric and span there is, as data: the code, the texts and the reference come from here.

Names and units follow OpenTelemetry (dots; UCUM units, what is counted in braces); ``exposed`` is
the same name as Prometheus writes it.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

MOST_LINKS: Final = 32
"""Spans that one step of a projection links to, at most."""

Kind = Literal["counter", "gauge", "histogram"]

SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
SIZES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)

_SUFFIXES: Final = {"s": "_seconds", "1": "_ratio"}


class Metric(Struct, frozen=True):
    """A metric: ``attributes`` are its labels, ``buckets`` the upper bounds of a histogram.

    ``stored``: it is known from what log and views hold, so that any process can tell it; the
    others are told by the process that does the work.
    """

    name: str
    kind: Kind
    unit: str
    attributes: tuple[str, ...]
    about: str
    buckets: tuple[float, ...] = ()
    stored: bool = False

    @property
    def exposed(self) -> str:
        """The name in Prometheus: with its unit, and ``_total`` where it only grows."""
        name = self.name.replace(".", "_") + _SUFFIXES.get(self.unit, "")
        return name + "_total" * (self.kind == "counter")


class Span(Struct, frozen=True):
    """A span: its name (``{}`` stands for what it is about), attributes, and what it links to."""

    name: str
    attributes: tuple[str, ...]
    links: str
    about: str


def _counter(name: str, unit: str, attributes: tuple[str, ...], about: str) -> Metric:
    return Metric(name, "counter", unit, attributes, about)


def _gauge(
    name: str, unit: str, attributes: tuple[str, ...], about: str, *, stored: bool = False
) -> Metric:
    return Metric(name, "gauge", unit, attributes, about, stored=stored)


def _seconds(name: str, attributes: tuple[str, ...], about: str) -> Metric:
    return Metric(name, "histogram", "s", attributes, about, SECONDS)


_PROJECTION: Final = ("projection",)
_SPAN: Final = ("projection", "slices")

# --- the write side -------------------------------------------------------------------------------

COMMAND_DURATION: Final = _seconds(
    "diptych.command.duration",
    ("command", "outcome"),
    "From a command's arrival to its answer. Outcome: appended, unchanged, replayed, rejected, "
    "or the code of the error.",
)
COMMAND_RETRIES: Final = _counter(
    "diptych.command.retries",
    "{retry}",
    ("command",),
    "Times that a command was decided again after a conflict.",
)
COMMAND_WAITING: Final = _gauge(
    "diptych.command.waiting", "{command}", (), "Commands accepted and not yet answered."
)
APPEND_DURATION: Final = _seconds(
    "diptych.append.duration",
    ("outcome",),
    "One durable transaction of the writer. Outcome: committed, or the code of the error.",
)
APPEND_SIZE: Final = Metric(
    "diptych.append.size",
    "histogram",
    "{command}",
    (),
    "Commands in one transaction of the writer.",
    SIZES,
)
APPEND_EVENTS: Final = _counter("diptych.append.events", "{event}", (), "Events appended.")
LOG_HEAD: Final = _gauge(
    "diptych.log.head", "{event}", (), "Position of the log's last event.", stored=True
)
LOG_UP: Final = _gauge(
    "diptych.log.up", "", (), "1 when the log has answered, 0 when it has not.", stored=True
)

# --- queries --------------------------------------------------------------------------------------

QUERY_DURATION: Final = _seconds(
    "diptych.query.duration",
    ("query", "outcome"),
    "From a query to its answer, waiting included. Outcome: answered, stale, or the code of the "
    "error.",
)
QUERY_WAIT: Final = _seconds(
    "diptych.query.wait.duration",
    ("query", "outcome"),
    "How long a query with a token waited for its views. Outcome: met, stale.",
)

# --- projections ----------------------------------------------------------------------------------

PROJECTION_EVENTS: Final = _counter(
    "diptych.projection.events",
    "{event}",
    _PROJECTION,
    "Events that the steps of this process used. Each process that shares a projection uses all.",
)
PROJECTION_EFFECTS: Final = _counter(
    "diptych.projection.effects",
    "{effect}",
    _PROJECTION,
    "Effects applied by this process: one event applied to one key.",
)
PROJECTION_STEP: Final = _seconds(
    "diptych.projection.step.duration",
    _PROJECTION,
    "The transaction of rows and checkpoint.",
)
PROJECTION_LOST: Final = _counter(
    "diptych.projection.steps.lost",
    "{step}",
    _PROJECTION,
    "Steps thrown away, as another worker had moved the checkpoint.",
)
PROJECTION_FAILURES: Final = _counter(
    "diptych.projection.failures",
    "{failure}",
    _PROJECTION,
    "Attempts at an event that the projection's function failed on.",
)
PROJECTION_LATENCY: Final = _seconds(
    "diptych.projection.latency",
    _PROJECTION,
    "From the arrival of an event's command until its effect can be read in the view. Not while a "
    "projection is built from nothing.",
)
PROJECTION_POSITION: Final = _gauge(
    "diptych.projection.position",
    "{event}",
    _SPAN,
    "Position of the checkpoint in the log.",
    stored=True,
)
PROJECTION_LAG: Final = _gauge(
    "diptych.projection.lag.events",
    "{event}",
    _SPAN,
    "Events between checkpoint and head.",
    stored=True,
)
PROJECTION_LAG_AGE: Final = _gauge(
    "diptych.projection.lag.age",
    "s",
    _SPAN,
    "Age of the oldest event not yet applied; 0: none.",
    stored=True,
)
PROJECTION_STATE: Final = _gauge(
    "diptych.projection.state",
    "",
    ("projection", "state"),
    "1 for the state that the projection is in, as this process knows it, 0 for the others.",
)
PROJECTION_PARKED: Final = _gauge(
    "diptych.projection.parked",
    "{key}",
    _PROJECTION,
    "Keys parked behind an event that failed; of a handler 1: it stands before such an event.",
    stored=True,
)
REBUILD_DONE: Final = _gauge(
    "diptych.rebuild.done", "{event}", _PROJECTION, "Events that a version being built has applied."
)
REBUILD_REMAINING: Final = _gauge(
    "diptych.rebuild.remaining",
    "{event}",
    _PROJECTION,
    "Events that a version being built has yet to apply.",
)

# --- promises -------------------------------------------------------------------------------------

FRESHNESS_EFFECTS: Final = _counter(
    "diptych.freshness.effects",
    "{effect}",
    ("projection", "outcome"),
    "Effects that were readable in time (met) or too late (missed), where `fresh_within` is given.",
)
FRESHNESS_OBJECTIVE: Final = _gauge(
    "diptych.freshness.objective",
    "s",
    _PROJECTION,
    "What was declared as `fresh_within`.",
    stored=True,
)
FRESHNESS_TARGET: Final = _gauge(
    "diptych.freshness.target",
    "1",
    _PROJECTION,
    "The share of effects that is to be readable in time: `fresh_share`.",
    stored=True,
)
FRESHNESS_MET: Final = _gauge(
    "diptych.freshness.met",
    "1",
    _PROJECTION,
    "The share that was, over the last hour, of the effects applied by this process.",
)
FRESHNESS_BURN: Final = _gauge(
    "diptych.freshness.burn",
    "",
    ("projection", "window"),
    "How fast the permitted share of late effects is used up: 1 is just permitted. Window: 5m, 1h.",
)
VERIFY_COMPLETE: Final = _gauge(
    "diptych.verify.complete",
    "",
    _PROJECTION,
    "What `verify` last found of the live version: 1 complete and applied once, 0 not.",
    stored=True,
)
VERIFY_POSITION: Final = _gauge(
    "diptych.verify.position",
    "{event}",
    _PROJECTION,
    "The position up to which it was verified.",
    stored=True,
)
VERIFY_TIME: Final = _gauge(
    "diptych.verify.timestamp",
    "s",
    _PROJECTION,
    "When it was, in seconds since 1970.",
    stored=True,
)

METRICS: Final = (
    *(COMMAND_DURATION, COMMAND_RETRIES, COMMAND_WAITING),
    *(APPEND_DURATION, APPEND_SIZE, APPEND_EVENTS, LOG_HEAD, LOG_UP),
    *(QUERY_DURATION, QUERY_WAIT),
    *(PROJECTION_EVENTS, PROJECTION_EFFECTS, PROJECTION_STEP, PROJECTION_LOST),
    *(PROJECTION_FAILURES, PROJECTION_LATENCY),
    *(PROJECTION_POSITION, PROJECTION_LAG, PROJECTION_LAG_AGE, PROJECTION_STATE),
    *(PROJECTION_PARKED, REBUILD_DONE, REBUILD_REMAINING),
    *(FRESHNESS_EFFECTS, FRESHNESS_OBJECTIVE, FRESHNESS_TARGET, FRESHNESS_MET, FRESHNESS_BURN),
    *(VERIFY_COMPLETE, VERIFY_POSITION, VERIFY_TIME),
)

# --- spans ----------------------------------------------------------------------------------------

_IDS: Final = ("diptych.correlation_id", "diptych.causation_id")

COMMAND_SPAN: Final = Span(
    "command {}",
    ("diptych.command", "diptych.command_id", *_IDS, "diptych.outcome"),
    "",
    "A command, from its arrival to its answer; a child of the caller's span.",
)
APPEND_SPAN: Final = Span(
    "append",
    ("diptych.commands", "diptych.outcome"),
    "the spans of its commands",
    "One durable transaction of the writer.",
)
PROJECTION_SPAN: Final = Span(
    "project {}",
    ("diptych.projection", "diptych.position", "diptych.events", "diptych.correlation_ids"),
    "the spans of the commands whose events it applied (of the last 32 that were traced)",
    "A step of a projection, from its transaction's beginning to its end, in whatever process.",
)
QUERY_SPAN: Final = Span(
    "query {}",
    ("diptych.query", "diptych.outcome"),
    "",
    "A query, from its arrival to its answer; a child of the caller's span.",
)
SPANS: Final = (COMMAND_SPAN, APPEND_SPAN, PROJECTION_SPAN, QUERY_SPAN)
