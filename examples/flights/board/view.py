from datetime import date, datetime, timedelta
from typing import Literal

from msgspec.structs import replace

from diptych import Key, Module, View
from examples.flights.cancel.event import FlightCancelled
from examples.flights.depart.event import FlightDeparted
from examples.flights.divert.event import FlightDiverted
from examples.flights.land.event import FlightLanded
from examples.flights.schedule.event import FlightScheduled
from examples.flights.swap.event import AircraftSwapped

module = Module("board")

State = Literal["scheduled", "departed", "landed", "diverted", "cancelled"]

DIVERTED = timedelta(hours=6)
"""How much longer than others a flight stays that was diverted: people wait for it."""


class FlightRow(View, indexes=(("origin", "scheduled"),)):
    flight: Key[str]
    carrier: str
    origin: str
    destination: str
    aircraft: str | None
    day: date
    scheduled: datetime
    state: State = "scheduled"
    departed: datetime | None = None
    departure_delay: int | None = None
    arrival_delay: int | None = None


@module.projects(FlightRow)
def board(
    row: FlightRow | None,
    event: FlightScheduled
    | AircraftSwapped
    | FlightDeparted
    | FlightLanded
    | FlightDiverted
    | FlightCancelled,
) -> FlightRow | None:
    if isinstance(event, FlightScheduled):
        return FlightRow(
            event.flight,
            event.carrier,
            event.origin,
            event.destination,
            event.aircraft,
            event.day,
            event.scheduled,
        )
    assert row is not None  # nothing happens to a flight before it is scheduled
    match event:
        case AircraftSwapped():
            return replace(row, aircraft=event.aircraft)
        case FlightDeparted():
            return replace(
                row,
                state="departed",
                aircraft=event.aircraft,
                departed=event.departed,
                departure_delay=event.delay,
            )
        case FlightLanded():
            return replace(row, state="landed", arrival_delay=event.delay)
        case FlightDiverted():
            return replace(row, state="diverted")
        case FlightCancelled():
            return replace(row, state="cancelled")


def is_shown(row: FlightRow, since: datetime, until: datetime) -> bool:
    """Whether a flight is on the board of a time window."""
    if row.state == "diverted":
        since -= DIVERTED
    return since <= row.scheduled < until
