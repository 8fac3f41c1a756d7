"""What decisions know of a flight."""

from datetime import UTC, date, datetime, timedelta
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from diptych import Module
from examples.flights.cancel.event import FlightCancelled
from examples.flights.depart.event import FlightDeparted
from examples.flights.divert.event import FlightDiverted
from examples.flights.land.event import FlightLanded
from examples.flights.schedule.event import FlightScheduled
from examples.flights.swap.event import AircraftSwapped

MINUTE = timedelta(minutes=1)

module = Module("flight")


State = Literal["unknown", "scheduled", "departed", "landed", "diverted", "cancelled"]


class Flight(Struct, frozen=True):
    state: State = "unknown"
    carrier: str = ""
    origin: str = ""
    destination: str = ""
    aircraft: str | None = None
    day: date = date.min
    scheduled: datetime = datetime.min.replace(tzinfo=UTC)
    departed: datetime = datetime.min.replace(tzinfo=UTC)


@module.model(Flight(), tag="flight")
def flight(
    state: Flight,
    event: FlightScheduled
    | AircraftSwapped
    | FlightDeparted
    | FlightLanded
    | FlightDiverted
    | FlightCancelled,
) -> Flight:
    match event:
        case FlightScheduled():
            return Flight(
                "scheduled",
                event.carrier,
                event.origin,
                event.destination,
                event.aircraft,
                event.day,
                event.scheduled,
            )
        case AircraftSwapped():
            return replace(state, aircraft=event.aircraft)
        case FlightDeparted():
            return replace(state, state="departed", departed=event.departed)
        case FlightLanded():
            return replace(state, state="landed")
        case FlightDiverted():
            return replace(state, state="diverted")
        case FlightCancelled():
            return replace(state, state="cancelled")
