from collections.abc import Iterator
from datetime import datetime

from diptych import Command, Module, Rejected
from examples.flights import aircraft as fleet
from examples.flights import flight as flights
from examples.flights.aircraft import Aircraft
from examples.flights.depart.event import FlightDeparted
from examples.flights.flight import MINUTE, Flight
from examples.flights.ids import AircraftId, FlightId

module = Module("depart", flights.module, fleet.module)


class Depart(Command):
    flight: FlightId
    aircraft: AircraftId
    departed: datetime


@module.decides
def depart(command: Depart, flight: Flight, aircraft: Aircraft) -> Iterator[FlightDeparted]:
    if flight.state != "scheduled":
        raise Rejected(
            "flight does not wait for departure", flight=command.flight, state=flight.state
        )
    if aircraft.flight is not None:
        raise Rejected(
            "aircraft is in the air", aircraft=command.aircraft, on_flight=aircraft.flight
        )
    yield FlightDeparted(
        command.flight,
        command.aircraft,
        flight.carrier,
        flight.origin,
        flight.destination,
        flight.day,
        command.departed,
        delay=(command.departed - flight.scheduled) // MINUTE,
    )
