from datetime import date

from diptych import Module, Query, Views
from examples.flights.aircraft_use import view
from examples.flights.aircraft_use.view import AircraftDay

module = Module("aircraft-use-queries", view.module)


class DayOf(Query[AircraftDay | None]):
    """The legs that an aircraft flew on a day; None: it stayed on the ground."""

    aircraft: str
    day: date


@module.answers
async def day_of(query: DayOf, views: Views) -> AircraftDay | None:
    return await views.get(AircraftDay, (query.day, query.aircraft))
