"""Metrics as Prometheus reads them: the text format 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from diptych.telemetry.metrics import Family, Histogram, Telemetry

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def exposition(telemetry: Telemetry) -> str:
    """Return all metrics that have a value, as text in Prometheus' format 0.0.4."""
    return "".join(line + "\n" for family in telemetry for line in _lines(family))


def _lines(family: Family[Any]) -> Iterator[str]:
    if not family:
        return
    metric = family.metric
    name = metric.exposed
    about = metric.about.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {metric.kind}"
    # A copy: another thread may ask while the loop's thread adds a series.
    for labels, series in sorted(family.copy().items()):
        pairs = [
            f'{key}="{_escaped(value)}"'
            for key, value in zip(metric.attributes, labels, strict=True)
        ]
        if isinstance(series, Histogram):
            yield from _histogram(name, pairs, series)
        else:
            yield f"{name}{_braces(pairs)} {_number(series.value)}"


def _histogram(name: str, pairs: list[str], series: Histogram) -> Iterator[str]:
    below = 0
    counts = series.counts.copy()
    for bound, count in zip((*series.bounds, float("inf")), counts, strict=True):
        below += count
        within = _braces([*pairs, f'le="{_number(bound)}"'])
        yield f"{name}_bucket{within} {below}"
    yield f"{name}_sum{_braces(pairs)} {_number(series.sum)}"
    yield f"{name}_count{_braces(pairs)} {below}"


def _braces(pairs: list[str]) -> str:
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)
