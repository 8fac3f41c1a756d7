"""Scenarios: what they accept, what they refuse, and where they take place."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from diptych import App, Event, Invalid, Module, View
from diptych.errors import DecisionFailed, DefinitionError, ProjectionFailed, UnknownMessage
from diptych.testing import ScenarioFailed, Scenarios, rejected, scenarios
from tests.testing.shop import (
    TEN,
    CancelOrder,
    CustomerBarred,
    Note,
    OrderCancelled,
    OrderNoted,
    OrderPlaced,
    OrdersOf,
    OrderSummary,
    OrderTouched,
    Placed,
    PlaceOrder,
    Touch,
    app,
    orders,
)

placed = OrderPlaced("42", "ann", TEN)
summary = OrderSummary("42", "ann", TEN)
place = PlaceOrder("42", "ann", TEN)

WHERE = ["in memory", "memory:", "sqlite:"]


def given_in(where: str) -> Scenarios:
    return scenarios(app) if where == "in memory" else scenarios(app, log=where)


@pytest.fixture(params=WHERE)
def given(request: pytest.FixtureRequest) -> Scenarios:
    return given_in(request.param)


# --- verdicts, the same everywhere ----------------------------------------------------------------


def test_a_command_gives_events(given: Scenarios) -> None:
    given().when(place).then(placed)


def test_a_command_may_give_no_events(given: Scenarios) -> None:
    cancelled = given(placed, OrderCancelled("42")).when(CancelOrder("42"))
    cancelled.then_nothing()
    cancelled.then()


def test_a_command_may_be_rejected_by_reason_or_code_with_some_facts(given: Scenarios) -> None:
    again = given(placed).when(place)
    again.then(rejected("order already placed", order="42"))
    given(placed).when(place).then(rejected("order-already-placed"))
    given(CustomerBarred("ann")).when(place).then(rejected("barred", customer="ann"))
    given(CustomerBarred("ann")).when(place).then(rejected("customer ann is barred"))


def test_only_events_of_the_commands_boundary_reach_its_models(given: Scenarios) -> None:
    given(OrderPlaced("43", "ann", TEN), CustomerBarred("bob")).when(place).then(placed)


def test_each_command_is_decided_on_what_came_before(given: Scenarios) -> None:
    story = given().when(place).when(CancelOrder("42")).then(OrderCancelled("42"))
    story.when(CancelOrder("42")).then_nothing().when(place).then(rejected("order already placed"))


def test_events_may_come_in_between(given: Scenarios) -> None:
    story = given(placed).when(CancelOrder("42")).then(OrderCancelled("42"))
    story.given(CustomerBarred("ann")).when(PlaceOrder("43", "ann", TEN)).then(rejected("barred"))


def test_rows_are_compared_in_any_order(given: Scenarios) -> None:
    other = OrderSummary("43", "bob", TEN, "cancelled")
    story = given(placed, OrderPlaced("43", "bob", TEN), OrderCancelled("43"))
    story.then(other, summary)
    story.then(summary, other)


def test_rows_of_a_handler_are_compared(given: Scenarios) -> None:
    given(placed, OrderPlaced("43", "ann", TEN)).then(
        Placed("ann", 2), summary, OrderSummary("43", "ann", TEN)
    )


def test_events_and_rows_are_checked_together(given: Scenarios) -> None:
    given().when(place).then(placed, summary)
    given(placed).when(place).then(rejected("order already placed"), summary)


def test_a_view_may_be_empty(given: Scenarios) -> None:
    given().then_no(OrderSummary, Placed)
    given(OrderNoted("42", "hello")).then_no(OrderSummary)


def test_queries_are_answered(given: Scenarios) -> None:
    given(placed).ask(OrdersOf("ann")).then([summary])
    assert given(placed).ask(OrdersOf("bob")).answer() == []
    asked = given().when(place).ask(OrdersOf("ann")).then([summary])
    asked.when(place).then(rejected("order already placed"))


def test_the_actor_is_known_to_a_decision(given: Scenarios) -> None:
    year = datetime.now(UTC).year
    given().when(Touch("42"), actor="ann").then(OrderTouched("42", "ann", year))


def test_what_begins_alike_goes_on_apart(given: Scenarios) -> None:
    both = given(placed)
    both.when(CancelOrder("42")).then(OrderCancelled("42"))
    both.when(CancelOrder("42")).then(OrderCancelled("42"))
    both.then(summary)


FAILING: dict[str, Callable[[Scenarios], object]] = {
    "events": lambda given: given().when(place).then(OrderPlaced("42", "bob", TEN)),
    "no events": lambda given: given().when(place).then(),
    "too few": lambda given: given().when(place).then(placed, OrderCancelled("42")),
    "rejection": lambda given: given(placed).when(place).then(placed),
    "no rejection": lambda given: given().when(place).then(rejected("order already placed")),
    "reason": lambda given: given(placed).when(place).then(rejected("no such order")),
    "fact": lambda given: (
        given(placed).when(place).then(rejected("order already placed", order="43"))
    ),
    "row": lambda given: given(placed).then(OrderSummary("42", "bob", TEN)),
    "row too many": lambda given: given().then(summary),
    "row missing": lambda given: given(placed).then_no(OrderSummary),
    "handler's row": lambda given: given(placed).then(Placed("ann", 2)),
    "answer": lambda given: given(placed).ask(OrdersOf("ann")).then([]),
    "unexpected rejection": lambda given: (
        given(placed).when(place).when(CancelOrder("42")).then(OrderCancelled("42"))
    ),
    "rejected, then rows": lambda given: given(placed).when(place).then(summary),
    "rejected, then a query": lambda given: given(placed).when(place).ask(OrdersOf("ann")).then([]),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_scenario_fails_with_the_same_words_in_memory_and_on_sqlite(case: str) -> None:
    told: list[str] = []
    for where in WHERE:
        with pytest.raises(ScenarioFailed) as failed:
            FAILING[case](given_in(where))
        told.append(str(failed.value))
    assert told[0] == told[1] == told[2]


# --- what cannot be told --------------------------------------------------------------------------


class Unknown(Event):
    order: str


class Nobody(View):
    name: str


def test_an_event_of_an_unknown_type_is_refused() -> None:
    with pytest.raises(UnknownMessage, match=r"not registered .*type: Unknown"):
        scenarios(app)(Unknown("42"))


def test_a_command_cannot_be_given() -> None:
    given: Any = scenarios(app)
    with pytest.raises(Invalid, match=r"Only events can be given; .*got: PlaceOrder"):
        given(place)


def test_an_event_with_a_field_of_another_type_is_invalid() -> None:
    total: Any = "ten"
    with pytest.raises(Invalid, match=r"OrderPlaced is not valid .*field: total"):
        scenarios(app)(OrderPlaced("42", "ann", total))
    with pytest.raises(Invalid, match=r"OrderPlaced is not valid .*field: total"):
        scenarios(app)().when(place).then(OrderPlaced("42", "ann", total))


def test_an_event_that_no_log_can_store_is_invalid() -> None:
    with pytest.raises(
        Invalid, match=r"OrderPlaced is not valid .*field: order, rule: no character U.0000"
    ):
        scenarios(app)(OrderPlaced("\0", "ann", TEN))


def test_a_command_that_is_not_valid_or_not_decided_is_refused_as_in_production() -> None:
    with pytest.raises(Invalid, match=r"Note is not valid .*field: text"):
        scenarios(app)().when(Note("42", "x" * 21))
    unknown: Any = placed
    with pytest.raises(Invalid, match="That is an event, no command"):
        scenarios(app)().when(unknown)


def test_a_time_without_a_zone_is_invalid() -> None:
    with pytest.raises(Invalid, match=r"A time is not valid .*field: at"):
        scenarios(app)(placed, at=datetime(2025, 1, 1))


def test_a_view_that_no_projection_keeps_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"No projection of this module keeps this view"):
        scenarios(Module("empty")).__call__().then_no(OrderSummary)


def test_something_else_than_events_rows_and_rejections_cannot_be_expected() -> None:
    expected: Any = "placed"
    with pytest.raises(Invalid, match=r"A scenario ends with events.*got: str"):
        scenarios(app)().when(place).then(expected)


def test_a_rejection_and_events_exclude_each_other() -> None:
    with pytest.raises(Invalid, match="A command is rejected or has events, not both"):
        scenarios(app)().when(place).then(rejected("x"), placed)


def test_a_module_alone_runs_on_a_real_log() -> None:
    """A feature's module is tested alone, in memory and on a log of its own."""
    scenarios(orders)().when(place).then(placed)
    scenarios(orders, log="sqlite:")().when(place).then(placed)


def test_views_are_not_opened_without_a_log() -> None:
    with pytest.raises(Invalid, match="Views are opened together with a log"):
        scenarios(app, log=None, views="sqlite:")


def test_faults_are_raised_as_in_production(given: Scenarios) -> None:
    faulty = App("faulty")

    @faulty.model(0)
    def count(state: int, event: OrderCancelled) -> int:
        return state + 1

    @faulty.decides
    def cancel(command: CancelOrder, count: int) -> list[OrderCancelled]:
        if count:
            raise ZeroDivisionError("oh")
        return [OrderCancelled(command.order)]

    @faulty.projects(OrderSummary)
    def row(row: OrderSummary | None, event: OrderCancelled) -> OrderSummary | None:
        raise KeyError("oh")

    where = given.opener
    begin = scenarios(faulty) if where is None else scenarios(faulty, log=where.log)
    with pytest.raises(DecisionFailed, match="ZeroDivisionError: oh"):
        begin(OrderCancelled("1")).when(CancelOrder("1")).then()
    with pytest.raises(ProjectionFailed, match="KeyError: 'oh'"):
        begin(OrderCancelled("1")).then_no(OrderSummary)


# --- metadata -------------------------------------------------------------------------------------


def test_time_and_actor_of_what_is_given_are_settable() -> None:
    at = datetime(2024, 2, 29, tzinfo=UTC)
    given = scenarios(app)
    given().when(Touch("1"), at=at, actor="eve").then(OrderTouched("1", "eve", 2024))
    story = given(placed, at=at, actor="ann")
    [fact] = story._steps[0].facts  # type: ignore[union-attr]
    assert (fact.metadata.time, fact.metadata.actor) == (at, "ann")


def test_an_opened_application_stamps_the_time_itself() -> None:
    with pytest.raises(Invalid, match="stamps commands with its own clock"):
        scenarios(app, log="sqlite:")().when(Touch("1"), at=datetime.now(UTC))


# --- where it takes place -------------------------------------------------------------------------


def forbid(*_args: Any, **_options: Any) -> Any:
    raise AssertionError("in memory, this is not used")


def test_events_and_rows_in_memory_touch_no_loop_no_thread_and_no_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module, name in [
        (asyncio, "Runner"),
        (asyncio, "run"),
        (asyncio, "new_event_loop"),
        (asyncio, "get_running_loop"),
        (sqlite3, "connect"),
        (threading.Thread, "start"),
        (tempfile, "mkdtemp"),
    ]:
        monkeypatch.setattr(module, name, forbid)
    given = scenarios(app)
    given(placed).when(CancelOrder("42")).then(OrderCancelled("42"))
    given(placed).when(place).then(rejected("order already placed"), summary)
    given().then_no(OrderSummary)
    with pytest.raises(AssertionError, match="this is not used"):
        given(placed).ask(OrdersOf("ann")).then([summary])


async def test_scenarios_take_place_inside_a_running_loop(given: Scenarios) -> None:
    given().when(place).then(placed, summary)
    given(placed).ask(OrdersOf("ann")).then([summary])
    given(placed).then(Placed("ann", 1))


def test_each_scenario_has_a_new_log() -> None:
    given = scenarios(app, log="sqlite:")
    for _ in range(2):
        given().when(place).then(placed, summary)


def test_files_are_removed_with_the_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threads = threading.active_count()
    story = scenarios(app, log="sqlite:")().when(place).then(placed)
    assert [folder.name.startswith("diptych-") for folder in tmp_path.iterdir()] == [True]
    assert threading.active_count() == threads
    del story
    assert list(tmp_path.iterdir()) == []


def test_log_and_views_may_lie_apart() -> None:
    for log, views in [("sqlite:", "memory:"), ("memory:", "sqlite:"), ("sqlite:", "sqlite:")]:
        story = scenarios(app, log=log, views=views)().when(place).then(placed, summary)
        story.when(CancelOrder("42")).then(OrderSummary("42", "ann", TEN, "cancelled"))


@pytest.mark.parametrize("views", [None, "memory:", "sqlite:"])
async def test_a_scenario_takes_place_on_postgresql(postgres_url: str, views: str | None) -> None:
    """Events, rejections, rows of folds and handlers, answers: what it says of memory, it says."""
    story = scenarios(app, log=postgres_url, views=views)(placed, actor="ann")
    for before in (story, scenarios(app)(placed, actor="ann")):
        after = before.when(place).then(rejected("order already placed"), summary)
        after = after.when(CancelOrder("42")).then(OrderCancelled("42"), Placed("ann", 1))
        after.ask(OrdersOf("ann")).then([OrderSummary("42", "ann", TEN, "cancelled")])
        with pytest.raises(ScenarioFailed, match="Other events than expected"):
            after.when(PlaceOrder("43", "ann", TEN)).then(OrderPlaced("43", "bob", TEN))
    async with app.open(log=postgres_url, views="memory:", create="nothing") as running:
        assert [r.metadata.actor for r in await running.events.read()] == ["ann", None, None]


def test_a_log_of_ones_own_is_shared_and_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    given = scenarios(app, log=url)
    story = given().when(place).then(placed)
    given().when(place).then(rejected("order already placed"))
    story.when(CancelOrder("42")).then(OrderCancelled("42"))
    with sqlite3.connect(tmp_path / "shop.db") as file:
        [(count,)] = file.execute("SELECT count(*) FROM events").fetchall()
    file.close()
    assert count == 2


def test_on_a_log_of_ones_own_a_scenario_does_not_fork(tmp_path: Path) -> None:
    both = scenarios(app, log=f"sqlite:///{tmp_path / 'shop.db'}")(placed)
    both.when(CancelOrder("42")).then(OrderCancelled("42"))
    with pytest.raises(Invalid, match="Two scenarios that begin alike cannot share one log"):
        both.when(CancelOrder("42")).then()


def test_importing_the_test_kit_is_cheap() -> None:
    program = (
        "import sys, diptych.testing; assert 'scenarios' in dir(diptych.testing);"
        "from diptych.testing import scenarios, rejected, ScenarioFailed;"
        "heavy = {'hypothesis', 'pytest', 'asyncio', 'sqlalchemy', 'sqlite3'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_decimals_are_equal_by_value() -> None:
    scenarios(app)().when(place).then(OrderPlaced("42", "ann", Decimal("10.00")))


def test_after_a_step_that_failed_a_scenario_starts_anew() -> None:
    story = scenarios(app, log="sqlite:")(placed).when(place)
    for _ in range(2):
        with pytest.raises(ScenarioFailed, match="Another command follows"):
            story.when(CancelOrder("42")).then(OrderCancelled("42"))
    story.then(rejected("order already placed"))
