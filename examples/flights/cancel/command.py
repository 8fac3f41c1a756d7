from collections.abc import Iterator

from diptych import Command, Module, Rejected
from examples.flights import flight as flights
from examples.flights.cancel.event import FlightCancelled
from examples.flights.flight import Flight
from examples.flights.ids import FlightId

module = Module("cancel", flights.module)


class Cancel(Command):
    flight: FlightId


@module.decides
def cancel(command: Cancel, flight: Flight) -> Iterator[FlightCancelled]:
    if flight.state != "scheduled":
        raise Rejected(
            "flight does not wait for departure", flight=command.flight, state=flight.state
        )
    yield FlightCancelled(command.flight, flight.carrier, flight.origin, flight.day)
