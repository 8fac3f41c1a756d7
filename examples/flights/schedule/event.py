from datetime import date, datetime

from diptych import Event
from examples.flights.ids import AircraftId, FlightId


class FlightScheduled(Event):
    flight: FlightId
    aircraft: AircraftId | None
    carrier: str
    origin: str
    destination: str
    day: date  # as the airport's clocks say
    scheduled: datetime
