from datetime import date

from msgspec import Struct
from sqlalchemy import func

from diptych import Module, Query, Views, select
from examples.flights.airport_day import view
from examples.flights.airport_day.view import AirportDay

module = Module("airport-day-queries", view.module)


class AirportDays(Query[list[AirportDay]]):
    """An airport's days from one to another, both included."""

    airport: str
    first: date
    last: date


@module.answers
async def airport_days(query: AirportDays, views: Views) -> list[AirportDay]:
    return await views.all(
        select(AirportDay)
        .where(
            AirportDay.origin == query.airport,
            AirportDay.day >= query.first,
            AirportDay.day <= query.last,
        )
        .order_by(AirportDay.day)
    )


class Airport(Struct, frozen=True):
    """The sum of an airport's days."""

    origin: str
    scheduled: int
    cancelled: int
    departed: int
    landed: int
    diverted: int
    departure_delay_minutes: int
    arrival_delay_minutes: int
    departed_15_late: int


class Airports(Query[list[Airport]]):
    """Every airport with the sum of its days."""


@module.answers
async def airports(_query: Airports, views: Views) -> list[Airport]:
    summed = (
        select(
            AirportDay.origin,
            func.sum(AirportDay.scheduled),
            func.sum(AirportDay.cancelled),
            func.sum(AirportDay.departed),
            func.sum(AirportDay.landed),
            func.sum(AirportDay.diverted),
            func.sum(AirportDay.departure_delay_minutes),
            func.sum(AirportDay.arrival_delay_minutes),
            func.sum(AirportDay.departed_15_late),
        )
        .group_by(AirportDay.origin)
        .order_by(AirportDay.origin)
    )
    return [Airport(*row) for row in await views.rows(summed)]
