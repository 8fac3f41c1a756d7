from collections.abc import Iterator
from datetime import datetime

from diptych import Command, Module, Rejected
from examples.flights import aircraft as fleet
from examples.flights import flight as flights
from examples.flights.aircraft import Aircraft
from examples.flights.divert.event import FlightDiverted
from examples.flights.flight import MINUTE, Flight
from examples.flights.ids import AircraftId, FlightId

module = Module("divert", flights.module, fleet.module)


class Divert(Command):
    flight: FlightId
    aircraft: AircraftId
    diverted: datetime


@module.decides
def divert(command: Divert, flight: Flight, aircraft: Aircraft) -> Iterator[FlightDiverted]:
    if flight.state != "departed":
        raise Rejected("flight is not in the air", flight=command.flight, state=flight.state)
    if aircraft.flight != command.flight:
        raise Rejected(
            "aircraft is not on this flight", aircraft=command.aircraft, flight=command.flight
        )
    yield FlightDiverted(
        command.flight,
        command.aircraft,
        flight.carrier,
        flight.origin,
        flight.day,
        command.diverted,
        airborne=(command.diverted - flight.departed) // MINUTE,
    )
