"""Freshness: how soon events can be read, and how a projection keeps what it promised."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from diptych.errors import DefinitionError
from diptych.log import StoredEvent
from diptych.logs.memory import MemoryLog
from diptych.read.freshness import Freshness, ReadMeasures, Window
from diptych.read.port import Change, Checkpoint
from diptych.read.projections import Projection, handler, projection
from diptych.telemetry import declared
from diptych.telemetry.declared import Metric
from diptych.telemetry.metrics import Histogram, Telemetry
from tests.read.world import (
    START,
    Journal,
    Noted,
    Order,
    Placed,
    World,
    journal,
    new_event,
    order,
    orders,
    placed,
)

pytestmark = [pytest.mark.filterwarnings("ignore::diptych.errors.SqliteVersionWarning")]

NOW = START.timestamp()
ALL = range(64)


class Clock:
    """The time of day, as the test says."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Told:
    """What measures of one projection, `order`, say about steps made up here."""

    def __init__(self, within: float | None = 2.0, share: float = 0.99) -> None:
        self.clock = Clock()
        self.telemetry = Telemetry()
        one = projection(order, Order, fresh_within=within, fresh_share=share)
        self.measures = ReadMeasures(self.telemetry, [one], clock=self.clock)
        self.position = 1000

    def step(self, *ages: float, unused: int = 0, keys: int = 1, span: range = ALL) -> None:
        """Apply events of these ages to so many keys each, and pass over others."""
        first, slices, now = span.start, len(span), self.clock.now
        before = Checkpoint("order", "log", self.position, slice=first, slices=slices)
        used = [(stored(self.position + n, now, age), None, 0) for n, age in enumerate(ages, 1)]
        self.position += len(ages) + unused
        count = keys * len(ages)
        after = Checkpoint("order", "log", self.position, count=count, slice=first, slices=slices)
        self.measures.applied(self.measures.noted(Change(before, after, {}), used), 0.01)

    def kept(self) -> Freshness:
        found = self.measures.freshness("order")
        assert found is not None
        return found

    def number(self, metric: Metric, *more: str) -> float:
        return self.telemetry.number(metric)["order", *more].value

    def histogram(self, metric: Metric) -> Histogram:
        return self.telemetry.histogram(metric)["order",]


def stored(position: int, now: float, age: float) -> StoredEvent:
    time = START + timedelta(seconds=now - NOW - age)
    new = new_event(placed(position)[0], time)
    return StoredEvent(position, new.id, new.type, new.tags, Raw(new.data), Raw(new.metadata))


def test_events_effects_steps_and_latencies_are_counted() -> None:
    told = Told()
    told.step(0.3, keys=2)
    told.step(0.02, 0.02, 0.02, keys=2)
    told.step(unused=5)
    assert told.number(declared.PROJECTION_EVENTS) == 4
    assert told.number(declared.PROJECTION_EFFECTS) == 8
    assert told.histogram(declared.PROJECTION_STEP).count == 3
    latency = told.histogram(declared.PROJECTION_LATENCY)
    assert latency.count == 8
    assert latency.sum == pytest.approx(0.72)


def test_an_effect_is_in_time_within_the_promise_and_missed_after_it() -> None:
    told = Told(within=2.0)
    told.step(1.9)
    told.step(2.1)
    assert told.number(declared.FRESHNESS_EFFECTS, "met") == 1
    assert told.number(declared.FRESHNESS_EFFECTS, "missed") == 1
    found = told.kept()
    assert (found.within, found.share, found.met, found.effects) == (2.0, 0.99, 0.5, 2)


def test_the_events_of_a_long_step_lie_evenly_between_the_first_and_the_last() -> None:
    """A worker that was away has old events and new ones in one page: not all are as the last."""
    told = Told(within=2.0)
    told.step(*[8.0 - n / 25 for n in range(200)])
    missed = told.number(declared.FRESHNESS_EFFECTS, "missed")
    assert missed == pytest.approx(150, abs=2)
    assert told.number(declared.FRESHNESS_EFFECTS, "met") == 200 - missed
    latency = told.histogram(declared.PROJECTION_LATENCY)
    below = sum(n for bound, n in zip(latency.bounds, latency.counts, strict=False) if bound <= 1)
    assert below == pytest.approx(25, abs=2)


def test_the_burn_rate_is_1_when_as_many_are_late_as_may_be() -> None:
    told = Told(within=2.0, share=0.9)
    told.step(*[1.0] * 90)
    told.step(*[3.0] * 10)
    found = told.kept()
    assert found.burn_1h == pytest.approx(1.0)
    assert found.burn_5m == pytest.approx(1.0)


def test_the_windows_of_burn_rates_forget() -> None:
    told = Told(within=2.0, share=0.99)
    told.step(3.0)
    told.clock.now += 600
    found = told.kept()
    assert (found.burn_5m, found.met) == (None, 0.0)
    assert found.burn_1h == pytest.approx(100.0)
    told.step(1.0)
    found = told.kept()
    assert (found.burn_5m, found.met) == (0.0, 0.5)
    assert found.burn_1h == pytest.approx(50.0)
    told.clock.now += 3600
    found = told.kept()
    assert (found.burn_5m, found.burn_1h, found.met, found.effects) == (None, None, None, 0)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 9), st.integers(0, 9)), max_size=40))
def test_a_window_holds_just_its_minutes(added: list[tuple[int, int, int]]) -> None:
    """The same as keeping every minute for ever."""
    window, at, kept = Window(), 0, list[tuple[int, int, int]]()
    for later, met, missed in added:
        at += later
        window.add(met, missed, at)
        kept.append((at // 60, met, missed))
    for minutes in (1, 5, 60):
        within = [(met, missed) for m, met, missed in kept if m > at // 60 - minutes]
        expected = (sum(met for met, _ in within), sum(missed for _, missed in within))
        assert window.counts(minutes, at) == expected


def test_a_window_leaves_out_what_the_clock_has_not_come_to() -> None:
    """The clock was a year ahead, and was set right: that year's minutes are not this hour's."""
    window = Window()
    window.add(1, 0, 600)
    window.add(0, 9, 31_536_060)
    window.add(2, 0, 660)
    assert window.counts(60, 660) == (3, 0)
    assert window.counts(5, 660) == (3, 0)


def test_building_from_nothing_is_not_being_late() -> None:
    """What happened long before there was such a view does not count, until it has caught up."""
    told = Told()
    told.position = 0
    told.step(86_400.0)
    told.step(3_600.0)
    assert told.histogram(declared.PROJECTION_LATENCY).count == 0
    assert told.number(declared.PROJECTION_EVENTS) == 2
    told.step(0.5)
    told.step(7.0)
    assert told.histogram(declared.PROJECTION_LATENCY).count == 2
    assert told.number(declared.FRESHNESS_EFFECTS, "missed") == 1


def test_each_slice_is_built_by_itself() -> None:
    """One that has caught up does not make those that have not look late."""
    told = Told()
    told.position = 0
    told.step(86_400.0, span=range(64))
    told.step(0.5, span=range(32))
    told.step(3_600.0, span=range(32, 48))
    told.step(3_600.0, span=range(48, 64))
    assert told.number(declared.FRESHNESS_EFFECTS, "missed") == 0
    told.step(3_600.0, span=range(16))
    assert told.number(declared.FRESHNESS_EFFECTS, "missed") == 1


def test_events_for_keys_of_other_workers_do_not_count() -> None:
    """Each effect is counted once, by the process that makes it readable."""
    told = Told()
    told.step(3.0, 3.0, keys=0)
    assert told.number(declared.PROJECTION_EVENTS) == 2
    assert told.histogram(declared.PROJECTION_LATENCY).count == 0
    assert told.number(declared.FRESHNESS_EFFECTS, "missed") == 0


def test_a_clock_that_is_behind_does_not_give_latencies_below_0() -> None:
    told = Told()
    told.step(-5.0)
    latency = told.histogram(declared.PROJECTION_LATENCY)
    assert (latency.count, latency.sum) == (1, 0.0)


def test_a_projection_without_a_promise_has_latencies_only() -> None:
    told = Told(within=None)
    told.step(9.0)
    assert told.measures.freshness("order") is None
    assert told.histogram(declared.PROJECTION_LATENCY).count == 1
    assert not told.telemetry.number(declared.FRESHNESS_EFFECTS)
    assert not told.telemetry.number(declared.FRESHNESS_OBJECTIVE)


def test_parked_keys_and_rebuilds_are_gauges() -> None:
    told = Told()
    told.measures.parked("order", 3)
    told.measures.rebuilding("order", 70, 30)
    assert told.number(declared.PROJECTION_PARKED) == 3
    assert told.number(declared.REBUILD_DONE) == 70
    assert told.number(declared.REBUILD_REMAINING) == 30


@pytest.mark.parametrize("within", [0, -1.0, float("inf"), float("nan"), "2", True])
def test_a_promise_is_a_number_of_seconds(within: float) -> None:
    with pytest.raises(DefinitionError, match="fresh_within="):
        projection(order, Order, fresh_within=within)
    with pytest.raises(DefinitionError, match="fresh_within="):
        handler(journal, Journal, fresh_within=within)


@pytest.mark.parametrize("share", [0, 1, 99, None, "0.9"])
def test_the_share_lies_between_0_and_1(share: float) -> None:
    with pytest.raises(DefinitionError, match="fresh_share="):
        projection(order, Order, fresh_within=1.0, fresh_share=share)


def test_an_inline_projection_promises_nothing() -> None:
    """It has no time of its own: its rows are there with the events."""
    with pytest.raises(DefinitionError, match="as fresh as the log"):
        projection(order, Order, inline=True, fresh_within=1.0)


# --- told by the engine ---------------------------------------------------------------------------


def promised() -> list[Projection]:
    return [
        projection(order, Order, fresh_within=2.0),
        handler(journal, Journal, fresh_within=5.0),
    ]


def figures(world: World, metric: Metric) -> dict[str, float]:
    """The counters of each projection."""
    return {labels[0]: one.value for labels, one in world.telemetry.number(metric).items()}


def latencies(world: World) -> dict[str, int]:
    family = world.telemetry.histogram(declared.PROJECTION_LATENCY)
    return {labels[0]: one.count for labels, one in family.items()}


@pytest.mark.usefixtures("backend")
async def test_the_engine_tells_folds_and_handlers_alike() -> None:
    async with World(promised()) as world:
        await world.append(*placed(1, 2), Noted("a"))
        await world.engine.catch_up()
        await world.append(Noted("b"), *placed(3), age=3.0)
        await world.engine.catch_up()
        assert figures(world, declared.PROJECTION_EVENTS) == {"order": 3, "journal": 2}
        assert latencies(world) == {"order": 3, "journal": 2}
        kept = {one.projection: one.freshness for one in await world.engine.status()}
        assert kept["order"] is not None
        assert kept["journal"] is not None
        assert kept["order"].met == pytest.approx(2 / 3)
        assert kept["order"].effects == 3
        assert (kept["journal"].met, kept["journal"].effects) == (1.0, 2)


@pytest.mark.usefixtures("backend")
async def test_events_that_a_projection_does_not_use_are_not_counted() -> None:
    async with World([orders()]) as world:
        await world.append(*[Noted("x")] * 10, *placed(1), *[Noted("y")] * 10)
        await world.engine.catch_up()
        assert figures(world, declared.PROJECTION_EVENTS) == {"order": 1}
        assert latencies(world) == {"order": 1}


@pytest.mark.usefixtures("backend")
async def test_failures_and_parked_keys_are_counted() -> None:
    def failing(row: Order | None, event: Placed) -> Order | None:
        if event.order == "o2":
            raise ValueError("poison")
        return order(row, event)

    async with World([projection(failing, Order)]) as world:
        await world.append(*placed(1, 2, 3))
        await world.engine.catch_up()
        assert figures(world, declared.PROJECTION_FAILURES) == {"order": 1}
        assert figures(world, declared.PROJECTION_EVENTS) == {"order": 2}
        await world.engine.status()
        assert figures(world, declared.PROJECTION_PARKED) == {"order": 1}


@pytest.mark.usefixtures("backend")
async def test_a_step_that_another_worker_made_first_is_counted_as_lost(tmp_path: Path) -> None:
    """And not as applied: the events of two workers together are those of the log."""
    log = MemoryLog()
    views = tmp_path / "views.db"
    async with (
        World(promised(), path=views, log=log) as one,
        World(promised(), path=views, log=log) as other,
    ):
        await one.append(*placed(1, 2), Noted("a"))
        await one.engine.catch_up()
        await other.engine.catch_up()
        assert figures(one, declared.PROJECTION_LOST) == {"order": 0, "journal": 0}
        assert figures(other, declared.PROJECTION_LOST) == {"order": 1, "journal": 1}
        assert figures(other, declared.PROJECTION_EVENTS) == {"order": 0, "journal": 0}


@pytest.mark.usefixtures("backend")
async def test_a_fold_that_failed_on_rows_of_yesterday_is_lost_not_failed(tmp_path: Path) -> None:
    """Another worker is further: what this one folded were not the rows that there are."""
    log, views, broken = MemoryLog(), tmp_path / "views.db", False

    def fold(row: Order | None, event: Placed) -> Order | None:
        if broken:
            raise ValueError("these are old rows")
        return order(row, event)

    one = projection(fold, Order)
    async with (
        World([one], path=views, log=log) as first,
        World([one], path=views, log=log) as other,
    ):
        await first.append(*placed(1))
        await first.engine.catch_up()
        broken = True
        await other.engine.catch_up()
        assert figures(other, declared.PROJECTION_LOST) == {"order": 1}
        assert figures(other, declared.PROJECTION_FAILURES) == {"order": 0}
