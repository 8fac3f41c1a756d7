from collections.abc import Iterator
from datetime import date, datetime

from diptych import Command, Module, Rejected
from examples.flights import flight as flights
from examples.flights.flight import Flight
from examples.flights.ids import AircraftId, FlightId
from examples.flights.schedule.event import FlightScheduled

module = Module("schedule", flights.module)


class Schedule(Command):
    flight: FlightId
    aircraft: AircraftId | None
    carrier: str
    origin: str
    destination: str
    day: date
    scheduled: datetime


@module.decides
def schedule(command: Schedule, flight: Flight) -> Iterator[FlightScheduled]:
    if flight.state != "unknown":
        raise Rejected("flight is already scheduled", flight=command.flight)
    yield FlightScheduled(
        command.flight,
        command.aircraft,
        command.carrier,
        command.origin,
        command.destination,
        command.day,
        command.scheduled,
    )
