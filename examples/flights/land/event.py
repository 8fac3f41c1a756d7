from datetime import date, datetime

from diptych import Event
from examples.flights.ids import AircraftId, FlightId


class FlightLanded(Event):
    flight: FlightId
    aircraft: AircraftId
    carrier: str
    origin: str
    day: date
    landed: datetime
    airborne: int  # minutes
    delay: int  # minutes at the gate; negative: early
