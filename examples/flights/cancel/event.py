from datetime import date

from diptych import Event
from examples.flights.ids import FlightId


class FlightCancelled(Event):
    flight: FlightId
    carrier: str
    origin: str
    day: date
