"""Metrics: declared as data, kept as plain numbers, read by Prometheus."""

import re
import subprocess
import sys
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from diptych.telemetry import attach, declared
from diptych.telemetry.declared import METRICS, SPANS
from diptych.telemetry.metrics import Histogram, Telemetry, readings
from diptych.telemetry.prometheus import exposition

UNITS = {"s": "_seconds", "1": "_ratio"}


def test_every_metric_and_span_is_declared_once() -> None:
    known = [thing for thing in vars(declared).values() if isinstance(thing, declared.Metric)]
    assert len(known) >= 30
    assert set(METRICS) == set(known)
    for names in ([m.name for m in METRICS], [m.exposed for m in METRICS], [s.name for s in SPANS]):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric: declared.Metric) -> None:
    """OpenTelemetry: dots, lower case. Prometheus: base units and `_total` as the last word."""
    assert re.fullmatch(r"diptych(\.[a-z][a-z_]*)+", metric.name)
    assert re.fullmatch(r"s|1|\{[a-z]+\}|", metric.unit)
    assert metric.exposed.endswith("_total") == (metric.kind == "counter")
    assert metric.exposed.removesuffix("_total").endswith(UNITS.get(metric.unit, ""))
    assert not metric.exposed.endswith(("_count", "_sum", "_bucket", "_info"))
    assert all(re.fullmatch(r"[a-z]+", attribute) for attribute in metric.attributes)
    assert "le" not in metric.attributes
    assert metric.about.endswith(".")
    assert metric.buckets == tuple(sorted(set(metric.buckets)))
    assert bool(metric.buckets) == (metric.kind == "histogram")


def test_a_bucket_holds_what_is_at_most_its_bound() -> None:
    found = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5, 100.0):
        found.observe(value)
    assert (found.counts, found.sum, found.count) == ([2, 2, 2], 107.5, 6)


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=8, unique=True),
    st.floats(0, 120),
    st.floats(0, 120),
    st.integers(1, 2000),
)
def test_values_spread_between_two_fall_where_each_would(
    bounds: list[int], one: float, other: float, times: int
) -> None:
    """Counted one by one, no bucket has more than one value more or less."""
    low, high = min(one, other), max(one, other)
    limits = tuple(map(float, sorted(bounds)))
    spread, single = Histogram(limits), [0] * (len(limits) + 1)
    spread.spread(low, high, times)
    for number in range(times):
        single[bisect_left(limits, low + (high - low) * (number + 0.5) / times)] += 1
    assert spread.count == times
    assert all(abs(a - b) <= 1 for a, b in zip(spread.counts, single, strict=True))
    assert spread.sum == pytest.approx(times * (low + high) / 2)


def filled() -> Telemetry:
    """Telemetry with a value for every metric, and with labels that need care."""
    found = Telemetry()
    for number, metric in enumerate(METRICS, 1):
        for label in ("plain", 'a "quoted" \\ one\nof two lines', "ünïcode"):
            labels = tuple(label for _ in metric.attributes)
            if metric.kind == "histogram":
                found.histogram(metric)[labels].observe(number)
                found.histogram(metric)[labels].observe(0.0001)
            else:
                found.number(metric)[labels].value = number + 0.25
    return found


def test_prometheus_reads_what_is_exposed() -> None:
    """Its own parser finds every metric, type, label and value."""
    telemetry = filled()
    families = {f.name: f for f in text_string_to_metric_families(exposition(telemetry))}
    assert len(families) == len(METRICS)
    for metric in METRICS:
        family = families[metric.exposed.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.about)
    samples = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in families.values()
        for s in family.samples
    }
    for one in readings(telemetry):
        at = tuple(sorted(one.attributes.items()))
        if one.buckets is None:
            assert samples.pop((one.name, at)) == one.value
            continue
        assert samples.pop((f"{one.name}_sum", at)) == one.value
        assert samples.pop((f"{one.name}_count", at)) == one.count == one.buckets["+Inf"]
        for bound, below in one.buckets.items():
            within = tuple(sorted({**one.attributes, "le": bound}.items()))
            assert samples.pop((f"{one.name}_bucket", within)) == below
    assert not samples


def test_what_only_the_working_process_knows_can_be_left_out() -> None:
    names = {one.name for one in readings(filled(), stored=True)}
    assert names == {metric.exposed for metric in METRICS if metric.stored}
    assert "diptych_projection_lag_events" in names
    assert "diptych_command_duration_seconds" not in names


def test_without_a_provider_nothing_is_traced_and_nothing_of_opentelemetry_imported() -> None:
    program = (
        "import sys; from diptych.telemetry import attach; found = attach('shop'); "
        "assert found.tracing is None and not found.observed; "
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()


def test_the_api_of_opentelemetry_alone_is_no_provider() -> None:
    """A program that has imported it, but set nothing up, pays nothing."""
    import opentelemetry.metrics
    import opentelemetry.trace

    assert opentelemetry.trace is not None
    assert opentelemetry.metrics is not None
    found = attach("shop")
    assert found.tracing is None
    assert not found.observed
