"""The views and queries of the flights, from events."""

from datetime import timedelta

from msgspec.structs import replace

from diptych.testing import scenarios
from examples.flights.aircraft_use.query import DayOf
from examples.flights.aircraft_use.view import AircraftDay, Leg
from examples.flights.airport_day.query import AirportDays, Airports
from examples.flights.airport_day.view import AirportDay
from examples.flights.application import app
from examples.flights.board.query import Board, FlightStates
from examples.flights.board.view import DIVERTED, FlightRow, is_shown
from examples.flights.history.query import History
from examples.flights.punctuality.query import Punctuality
from examples.flights.punctuality.view import Carrier
from tests.examples.flights.days import (
    DAY,
    NOON,
    ONE,
    OTHER,
    PLANE,
    SPARE,
    after,
    cancelled,
    departed,
    diverted,
    landed,
    scheduled,
    swapped,
)

given = scenarios(app)
flown = given(scheduled(), departed(), landed())


def row(flight: str = ONE) -> FlightRow:
    return FlightRow(flight, "UA", "JFK", "LAX", PLANE, DAY, NOON)


def test_the_board_follows_a_flight() -> None:
    given(scheduled()).then(row())
    given(scheduled(), swapped()).then(replace(row(), aircraft=SPARE))
    given(scheduled(), cancelled()).then(
        FlightRow(ONE, "UA", "JFK", "LAX", PLANE, DAY, NOON, "cancelled")
    )
    flown.then(FlightRow(ONE, "UA", "JFK", "LAX", PLANE, DAY, NOON, "landed", after(20), 20, -3))


def test_a_board_has_the_departures_of_an_airport_and_a_window() -> None:
    both = given(scheduled(OTHER), scheduled(ONE))
    hour = timedelta(hours=1)
    both.ask(Board("JFK", NOON, NOON + hour)).then([row(ONE), row(OTHER)])
    both.ask(Board("JFK", NOON - hour, NOON)).then([])
    both.ask(Board("LGA", NOON, NOON + hour)).then([])


def test_a_flight_that_was_diverted_stays_on_the_board_for_hours() -> None:
    """Nobody knows of it before three hours have gone by: the others have left the board then."""
    hour = timedelta(hours=1)
    later = Board("JFK", NOON + hour, NOON + 2 * hour)
    flown.ask(later).then([])
    gone = given(scheduled(), departed(), diverted())
    found = FlightRow(ONE, "UA", "JFK", "LAX", PLANE, DAY, NOON, "diverted", after(20), 20)
    gone.ask(later).then([found])
    gone.ask(Board("JFK", NOON + DIVERTED, NOON + 8 * hour)).then([found])
    gone.ask(Board("JFK", NOON + DIVERTED + hour, NOON + 8 * hour)).then([])
    for since, shown in ((DIVERTED, True), (DIVERTED + hour, False)):
        assert is_shown(found, NOON + since, NOON + 8 * hour) is shown


def test_flights_are_counted_by_state() -> None:
    given(scheduled(OTHER), scheduled(), departed()).ask(FlightStates()).then(
        {"scheduled": 1, "departed": 1}
    )


def test_15_minutes_are_late() -> None:
    given(scheduled(), departed(delay=14)).then(
        Carrier("UA", scheduled=1, departed=1, departure_delay_minutes=14)
    )
    given(scheduled(), departed(delay=15)).then(
        Carrier("UA", scheduled=1, departed=1, departure_delay_minutes=15, departed_15_late=1)
    )


def test_carriers_are_ranked_by_the_share_that_is_on_time() -> None:
    ranking = given(scheduled(), departed(delay=20), scheduled(OTHER), departed(OTHER, delay=0))
    (carrier,) = ranking.ask(Punctuality()).answer()
    assert carrier.on_time == 0.5
    ranking.ask(Punctuality(departures=3)).then([])


def test_an_airport_has_days_and_their_sum() -> None:
    day = given(scheduled(), departed(), diverted(), scheduled(OTHER), cancelled(OTHER))
    expected = AirportDay(DAY, "JFK", 2, 1, 1, 0, 1, 20, 0, 1)
    day.ask(AirportDays("JFK", DAY, DAY)).then([expected])
    day.ask(AirportDays("LGA", DAY, DAY)).then([])
    (airport,) = day.ask(Airports()).answer()
    assert (airport.origin, airport.scheduled, airport.diverted) == ("JFK", 2, 1)


def test_an_aircraft_has_days_leg_by_leg() -> None:
    first = Leg(ONE, "JFK", "LAX", after(20), 300)
    second = Leg(OTHER, "JFK", "LAX", after(400))
    flown.given(scheduled(OTHER), departed(OTHER, delay=400)).ask(DayOf(PLANE, DAY)).then(
        AircraftDay(DAY, PLANE, (first, second), 300)
    )
    flown.ask(DayOf("N0", DAY)).then(None)


def test_the_history_of_a_flight_is_read_from_the_log() -> None:
    told = flown.given(scheduled(OTHER)).ask(History(ONE)).answer()
    assert [recorded.event for recorded in told] == [scheduled(), departed(), landed()]
