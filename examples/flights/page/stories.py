"""Pages about one thing: a flight's history, an aircraft's day, the carriers."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from diptych import Answer, Recorded
from examples.flights.aircraft_use.query import DayOf
from examples.flights.aircraft_use.view import AircraftDay
from examples.flights.history.query import History
from examples.flights.page import streams
from examples.flights.page.changes import fleet_of
from examples.flights.page.desk import desk_of
from examples.flights.page.drawing import draw, page
from examples.flights.page.places import carrier
from examples.flights.page.rows import NEW_YORK
from examples.flights.punctuality.query import Punctuality
from examples.flights.schedule.event import FlightScheduled

# --- a flight -------------------------------------------------------------------------------------


class Happened(Struct, frozen=True):
    """An event of a flight, to be read."""

    position: int
    name: str
    recorded: datetime
    command_id: str
    correlation_id: str
    causation_id: str | None
    actor: str | None
    facts: dict[str, Any]


async def flight(request: Request) -> Response:
    """Show all events of a flight, each with what caused it."""
    desk, name = desk_of(request), request.path_params["flight"]
    after = request.query_params.get("after")
    answer = await desk.running.ask(History(name), after=after)
    if not answer.value or not isinstance(answer.value[0].event, FlightScheduled):
        return page("error.html", 404, title="No such flight", detail=f"{name} is not known.")
    scheduled = answer.value[0].event
    fleet = await fleet_of(desk, scheduled)
    happened = [_happened(one) for one in answer.value]
    return page(
        "flight.html",
        flight=name,
        scheduled=scheduled,
        aircraft=next(
            (h.facts["aircraft"] for h in reversed(happened) if "aircraft" in h.facts), None
        ),
        happened=happened,
        fleet=fleet,
        changeable=happened[-1].name in ("FlightScheduled", "AircraftSwapped"),
    )


def _happened(one: Recorded) -> Happened:
    facts = msgspec.to_builtins(one.event, builtin_types=(datetime, date))
    for known in ("flight", "carrier", "origin", "day"):
        facts.pop(known, None)
    told = one.metadata
    return Happened(
        one.position,
        type(one.event).__name__,
        told.time,
        told.command_id,
        told.correlation_id,
        told.causation_id,
        told.actor,
        facts,
    )


# --- an aircraft ----------------------------------------------------------------------------------


class Bar(Struct, frozen=True):
    """A leg on the timeline: ``x`` and ``width`` in minutes of its day."""

    x: float
    width: float
    label: str
    open: bool
    diverted: bool


async def aircraft(request: Request) -> Response:
    """Show an aircraft's day."""
    desk, tail = desk_of(request), request.path_params["tail"]
    now = desk.clock.now.astimezone(NEW_YORK)
    try:
        day = date.fromisoformat(request.query_params.get("day", ""))
    except ValueError:
        day = now.date()
    answer = await desk.running.ask(DayOf(tail, day))
    return page(
        "aircraft.html",
        tail=tail,
        day=day,
        before=day - timedelta(days=1),
        after=day + timedelta(days=1),
        use=answer.value,
        bars=_bars(answer.value, day, desk.clock.now),
        as_of=answer.as_of,
    )


def _bars(use: AircraftDay | None, day: date, now: datetime) -> list[Bar]:
    midnight = datetime(day.year, day.month, day.day, tzinfo=NEW_YORK)
    bars: list[Bar] = []
    for leg in use.legs if use is not None else ():
        begun = (leg.departed - midnight).total_seconds() / 60
        flown = leg.airborne
        if flown is None:  # in the air
            flown = max(int((now - leg.departed).total_seconds() // 60), 1)
        label = f"{leg.origin} {leg.destination}"
        bars.append(Bar(begun, flown, label, leg.airborne is None, leg.diverted))
    return bars


# --- carriers -------------------------------------------------------------------------------------


async def carriers(request: Request) -> Response:
    """Show how punctual the carriers are; the page follows it by itself."""
    desk = desk_of(request)
    answer = await desk.running.ask(Punctuality(1))
    return page(
        "carriers.html",
        token=str(answer.token),
        table=_carriers(answer),
        parts=streams.Bar(desk).parts(),
    )


async def carriers_live(request: Request) -> Response:
    """Stream it."""
    return await streams.answer(
        request, streams.Shown("carriers", lambda: Punctuality(1), _carriers)
    )


def _carriers(answer: Answer[Any]) -> str:
    data = [
        [carrier(one.carrier) for one in answer.value],
        [round(100 * one.on_time, 1) for one in answer.value],
    ]
    return draw("_carriers.html", carriers=answer.value, data=data, as_of=answer.as_of)
