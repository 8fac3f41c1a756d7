from collections.abc import Iterator
from datetime import datetime

from diptych import Command, Module, Rejected
from examples.flights import aircraft as fleet
from examples.flights import flight as flights
from examples.flights.aircraft import Aircraft
from examples.flights.flight import MINUTE, Flight
from examples.flights.ids import AircraftId, FlightId
from examples.flights.land.event import FlightLanded

module = Module("land", flights.module, fleet.module)


class Land(Command):
    flight: FlightId
    aircraft: AircraftId
    landed: datetime
    delay: int


@module.decides
def land(command: Land, flight: Flight, aircraft: Aircraft) -> Iterator[FlightLanded]:
    if flight.state != "departed":
        raise Rejected("flight is not in the air", flight=command.flight, state=flight.state)
    if aircraft.flight != command.flight:
        raise Rejected(
            "aircraft is not on this flight", aircraft=command.aircraft, flight=command.flight
        )
    yield FlightLanded(
        command.flight,
        command.aircraft,
        flight.carrier,
        flight.origin,
        flight.day,
        command.landed,
        airborne=(command.landed - flight.departed) // MINUTE,
        delay=command.delay,
    )
