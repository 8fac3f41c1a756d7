"""From rows to commands, merged into the order of time; at most two days are in memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from operator import itemgetter
from typing import TypeAlias
from zlib import crc32

from diptych import Command
from examples.flights.cancel.command import Cancel
from examples.flights.depart.command import Depart
from examples.flights.divert.command import Divert
from examples.flights.land.command import Land
from examples.flights.replay.file import Day, Flights, Slice
from examples.flights.schedule.command import Schedule

Part: TypeAlias = tuple[int, int]
"""Which of how many parts, (1, 2): the aircraft are dealt out, so each keeps its order."""

Keyed: TypeAlias = tuple[str, Command]
"""A command and its idempotency key, which is also its place in the order:
minute, rank, carrier, flight number and row, the numbers in hexadecimal."""

START = datetime(2012, 12, 31, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
AHEAD = 12 * 60  # minutes before its time at which a flight is put on the schedule
UNKNOWN_FLIGHT = 180  # minutes in the air of a flight that was diverted

_key = itemgetter(0)


def commands(flights: Flights, slice: Slice, part: Part = (1, 1)) -> Iterator[Keyed]:
    """Yield the commands of a slice in order, each with its key."""
    pending: list[Keyed] = []
    for day in flights.days(slice):
        fresh = sorted(_commands_of(flights, day, part), key=_key)
        if not fresh:
            continue
        # Nothing of this day or a later one comes before this day's first command.
        pending.sort(key=_key)
        cut = bisect_left(pending, fresh[0][0], key=_key)
        yield from pending[:cut]
        pending[:cut] = fresh
    yield from sorted(pending, key=_key)


def count(flights: Flights, slice: Slice) -> int:
    """Return about how many commands a slice has."""
    return sum(3 * day.rows for day in flights.days(slice))


def _commands_of(flights: Flights, day: Day, part: Part) -> Iterator[Keyed]:
    today = date(2013, day.month, day.day)
    which, parts = part
    hours: dict[str, tuple[datetime, int]] = {}
    for number, row in enumerate(flights.rows(day), start=day.first_row):
        # fmt: off
        (_, _, _, dep_time, _, dep_delay, _, _, arr_delay, carrier, flight, tail, origin, dest,
         air_time, _, _, minute, time_hour) = row
        # fmt: on
        known = hours.get(time_hour)
        if known is None:
            start = datetime.fromisoformat(time_hour)
            known = hours[time_hour] = start, (start - START) // MINUTE
        hour, at = known
        flight_id = f"{time_hour[:4]}{time_hour[5:7]}{time_hour[8:13]}-{carrier}{flight}"
        aircraft = None if tail == "NA" else tail
        if parts > 1 and crc32((aircraft or flight_id).encode()) % parts != which - 1:
            continue
        scheduled = hour + MINUTE * int(minute)
        at += int(minute)
        rest = f"{carrier}{int(flight):04x}{number:05x}"
        yield (
            f"{at - AHEAD:05x}0{rest}",
            Schedule(flight_id, aircraft, carrier, origin, dest, today, scheduled),
        )
        if dep_time == "NA":
            yield f"{at:05x}2{rest}", Cancel(flight_id)
            continue
        at += int(dep_delay)
        departed = scheduled + MINUTE * int(dep_delay)
        yield f"{at:05x}3{rest}", Depart(flight_id, tail, departed)
        if air_time == "NA":
            diverted = departed + MINUTE * UNKNOWN_FLIGHT
            yield f"{at + UNKNOWN_FLIGHT:05x}1{rest}", Divert(flight_id, tail, diverted)
        else:
            landed = departed + MINUTE * int(air_time)
            yield f"{at + int(air_time):05x}1{rest}", Land(flight_id, tail, landed, int(arr_delay))
