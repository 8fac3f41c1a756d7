from datetime import datetime

from sqlalchemy import func, or_

from diptych import Module, Query, Views, column, select
from examples.flights.board import view
from examples.flights.board.view import DIVERTED, FlightRow, State

module = Module("board-queries", view.module)


class Board(Query[list[FlightRow]]):
    """Departures of an airport in a time window, and before it those that were diverted."""

    airport: str
    since: datetime
    until: datetime


@module.answers
async def board(query: Board, views: Views) -> list[FlightRow]:
    return await views.all(
        select(FlightRow)
        .where(
            FlightRow.origin == query.airport,
            FlightRow.scheduled >= query.since - DIVERTED,
            FlightRow.scheduled < query.until,
            or_(
                column(FlightRow.scheduled) >= query.since,
                column(FlightRow.state) == "diverted",
            ),
        )
        .order_by(FlightRow.scheduled, FlightRow.flight)
    )


class FlightStates(Query[dict[State, int]]):
    """How many flights are in each state."""


@module.answers
async def flight_states(_query: FlightStates, views: Views) -> dict[State, int]:
    counted = select(FlightRow.state, func.count()).group_by(FlightRow.state)
    return dict(await views.rows(counted))
