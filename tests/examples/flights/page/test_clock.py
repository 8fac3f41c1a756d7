"""The replay behind the board: what is due is sent, once, and visitors' commands are heeded."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest

from diptych import Running
from examples.flights.application import app
from examples.flights.board.query import Board
from examples.flights.board.view import FlightRow
from examples.flights.cancel.command import Cancel
from examples.flights.depart.command import Depart
from examples.flights.history.query import History
from examples.flights.land.command import Land
from examples.flights.page.bell import Bell
from examples.flights.page.clock import Clock, Replay
from examples.flights.page.rows import row_of, rows_of
from examples.flights.past_board.query import PastBoard
from examples.flights.replay.commands import AHEAD, MINUTE, START, Keyed
from examples.flights.schedule.command import Schedule
from examples.flights.swap.command import Swap
from tests.examples.flights.days import DAY, NOON, ONE, PLANE, SPARE, after


def key(moment: datetime, rank: int) -> str:
    return f"{(moment - START) // MINUTE:05x}{rank}UA0001"


def a_flight() -> Iterator[Keyed]:
    """What the file knows: at noon to Los Angeles, 20 minutes late, down at half past five."""
    schedule = Schedule(ONE, PLANE, "UA", "JFK", "LAX", DAY, NOON)
    yield key(NOON - timedelta(minutes=AHEAD), 0), schedule
    yield key(after(20), 3), Depart(ONE, PLANE, after(20))
    yield key(after(330), 1), Land(ONE, PLANE, after(330), -3)


@asynccontextmanager
async def replaying(running: Running, clock: Clock) -> AsyncGenerator[Replay]:
    replay = Replay(running, clock, a_flight())
    await replay.load()
    task = asyncio.create_task(replay.run())
    yield replay
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def happened(running: Running, count: int) -> list[str]:
    """Wait until so many events have happened to the flight; return their names."""
    await running.log.wait(count - 1, timeout=30)
    return [type(one.event).__name__ for one in (await running.ask(History(ONE))).value]


async def the_row(running: Running) -> FlightRow:
    await running.catch_up()
    day = timedelta(days=1)
    [row] = (await running.ask(Board("JFK", NOON - day, NOON + day))).value
    return row


async def test_what_is_due_is_sent_and_nothing_before_its_time() -> None:
    async with app.open(log="memory:", views="memory:") as running:
        clock = Clock(NOON, 0.0, Bell())
        async with replaying(running, clock):
            assert await happened(running, 1) == ["FlightScheduled"]
            clock.set_to(after(19))
            clock.set_to(after(20))
            assert await happened(running, 2) == ["FlightScheduled", "FlightDeparted"]
            clock.set_to(after(330))
            assert (await happened(running, 3))[2:] == ["FlightLanded"]


async def test_what_was_sent_by_an_earlier_run_sets_the_clock_and_is_not_sent_again() -> None:
    async with app.open(log="memory:", views="memory:") as running:
        async with replaying(running, Clock(after(25), 0.0, Bell())):
            await happened(running, 2)
        clock = Clock(NOON, 0.0, Bell())
        async with replaying(running, clock):
            assert clock.now == after(20)
            assert await running.log.head() == 2


async def test_a_flight_departs_with_the_aircraft_that_a_visitor_gave_it() -> None:
    async with app.open(log="memory:", views="memory:") as running:
        clock = Clock(NOON, 0.0, Bell())
        async with replaying(running, clock):
            await running.do(Swap(ONE, SPARE))
            assert (await the_row(running)).aircraft == SPARE
            clock.set_to(after(330))
            await happened(running, 4)
            row = await the_row(running)
            assert (row.state, row.aircraft) == ("landed", SPARE)


async def test_a_flight_that_a_visitor_cancelled_does_not_depart() -> None:
    async with app.open(log="memory:", views="memory:") as running:
        async with replaying(running, Clock(NOON, 0.0, Bell())):
            await running.do(Cancel(ONE))
        async with replaying(running, Clock(after(330), 0.0, Bell())) as replay:
            assert replay.rejected == 2
            assert await happened(running, 2) == ["FlightScheduled", "FlightCancelled"]


async def test_the_board_as_it_was_is_the_view_of_that_moment() -> None:
    """Law of the fold: at each position, what the log folds to is what the view held then."""
    async with app.open(log="memory:", views="memory:") as running:
        clock = Clock(NOON, 0.0, Bell())
        held = []
        async with replaying(running, clock):
            held.append(await the_row(running))
            await running.do(Swap(ONE, SPARE))
            held.append(await the_row(running))
            for count, moment in enumerate((after(20), after(330)), start=3):
                clock.set_to(moment)
                await happened(running, count)
                held.append(await the_row(running))
        for position, row in enumerate(held[:3], start=1):
            then = (await running.ask(PastBoard("JFK", position))).value
            assert (then.rows, then.position) == ([row], position)
        assert (await running.ask(PastBoard("JFK", 4))).value.rows == []  # out of the window
        assert (await running.ask(PastBoard("EWR", 2))).value.rows == []
        assert (await running.ask(PastBoard("JFK", 0))).value.rows == []
        assert (await running.ask(PastBoard("JFK", 99))).value.position == 4


def flight(state: str, **facts: object) -> FlightRow:
    return FlightRow(ONE, "UA", "JFK", "LAX", PLANE, DAY, NOON, state, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "minute", "kind", "status", "delay"),
    [
        (flight("scheduled"), 0, "scheduled", "Scheduled", ""),
        (flight("scheduled"), 7, "late", "Late", "+7"),
        (
            flight("departed", departed=after(20), departure_delay=20),
            30,
            "departed",
            "Departed 12:20",
            "+20",
        ),
        (
            flight("landed", departure_delay=20, arrival_delay=-3),
            330,
            "landed",
            "Landed",
            "\N{MINUS SIGN}3",
        ),
        (flight("diverted", departure_delay=0), 200, "diverted", "Diverted", "+0"),
        (flight("cancelled"), 7, "cancelled", "Cancelled", ""),
    ],
)
def test_a_row_says_where_its_flight_stands(
    row: FlightRow, minute: int, kind: str, status: str, delay: str
) -> None:
    drawn = row_of(row, after(minute))
    assert (drawn.kind, drawn.status, drawn.delay) == (kind, status, delay)
    assert (drawn.time, drawn.number, drawn.city) == ("12:00", "UA 1", "Los Angeles")
    assert rows_of([row], after(minute)) == [drawn]
