from datetime import date, datetime

from diptych import Event
from examples.flights.ids import AircraftId, FlightId


class FlightDiverted(Event):
    flight: FlightId
    aircraft: AircraftId
    carrier: str
    origin: str
    day: date
    diverted: datetime
    airborne: int  # minutes
