"""Metrics as Prometheus reads them: the text format 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Final

from diptych.telemetry.declared import METRICS
from diptych.telemetry.metrics import Reading, Telemetry, plain_number, readings

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_ABOUT: Final = {metric.exposed: metric.about for metric in METRICS}


def exposition(telemetry: Telemetry, *, stored: bool = False) -> str:
    """Return all metrics that have a value, as text in Prometheus' format 0.0.4.

    ``stored``: only those that any process can tell.
    """
    lines: list[str] = []
    for name, series in groupby(readings(telemetry, stored=stored), lambda reading: reading.name):
        found = list(series)
        lines.append(f"# HELP {name} {_escaped(_ABOUT[name])}")
        lines.append(f"# TYPE {name} {found[0].kind}")
        lines += [line for reading in found for line in _samples(reading)]
    return "".join(line + "\n" for line in lines)


def _samples(reading: Reading) -> Iterator[str]:
    name, labels = reading.name, reading.attributes
    if reading.buckets is None:
        yield f"{name}{_braces(labels)} {plain_number(reading.value)}"
        return
    for bound, below in reading.buckets.items():
        yield f"{name}_bucket{_braces({**labels, 'le': bound})} {below}"
    yield f"{name}_sum{_braces(labels)} {plain_number(reading.value)}"
    yield f"{name}_count{_braces(labels)} {reading.count}"


def _braces(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = [f'{key}="{_quoted(value)}"' for key, value in labels.items()]
    return "{" + ",".join(pairs) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', r"\"")
