from datetime import date

from diptych import Event
from examples.flights.ids import AircraftId, FlightId


class AircraftSwapped(Event):
    flight: FlightId
    aircraft: AircraftId
    instead_of: str | None
    carrier: str
    origin: str
    day: date
