"""Rows of the board as people read them: New York time, words for states, signs for delays."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from examples.flights.board.view import FlightRow
from examples.flights.page.places import carrier, city
from examples.flights.punctuality.view import LATE

Kind: TypeAlias = Literal["scheduled", "late", "departed", "landed", "diverted", "cancelled"]


def _new_york() -> tzinfo:
    try:
        return ZoneInfo("America/New_York")
    except ZoneInfoNotFoundError:  # this machine knows no time zones; January has no summer time
        return timezone(timedelta(hours=-5), "EST")


NEW_YORK = _new_york()


class Row(Struct, frozen=True):
    """A flight on the board."""

    flight: str
    number: str
    carrier: str
    time: str
    iso: str
    to: str
    city: str
    aircraft: str
    kind: Kind
    status: str
    delay: str
    late: bool
    changeable: bool


def rows_of(flights: Iterable[FlightRow], now: datetime | None) -> list[Row]:
    """Return rows to be drawn. A flight is late when its time has gone by on the clock."""
    return [row_of(flight, now) for flight in flights]


def row_of(flight: FlightRow, now: datetime | None) -> Row:
    """Return one row."""
    kind, status = _state_of(flight, now)
    delay = flight.arrival_delay if flight.state == "landed" else flight.departure_delay
    if kind == "late" and now is not None:
        delay = int((now - flight.scheduled).total_seconds()) // 60
    return Row(
        flight.flight,
        number_of(flight.flight),
        carrier(flight.carrier),
        f"{local(flight.scheduled):%H:%M}",
        flight.scheduled.isoformat(),
        flight.destination,
        city(flight.destination),
        flight.aircraft or "",
        kind,
        status,
        signed(delay),
        delay is not None and delay >= LATE,
        changeable=flight.state == "scheduled",
    )


def _state_of(flight: FlightRow, now: datetime | None) -> tuple[Kind, str]:
    match flight.state:
        case "departed":
            left = f" {local(flight.departed):%H:%M}" if flight.departed else ""
            return "departed", f"Departed{left}"
        case "scheduled":
            if now is not None and now > flight.scheduled:
                return "late", "Late"
            return "scheduled", "Scheduled"
        case "landed" | "diverted" | "cancelled":
            return flight.state, flight.state.capitalize()


def number_of(flight: str) -> str:
    """Return "UA 1545" for "20130101T10-UA1545"."""
    number = flight.partition("-")[2]
    return f"{number[:2]} {number[2:]}"


def signed(minutes: int | None) -> str:
    """Return "+7", or "-3" with a real minus sign."""
    if minutes is None:
        return ""
    return f"+{minutes}" if minutes >= 0 else f"\N{MINUS SIGN}{-minutes}"


def local(moment: datetime) -> datetime:
    """Return New York time."""
    return moment.astimezone(NEW_YORK)
