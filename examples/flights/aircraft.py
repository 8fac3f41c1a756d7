"""What decisions know of an aircraft: whether it is in the air, and on which flight."""

from msgspec import Struct

from diptych import Module
from examples.flights.depart.event import FlightDeparted
from examples.flights.divert.event import FlightDiverted
from examples.flights.land.event import FlightLanded

module = Module("aircraft")


class Aircraft(Struct, frozen=True):
    flight: str | None = None


@module.model(Aircraft(), tag="aircraft")
def aircraft(_state: Aircraft, event: FlightDeparted | FlightLanded | FlightDiverted) -> Aircraft:
    match event:
        case FlightDeparted():
            return Aircraft(event.flight)
        case FlightLanded() | FlightDiverted():
            return Aircraft()
