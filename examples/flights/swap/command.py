from collections.abc import Iterator

from diptych import Command, Module, Rejected
from examples.flights import aircraft as fleet
from examples.flights import flight as flights
from examples.flights.aircraft import Aircraft
from examples.flights.flight import Flight
from examples.flights.ids import AircraftId, FlightId
from examples.flights.swap.event import AircraftSwapped

module = Module("swap", flights.module, fleet.module)


class Swap(Command):
    flight: FlightId
    aircraft: AircraftId


@module.decides
def swap(command: Swap, flight: Flight, aircraft: Aircraft) -> Iterator[AircraftSwapped]:
    if flight.state != "scheduled":
        raise Rejected(
            "flight does not wait for departure", flight=command.flight, state=flight.state
        )
    if flight.aircraft == command.aircraft:
        raise Rejected("flight has this aircraft already", aircraft=command.aircraft)
    if aircraft.flight is not None:
        raise Rejected(
            "aircraft is in the air", aircraft=command.aircraft, on_flight=aircraft.flight
        )
    yield AircraftSwapped(
        command.flight,
        command.aircraft,
        flight.aircraft,
        flight.carrier,
        flight.origin,
        flight.day,
    )
