from datetime import datetime

from sqlalchemy import func

from diptych import Module, Query, Views, select
from examples.flights.board import view
from examples.flights.board.view import FlightRow, State

module = Module("board-queries", view.module)


class Board(Query[list[FlightRow]]):
    """Departures of an airport in a time window."""

    airport: str
    since: datetime
    until: datetime


@module.answers
async def board(query: Board, views: Views) -> list[FlightRow]:
    return await views.all(
        select(FlightRow)
        .where(
            FlightRow.origin == query.airport,
            FlightRow.scheduled >= query.since,
            FlightRow.scheduled < query.until,
        )
        .order_by(FlightRow.scheduled, FlightRow.flight)
    )


class FlightStates(Query[dict[State, int]]):
    """How many flights are in each state."""


@module.answers
async def flight_states(_query: FlightStates, views: Views) -> dict[State, int]:
    counted = select(FlightRow.state, func.count()).group_by(FlightRow.state)
    return dict(await views.rows(counted))
