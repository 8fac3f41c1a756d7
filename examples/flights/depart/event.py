from datetime import date, datetime

from diptych import Event
from examples.flights.ids import AircraftId, FlightId


class FlightDeparted(Event):
    flight: FlightId
    aircraft: AircraftId
    carrier: str
    origin: str
    destination: str
    day: date
    departed: datetime
    delay: int  # minutes; negative: early
