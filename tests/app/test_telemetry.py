"""What an open application measures, and what OpenTelemetry gets of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import opentelemetry.metrics
import opentelemetry.trace
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from prometheus_client.parser import text_string_to_metric_families

from diptych import (
    App,
    Command,
    Event,
    Invalid,
    Key,
    Limits,
    Overloaded,
    Query,
    Rejected,
    Running,
    Tag,
    View,
    Views,
    select,
)
from diptych.app import measuring
from diptych.errors import DecisionFailed, KeyReused, StaleAnswer, UnknownMessage
from diptych.read.freshness import Freshness
from diptych.read.status import SpanStatus, Status
from diptych.telemetry import declared
from diptych.telemetry.declared import COMMAND_DURATION, METRICS, SPANS
from diptych.telemetry.metrics import Telemetry

OrderId = Annotated[str, Tag("order")]


class Place(Command):
    order: OrderId
    items: int = 1


class Unheard(Command):
    pass


class Placed(Event):
    order: OrderId
    item: int


class Orders(View):
    order: Key[str]
    items: int


class All(Query[list[Orders]]):
    pass


class Broken(Query[int]):
    pass


def make_app() -> App:
    app = App("shop")

    @app.model(0)
    def placed(state: int, event: Placed) -> int:
        return state + 1

    @app.decides
    def place(command: Place, placed: int) -> Iterator[Placed]:
        if placed:
            raise Rejected("order already placed")
        if command.items < 0:
            raise ValueError("a fault")
        yield from (Placed(command.order, n) for n in range(command.items))

    @app.projects(Orders, fresh_within=60.0, fresh_share=0.95)
    def orders(row: Orders | None, event: Placed) -> Orders:
        return Orders(event.order, 1 + (row.items if row else 0))

    @app.answers
    async def everything(query: All, views: Views) -> list[Orders]:
        return await views.all(select(Orders))

    @app.answers
    def broken(query: Broken) -> int:
        raise RuntimeError("a fault")

    return app


async def samples(running: Running) -> Callable[..., float | None]:
    """Return the function from a sample's name and labels to its value; None: there is none."""
    found: dict[Any, float] = {}
    for family in text_string_to_metric_families(await running.metrics()):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value

    def value(name: str, **labels: str) -> float | None:
        return found.get((name, frozenset(labels.items())))

    return value


# --- what is counted ------------------------------------------------------------------------------


async def test_every_outcome_of_a_command_is_counted_by_its_name() -> None:
    async with make_app().open(log="memory:", views="memory:") as shop:
        await shop.do(Place("1"), key="k")
        await shop.do(Place("1"), key="k")
        await shop.do(Place("2", 0))
        wrong: Any = "many"
        for command, key, error in (
            (Place("1"), None, Rejected),
            (Place("9"), "k", KeyReused),
            (Place("3", -1), None, DecisionFailed),
            (Place("3", wrong), None, Invalid),
            (Unheard(), None, UnknownMessage),
        ):
            with pytest.raises(error):
                await shop.do(command, key=key)
        value = await samples(shop)
        name = "diptych_command_duration_seconds_count"
        for outcome in (
            *("appended", "replayed", "unchanged", "rejected", "key-reused"),
            *("decision-failed", "invalid"),
        ):
            assert value(name, command="Place", outcome=outcome) == 1, outcome
        assert value(name, command="Unheard", outcome="unknown-message") == 1
        assert value("diptych_append_events_total") == 1


async def test_commands_that_wait_or_are_too_many_are_seen() -> None:
    limits = Limits(waiting=2)
    async with make_app().open(log="memory:", views="memory:", limits=limits) as shop:
        waiting = [shop.submit(Place("1")), shop.submit(Place("2"))]
        with pytest.raises(Overloaded):
            shop.submit(Place("3"))
        await asyncio.gather(*waiting)
        value = await samples(shop)
        name = "diptych_command_duration_seconds_count"
        assert value(name, command="Place", outcome="overloaded") == 1
        assert value("diptych_command_waiting") == 0


async def test_a_commands_way_through_the_writer_is_counted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    async with make_app().open(log=url, views=url) as shop:
        await asyncio.gather(*[shop.do(Place(str(n), 2)) for n in range(10)])
        value = await samples(shop)
        assert value("diptych_append_events_total") == 20
        assert value("diptych_append_size_sum") == 10
        batches = value("diptych_append_size_count")
        assert value("diptych_append_duration_seconds_count", outcome="committed") == batches
        assert value("diptych_log_head") == 20


async def test_a_conflict_is_counted_as_a_retry(tmp_path: Path) -> None:
    """Another process appends in between: the command is decided again."""
    url = f"sqlite:///{tmp_path}/shop.db"
    app = make_app()
    async with app.open(log=url, views=url) as one, app.open(log=url, views=url) as other:
        await one.do(Place("1", 0))  # its state is at hand from now on
        await other.do(Place("1"))
        with pytest.raises(Rejected):
            await one.do(Place("1"))
        value = await samples(one)
        assert value("diptych_command_retries_total", command="Place") == 1


async def test_queries_and_their_waits_are_counted() -> None:
    app = make_app()
    async with app.open(log="memory:", views="memory:") as shop:
        receipt = await shop.do(Place("1"))
        await shop.ask(All())
        await shop.ask(All(), after=receipt.token)
        with pytest.raises(RuntimeError):
            await shop.ask(Broken())
        value = await samples(shop)
        name = "diptych_query_duration_seconds_count"
        assert value(name, query="All", outcome="answered") == 2
        assert value(name, query="Broken", outcome="error") == 1
        name = "diptych_query_wait_duration_seconds_count"
        assert value(name, query="All", outcome="met") == 1
        assert value(name, query="All", outcome="stale") is None


async def test_stale_answers_are_told_apart() -> None:
    async with make_app().open(log="memory:", views="memory:", projections=False) as shop:
        receipt = await shop.do(Place("1"))
        assert (await shop.ask(All(), after=receipt.token, wait=0)).stale
        with pytest.raises(StaleAnswer):
            await shop.ask(All(), after=receipt.token, wait=0, strict=True)
        value = await samples(shop)
        name = "diptych_query_duration_seconds_count"
        assert value(name, query="All", outcome="stale") == 1
        assert value(name, query="All", outcome="stale-answer") == 1
        assert value("diptych_query_wait_duration_seconds_count", query="All", outcome="stale") == 2


async def test_lag_and_promise_of_each_projection_are_there() -> None:
    async with make_app().open(log="memory:", views="memory:", projections=False) as shop:
        await shop.do(Place("1", 3))
        value = await samples(shop)
        at = {"projection": "orders", "slices": "0-63"}
        assert value("diptych_projection_lag_events", **at) == 3
        assert value("diptych_projection_lag_age_seconds", **at) is not None
        assert value("diptych_freshness_met_ratio", projection="orders") is None
        await shop.catch_up()
        value = await samples(shop)
        assert value("diptych_projection_position", **at) == 3
        assert value("diptych_projection_lag_events", **at) == 0
        assert value("diptych_projection_lag_age_seconds", **at) == 0
        assert value("diptych_projection_state", projection="orders", state="running") == 1
        assert value("diptych_projection_state", projection="orders", state="failed") == 0
        assert value("diptych_freshness_objective_seconds", projection="orders") == 60
        assert value("diptych_freshness_target_ratio", projection="orders") == 0.95
        assert value("diptych_freshness_met_ratio", projection="orders") == 1
        assert value("diptych_freshness_burn", projection="orders", window="5m") == 0
        assert value("diptych_freshness_effects_total", projection="orders", outcome="met") == 3
        assert value("diptych_projection_latency_seconds_count", projection="orders") == 3


def test_a_share_that_nobody_knows_any_more_is_not_told_for_ever() -> None:
    """An hour after the last event there is no share, rather than that of an hour ago."""
    telemetry, burn = Telemetry(), declared.FRESHNESS_BURN
    for freshness, series in (
        (Freshness(2.0, 0.99, 1.0, 9, None, 0.5), {("orders", "1h")}),
        (Freshness(2.0, 0.99), set[tuple[str, str]]()),
    ):
        status = Status("orders", 9, 9, 0, 0.0, "running", freshness=freshness)
        measuring.note_status(telemetry, 9, [status])
        assert telemetry.number(burn).keys() == series
        assert len(telemetry.number(declared.FRESHNESS_MET)) == len(series)


def test_spans_that_were_cut_or_joined_are_told_no_more() -> None:
    """Workers come and go: yesterday's shares would look as if they stood still."""
    telemetry = Telemetry()
    for spans in (((0, 63),), ((0, 31), (32, 63)), ((0, 63),)):
        parts = tuple(SpanStatus(first, last, 9, 0, 0.0, 9) for first, last in spans)
        status = Status("orders", 9, 9, 0, 0.0, "running", spans=parts)
        measuring.note_status(telemetry, 9, [status])
        for metric in (declared.PROJECTION_POSITION, declared.PROJECTION_LAG_AGE):
            told = {labels[1] for labels in telemetry.number(metric)}
            assert told == {f"{first}-{last}" for first, last in spans}


async def test_what_verify_found_is_told_with_its_time(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    async with make_app().open(log=url, views=url) as shop:
        await shop.do(Place("1"))
        await shop.catch_up()
        assert (await samples(shop))("diptych_verify_complete", projection="orders") is None
        await shop.verify()
        value = await samples(shop)
        assert value("diptych_verify_complete", projection="orders") == 1
        assert value("diptych_verify_position", projection="orders") == 1
        first = value("diptych_verify_timestamp_seconds", projection="orders")
        assert first is not None
        assert first > 1.7e9
    async with make_app().open(log=url, views=url, projections=False) as other:
        value = await samples(other)
        assert value("diptych_verify_complete", projection="orders") == 1
        assert value("diptych_verify_timestamp_seconds", projection="orders") == first


async def test_a_difference_that_verify_found_is_a_0(tmp_path: Path) -> None:
    import sqlite3

    url = f"sqlite:///{tmp_path}/shop.db"
    async with make_app().open(log=url, views=url, projections=False) as shop:
        await shop.do(Place("1"))
        await shop.catch_up()
        database = sqlite3.connect(tmp_path / "shop.db")
        with database:
            database.execute("UPDATE diptych_blocks SET count = count + 1")
            database.execute("UPDATE diptych_checkpoints SET count = count + 1")
        database.close()
        assert not (await shop.verify())[0].ok
        assert (await samples(shop))("diptych_verify_complete", projection="orders") == 0


def test_the_synchronous_facade_tells_the_same() -> None:
    with make_app().open_blocking(log="memory:", views="memory:") as shop:
        shop.do(Place("1"))
        assert "diptych_append_events_total 1\n" in shop.metrics()


# --- OpenTelemetry --------------------------------------------------------------------------------


class Traced:
    """A provider of tracers that the program has set, and what it got."""

    def __init__(self, patch: pytest.MonkeyPatch, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        patch.setattr(opentelemetry.trace, "get_tracer_provider", lambda: self.provider)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        (found,) = self.spans(name)
        return found


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def linked(span: ReadableSpan) -> set[int]:
    return {link.context.span_id for link in span.links}


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    found: int = span.context.span_id
    return found


async def test_spans_lead_from_the_command_to_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """The append and the projection's step link to the commands that they are about."""
    traced = Traced(monkeypatch)
    async with make_app().open(log="memory:", views="memory:") as shop:
        with traced.provider.get_tracer("test").start_as_current_span("request") as request:
            receipt = await shop.do(Place("1", 2), correlation_id="c-1", causation_id="e-1")
            await shop.ask(All(), after=receipt.token)
    command, append = traced.span("command Place"), traced.span("append")
    step, query = traced.span("project orders"), traced.span("query All")
    for child in (command, query):
        assert child.parent is not None
        assert child.parent.span_id == request.get_span_context().span_id
    assert append.parent is None
    assert step.parent is None
    assert linked(append) == linked(step) == {span_id(command)}
    assert attributes(command) == {
        "diptych.command": "Place",
        "diptych.command_id": receipt.command_id,
        "diptych.correlation_id": "c-1",
        "diptych.causation_id": "e-1",
        "diptych.outcome": "appended",
    }
    assert attributes(append) == {"diptych.commands": 1, "diptych.outcome": "committed"}
    assert attributes(step) == {
        "diptych.projection": "orders",
        "diptych.position": 2,
        "diptych.events": 2,
        "diptych.correlation_ids": ("c-1",),
    }
    assert attributes(query) == {"diptych.query": "All", "diptych.outcome": "answered"}
    listed = {span.name: set(span.attributes) for span in SPANS}
    for span, name in (
        *((command, "command {}"), (append, "append")),
        *((step, "project {}"), (query, "query {}")),
    ):
        assert set(attributes(span)) == listed[name]


async def test_a_projection_in_another_process_links_to_the_command_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The link is kept with the event: it is there however much later the event is applied."""
    traced = Traced(monkeypatch)
    url = f"sqlite:///{tmp_path}/shop.db"
    async with make_app().open(log=url, views=url, projections=False) as shop:
        await asyncio.gather(*[shop.do(Place(str(n))) for n in range(3)])
    async with make_app().open(log=url, views=url, projections=False) as shop:
        await shop.catch_up()
    commands = {span_id(span) for span in traced.spans("command Place")}
    assert len(commands) == 3
    assert linked(traced.span("append")) == commands
    assert linked(traced.span("project orders")) == commands


async def test_spans_tell_faults_from_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = Traced(monkeypatch)
    async with make_app().open(log="memory:", views="memory:") as shop:
        await shop.do(Place("1"))
        with pytest.raises(Rejected):
            await shop.do(Place("1"))
        with pytest.raises(DecisionFailed):
            await shop.do(Place("2", -1))
        with pytest.raises(RuntimeError):
            await shop.ask(Broken())
    found = [
        (attributes(span)["diptych.outcome"], span.status.is_ok)
        for span in [*traced.spans("command Place"), traced.span("query Broken")]
    ]
    assert found == [
        *(("appended", True), ("rejected", True)),
        *(("decision-failed", False), ("error", False)),
    ]


async def metadata(shop: Running) -> list[dict[str, Any]]:
    page = await shop.log.read()
    return [json.loads(bytes(event.metadata)) for event in page.events]


async def test_an_events_metadata_holds_the_span_only_where_it_was_traced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without tracing, and for what is not sampled, the stored form is what it always was."""
    plain = {"time", "command_id", "correlation_id"}
    async with make_app().open(log="memory:", views="memory:") as shop:
        await shop.do(Place("1"))
        assert [set(each) for each in await metadata(shop)] == [plain]
    with monkeypatch.context() as patch:
        Traced(patch, sampler=ALWAYS_OFF)
        async with make_app().open(log="memory:", views="memory:") as shop:
            await shop.do(Place("1"))
            assert [set(each) for each in await metadata(shop)] == [plain]
    traced = Traced(monkeypatch)
    async with make_app().open(log="memory:", views="memory:") as shop:
        await shop.do(Place("1"))
        (found,) = await metadata(shop)
        (recorded,) = await shop.events.read()
    assert set(found) == plain | {"traceparent"}
    assert recorded.metadata.traceparent == found["traceparent"]
    assert found["traceparent"].split("-")[2] == f"{span_id(traced.span('command Place')):016x}"


class Metered:
    """A provider of meters that the program has set, and what it got."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)
        patch.setattr(opentelemetry.metrics, "get_meter_provider", lambda: self.provider)

    def points(self) -> dict[str, Any]:
        """The points of each metric, and its unit, by name."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: (metric.unit, list(metric.data.data_points))
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


async def test_a_meter_gets_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    metered = Metered(monkeypatch)
    async with make_app().open(log="memory:", views="memory:") as shop:
        receipt = await shop.do(Place("1", 3))
        await shop.ask(All(), after=receipt.token)
        await shop.metrics()
        found = metered.points()
    units = {metric.name: metric.unit for metric in METRICS}
    assert {name: unit for name, (unit, _) in found.items()} == {n: units[n] for n in found}
    ((duration,), (events,), (lag,), (latency,)) = (
        found[name][1]
        for name in (
            *("diptych.command.duration", "diptych.append.events"),
            *("diptych.projection.lag.events", "diptych.projection.latency"),
        )
    )
    assert duration.attributes == {"command": "Place", "outcome": "appended"}
    assert duration.count == 1
    assert duration.explicit_bounds == COMMAND_DURATION.buckets
    assert (events.value, lag.value, latency.count) == (3, 0, 3)
    assert lag.attributes == {"projection": "orders", "slices": "0-63"}


async def test_gauges_are_kept_current_for_a_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks the application for its metrics, so it looks by itself."""
    monkeypatch.setattr(measuring, "LOOK_SECONDS", 0.01)
    metered = Metered(monkeypatch)
    async with make_app().open(log="memory:", views="memory:", projections=False) as shop:
        await shop.do(Place("1", 2))
        async with asyncio.timeout(30):
            while True:
                _, points = metered.points().get("diptych.projection.lag.events", ("", []))
                if [point.value for point in points] == [2]:
                    break
                await asyncio.sleep(0.01)


async def test_a_closed_application_tells_a_meter_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    metered = Metered(monkeypatch)
    async with make_app().open(log="memory:", views="memory:") as shop:
        await shop.do(Place("1"))
        await shop.metrics()
        assert "diptych.log.head" in metered.points()
    assert "diptych.log.head" not in metered.points()
