from datetime import date, datetime

from msgspec import Struct
from msgspec.structs import replace

from diptych import Key, Module, View
from examples.flights.depart.event import FlightDeparted
from examples.flights.divert.event import FlightDiverted
from examples.flights.land.event import FlightLanded

module = Module("aircraft-use")


class Leg(Struct, frozen=True):
    flight: str
    origin: str
    destination: str
    departed: datetime
    airborne: int | None = None  # minutes; None: still in the air
    diverted: bool = False


class AircraftDay(View):
    day: Key[date]
    aircraft: Key[str]
    legs: tuple[Leg, ...] = ()
    airborne: int = 0  # minutes


@module.projects(AircraftDay)
def aircraft_day(
    row: AircraftDay | None, event: FlightDeparted | FlightLanded | FlightDiverted
) -> AircraftDay | None:
    row = row or AircraftDay(event.day, event.aircraft)
    if isinstance(event, FlightDeparted):
        leg = Leg(event.flight, event.origin, event.destination, event.departed)
        return replace(row, legs=(*row.legs, leg))
    legs = tuple(
        replace(leg, airborne=event.airborne, diverted=isinstance(event, FlightDiverted))
        if leg.flight == event.flight
        else leg
        for leg in row.legs
    )
    return replace(row, legs=legs, airborne=row.airborne + event.airborne)
