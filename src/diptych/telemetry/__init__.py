"""What an application measures of itself: spans and metrics, declared once as data.

`declared` says what there is, `metrics` holds the figures, `prometheus` renders them as text, and
`otel` hands spans and figures to OpenTelemetry, where the program has set it up.
"""

from __future__ import annotations

import sys
from typing import Any

from diptych.telemetry.metrics import Telemetry


def attach(application: str) -> Telemetry:
    """Return an application's telemetry, handed to the providers of OpenTelemetry that are set.

    Without any there are no spans at all, and nothing of OpenTelemetry is imported.
    """
    trace, metrics = (sys.modules.get(f"opentelemetry.{name}") for name in ("trace", "metrics"))
    tracers: Any = None if trace is None else trace.get_tracer_provider()
    meters: Any = None if metrics is None else metrics.get_meter_provider()
    if not (_works(tracers) or _works(meters)):
        return Telemetry()
    from diptych.telemetry.otel import telemetry

    return telemetry(
        application,
        tracers if _works(tracers) else None,
        meters if _works(meters) else None,
    )


def _works(provider: Any) -> bool:
    """Whether a provider does anything: those of the API itself only stand in for one."""
    return provider is not None and not type(provider).__module__.startswith(
        ("opentelemetry.trace", "opentelemetry.metrics")
    )
