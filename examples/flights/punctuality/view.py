from msgspec.structs import replace

from diptych import Key, Module, View
from examples.flights.cancel.event import FlightCancelled
from examples.flights.depart.event import FlightDeparted
from examples.flights.divert.event import FlightDiverted
from examples.flights.land.event import FlightLanded
from examples.flights.schedule.event import FlightScheduled

module = Module("punctuality")

LATE = 15  # minutes


class Carrier(View):
    carrier: Key[str]
    scheduled: int = 0
    cancelled: int = 0
    departed: int = 0
    landed: int = 0
    diverted: int = 0
    departure_delay_minutes: int = 0
    arrival_delay_minutes: int = 0
    departed_15_late: int = 0

    @property
    def on_time(self) -> float:
        """The share of its departures that were less than 15 minutes late."""
        return 1 - self.departed_15_late / self.departed if self.departed else 0.0


@module.projects(Carrier)
def punctuality(
    row: Carrier | None,
    event: FlightScheduled | FlightDeparted | FlightLanded | FlightDiverted | FlightCancelled,
) -> Carrier | None:
    row = row or Carrier(event.carrier)
    match event:
        case FlightScheduled():
            return replace(row, scheduled=row.scheduled + 1)
        case FlightDeparted():
            return replace(
                row,
                departed=row.departed + 1,
                departure_delay_minutes=row.departure_delay_minutes + event.delay,
                departed_15_late=row.departed_15_late + (event.delay >= LATE),
            )
        case FlightLanded():
            return replace(
                row,
                landed=row.landed + 1,
                arrival_delay_minutes=row.arrival_delay_minutes + event.delay,
            )
        case FlightDiverted():
            return replace(row, diverted=row.diverted + 1)
        case FlightCancelled():
            return replace(row, cancelled=row.cancelled + 1)
