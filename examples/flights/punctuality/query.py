from diptych import Module, Query, Views, select
from examples.flights.punctuality import view
from examples.flights.punctuality.view import Carrier

module = Module("punctuality-queries", view.module)


class Punctuality(Query[list[Carrier]]):
    """Carriers with at least so many departures, the most punctual first."""

    departures: int = 0


@module.answers
async def punctuality(query: Punctuality, views: Views) -> list[Carrier]:
    carriers = await views.all(select(Carrier).where(Carrier.departed >= query.departures))
    return sorted(carriers, key=lambda carrier: carrier.on_time, reverse=True)
