"""Spans and figures for OpenTelemetry. Imported only where the program has set a provider."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

import msgspec
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    TracerProvider,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from diptych.telemetry.declared import (
    APPEND_SPAN,
    COMMAND_SPAN,
    METRICS,
    PROJECTION_SPAN,
    QUERY_SPAN,
    Metric,
)
from diptych.telemetry.metrics import Histogram, Labels, Number, Telemetry

SCOPE: Final = "diptych"
T = TypeVar("T")

_propagator = TraceContextTextMapPropagator()


def telemetry(
    application: str, tracers: TracerProvider | None, meters: MeterProvider | None
) -> Telemetry:
    """Return telemetry that makes spans by one provider, and reports its figures to the other."""
    scope = {"diptych.application": application}
    tracing = None if tracers is None else Tracing(tracers.get_tracer(SCOPE, attributes=scope))
    if meters is None:
        return Telemetry(tracing=tracing)
    meter = meters.get_meter(SCOPE, attributes=scope)
    found = Telemetry(lambda metric: _recording(meter, metric), tracing, observed=True)
    for metric in METRICS:
        if metric.kind != "histogram":
            _observed(meter, metric, found)
    return found


# --- metrics --------------------------------------------------------------------------------------


class _Recording(Histogram):
    """A histogram that OpenTelemetry has too: it cannot be read from ours."""

    __slots__ = ("_record",)

    def __init__(self, bounds: tuple[float, ...], record: Callable[[float], None]) -> None:
        super().__init__(bounds)
        self._record = record

    def observe(self, value: float) -> None:
        super().observe(value)
        self._record(value)

    def spread(self, low: float, high: float, times: int) -> None:
        super().spread(low, high, times)
        for number in range(times):
            self._record(low + (high - low) * (number + 0.5) / times)


def _recording(meter: Meter, metric: Metric) -> Callable[[Labels], Histogram]:
    theirs = meter.create_histogram(
        metric.name,
        metric.unit,
        metric.about,
        explicit_bucket_boundaries_advisory=metric.buckets,
    )

    def make(labels: Labels) -> Histogram:
        attributes = dict(zip(metric.attributes, labels, strict=True))
        return _Recording(metric.buckets, lambda value: theirs.record(value, attributes))

    return make


def _observed(meter: Meter, metric: Metric, ours: Telemetry) -> None:
    """Let a counter or gauge be read when OpenTelemetry collects."""
    family = ours.number(metric)

    def read(_options: CallbackOptions) -> Iterable[Observation]:
        series: dict[Labels, Number] = {} if ours.closed else family.copy()
        for labels, number in series.items():
            yield Observation(number.value, dict(zip(metric.attributes, labels, strict=True)))

    create = (
        meter.create_observable_counter
        if metric.kind == "counter"
        else meter.create_observable_gauge
    )
    create(metric.name, [read], metric.unit, metric.about)


# --- spans ----------------------------------------------------------------------------------------


class Tracing:
    """Makes the spans that `declared` lists."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def command(self, name: str, metadata: T) -> tuple[Span, T]:
        """Begin a command's span; its events' metadata then carry it across to the read side."""
        given: Any = metadata
        attributes = {
            "diptych.command": name,
            "diptych.command_id": given.command_id,
            "diptych.correlation_id": given.correlation_id,
        }
        if given.causation_id is not None:
            attributes["diptych.causation_id"] = given.causation_id
        span = self._tracer.start_span(COMMAND_SPAN.name.format(name), attributes=attributes)
        if span.get_span_context().trace_flags.sampled:
            given = msgspec.structs.replace(given, traceparent=_traceparent(span))
        return span, given

    def append(self, commands: Sequence[Span | None]) -> Span:
        """Begin the span of a writer's transaction."""
        return self._tracer.start_span(
            APPEND_SPAN.name,
            # Whatever is current here is the command that happened to wake the writer.
            context=Context(),
            links=[Link(span.get_span_context()) for span in commands if span is not None],
            attributes={"diptych.commands": len(commands)},
        )

    @staticmethod
    def end(span: Span, outcome: str, fine: bool) -> None:
        """End a span."""
        span.set_attribute("diptych.outcome", outcome)
        if not fine:
            span.set_status(StatusCode.ERROR, outcome)
        span.end()

    def project(
        self,
        name: str,
        *,
        position: int,
        events: int,
        seconds: float,
        origins: Sequence[tuple[str, str]],
    ) -> None:
        """Make the span of a step that has taken so many seconds, up to now.

        ``origins`` are traceparent and correlation id of the commands behind its events.
        """
        now = time.time_ns()
        span = self._tracer.start_span(
            PROJECTION_SPAN.name.format(name),
            context=Context(),
            kind=SpanKind.CONSUMER,
            links=_links(dict.fromkeys(traceparent for traceparent, _ in origins)),
            attributes={
                "diptych.projection": name,
                "diptych.position": position,
                "diptych.events": events,
                "diptych.correlation_ids": list(dict.fromkeys(each for _, each in origins)),
            },
            start_time=now - int(seconds * 1e9),
        )
        span.end(end_time=now)

    def query(self, name: str) -> AbstractContextManager[Span]:
        """Begin a query's span, and have it be the current one."""
        return self._tracer.start_as_current_span(
            QUERY_SPAN.name.format(name),
            attributes={"diptych.query": name},
            record_exception=False,
            set_status_on_exception=False,
            end_on_exit=False,
        )


def _traceparent(span: Span) -> str:

    carrier: dict[str, str] = {}
    _propagator.inject(carrier, set_span_in_context(span))
    return carrier["traceparent"]


def _links(traceparents: Iterable[str]) -> list[Link]:

    contexts = [
        get_current_span(_propagator.extract({"traceparent": each})).get_span_context()
        for each in traceparents
    ]
    return [Link(context) for context in contexts if context.is_valid]
