"""A flight to write scenarios about."""

from datetime import UTC, date, datetime, timedelta

from examples.flights.cancel.event import FlightCancelled
from examples.flights.depart.event import FlightDeparted
from examples.flights.divert.event import FlightDiverted
from examples.flights.land.event import FlightLanded
from examples.flights.schedule.event import FlightScheduled
from examples.flights.swap.event import AircraftSwapped

DAY = date(2013, 1, 1)
NOON = datetime(2013, 1, 1, 17, tzinfo=UTC)
ONE, OTHER = "20130101T17-UA1", "20130101T17-UA2"
PLANE, SPARE = "N14228", "N24211"


def after(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


def scheduled(flight: str = ONE, aircraft: str | None = PLANE) -> FlightScheduled:
    return FlightScheduled(flight, aircraft, "UA", "JFK", "LAX", DAY, NOON)


def departed(flight: str = ONE, delay: int = 20) -> FlightDeparted:
    return FlightDeparted(flight, PLANE, "UA", "JFK", "LAX", DAY, after(delay), delay)


def landed(flight: str = ONE, airborne: int = 300, delay: int = -3) -> FlightLanded:
    return FlightLanded(flight, PLANE, "UA", "JFK", DAY, after(20 + airborne), airborne, delay)


def diverted(flight: str = ONE) -> FlightDiverted:
    return FlightDiverted(flight, PLANE, "UA", "JFK", DAY, after(200), 180)


def cancelled(flight: str = ONE) -> FlightCancelled:
    return FlightCancelled(flight, "UA", "JFK", DAY)


def swapped(aircraft: str = SPARE, *, instead_of: str | None = PLANE) -> AircraftSwapped:
    return AircraftSwapped(ONE, aircraft, instead_of, "UA", "JFK", DAY)
