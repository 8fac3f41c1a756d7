from datetime import UTC, datetime, timedelta

from msgspec import Struct

from diptych import Events, Module, Query
from examples.flights.board.view import FlightRow, board, is_shown
from examples.flights.cancel.event import FlightCancelled
from examples.flights.depart.event import FlightDeparted
from examples.flights.divert.event import FlightDiverted
from examples.flights.land.event import FlightLanded
from examples.flights.schedule.event import FlightScheduled
from examples.flights.swap.event import AircraftSwapped

module = Module("past-board")

BEFORE, AFTER = timedelta(minutes=90), timedelta(hours=2)
TYPES = (
    FlightScheduled,
    AircraftSwapped,
    FlightDeparted,
    FlightLanded,
    FlightDiverted,
    FlightCancelled,
)


class BoardThen(Struct, frozen=True):
    """The board at a position, the flights' time then, and when that event was recorded."""

    rows: list[FlightRow]
    position: int
    moment: datetime | None = None
    recorded: datetime | None = None


class PastBoard(Query[BoardThen]):
    """Departures of an airport as they were known at a position of the log."""

    airport: str
    position: int


@module.answers
async def past_board(query: PastBoard, events: Events) -> BoardThen:
    if query.position < 1:  # nothing had happened
        return BoardThen([], 0)
    rows: dict[str, FlightRow | None] = {}
    moment = datetime.min.replace(tzinfo=UTC)
    recorded: datetime | None = None
    position = 0
    async for one in events.all(TYPES, until=query.position):
        event = one.event
        position, recorded = one.position, one.metadata.time
        match event:
            case FlightScheduled():
                if event.origin == query.airport:
                    rows[event.flight] = board(None, event)
                continue
            case FlightDeparted():
                moment = max(moment, event.departed)
            case FlightLanded():
                moment = max(moment, event.landed)
            case FlightDiverted():
                moment = max(moment, event.diverted)
            case AircraftSwapped() | FlightCancelled():
                pass
            case _:
                continue
        if event.flight in rows:
            rows[event.flight] = board(rows[event.flight], event)
    known = [row for row in rows.values() if row is not None]
    if moment.year > 1:
        known = [row for row in known if is_shown(row, moment - BEFORE, moment + AFTER)]
    known.sort(key=lambda row: (row.scheduled, row.flight))
    return BoardThen(known, position, moment if moment.year > 1 else None, recorded)
