"""The figures of one application: counters, gauges and histograms, plain numbers in memory.

They are changed on one event loop and may be read by any thread. An update costs some tenths of a
microsecond, so they are always kept; nothing else happens until somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from msgspec import Struct

from diptych.telemetry.declared import METRICS, Kind, Metric

if TYPE_CHECKING:
    from diptych.telemetry.otel import Tracing

Labels = tuple[str, ...]
"""The values of a metric's attributes, in their order."""


class Number:
    """A counter or a gauge: change ``value``."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Histogram:
    """How many values fell into each bucket. The last bucket has no upper bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def spread(self, low: float, high: float, times: int) -> None:
        """Count so many values, which lie evenly between two."""
        self.sum += times * (low + high) / 2
        first, last = bisect_left(self.bounds, low), bisect_left(self.bounds, high)
        counted = 0
        for index in range(first, last):
            upto = round(times * (self.bounds[index] - low) / (high - low))
            self.counts[index] += upto - counted
            counted = upto
        self.counts[last] += times - counted

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


S = TypeVar("S")


class Family(dict[Labels, S], Generic[S]):
    """A metric's series by their labels; one that is asked for is made."""

    def __init__(self, metric: Metric, make: Callable[[Labels], S]) -> None:
        super().__init__()
        self.metric = metric
        self._make = make

    def __missing__(self, labels: Labels) -> S:
        series = self[labels] = self._make(labels)
        return series


HistogramMaker = Callable[[Metric], Callable[[Labels], Histogram]]


def plain(metric: Metric) -> Callable[[Labels], Histogram]:
    """Return the function that makes a metric's histograms."""
    return lambda _labels: Histogram(metric.buckets)


class Telemetry:
    """All metrics of one application; ``tracing`` makes its spans, where anybody wants them.

    ``observed``: somebody reads the figures without asking the application first, so that it has to
    look from time to time where its projections are. ``closed``: there is nothing to read any more.
    """

    def __init__(
        self,
        make: HistogramMaker = plain,
        tracing: Tracing | None = None,
        *,
        observed: bool = False,
    ) -> None:
        self.tracing = tracing
        self.observed = observed
        self.closed = False
        self._families: dict[str, Family[Any]] = {
            metric.name: Family(
                metric, make(metric) if metric.kind == "histogram" else lambda _labels: Number()
            )
            for metric in METRICS
        }

    def number(self, metric: Metric) -> Family[Number]:
        """Return the series of a counter or gauge."""
        assert metric.kind != "histogram"
        return cast("Family[Number]", self._families[metric.name])

    def histogram(self, metric: Metric) -> Family[Histogram]:
        """Return the series of a histogram."""
        assert metric.kind == "histogram"
        return cast("Family[Histogram]", self._families[metric.name])

    def __iter__(self) -> Iterator[Family[Any]]:
        return iter(self._families.values())


class Reading(Struct, frozen=True):
    """A series as it is now; of a histogram ``value`` is the sum of its ``count`` values.

    ``buckets`` says how many values lay at or below each bound.
    """

    name: str
    kind: Kind
    unit: str
    attributes: dict[str, str]
    value: float
    count: int | None = None
    buckets: dict[str, int] | None = None


def readings(telemetry: Telemetry, *, stored: bool = False) -> list[Reading]:
    """Return all series as they are now; ``stored``: of the metrics that any process can tell."""
    found: list[Reading] = []
    for family in telemetry:
        metric = family.metric
        if stored and not metric.stored:
            continue
        about = (metric.exposed, metric.kind, metric.unit)
        # A copy: another thread may ask while the loop's thread adds a series.
        for labels, series in sorted(family.copy().items()):
            attributes = dict(zip(metric.attributes, labels, strict=True))
            if isinstance(series, Histogram):
                bounds = [*map(plain_number, series.bounds), "+Inf"]
                buckets = dict(zip(bounds, accumulate(series.counts), strict=True))
                count = buckets["+Inf"]
                found.append(Reading(*about, attributes, series.sum, count, buckets))
            else:
                found.append(Reading(*about, attributes, series.value))
    return found


def plain_number(value: float) -> str:
    """Return a number as text, whole ones without a fraction."""
    return str(int(value)) if value == int(value) else repr(value)
