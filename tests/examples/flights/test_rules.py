"""The rules of each feature, tested with its module alone."""

import pytest

from diptych import Event
from diptych.testing import rejected, scenarios
from examples.flights.cancel import command as cancel
from examples.flights.cancel.command import Cancel
from examples.flights.depart import command as depart
from examples.flights.depart.command import Depart
from examples.flights.divert import command as divert
from examples.flights.divert.command import Divert
from examples.flights.land import command as land
from examples.flights.land.command import Land
from examples.flights.schedule import command as schedule
from examples.flights.schedule.command import Schedule
from examples.flights.swap import command as swap
from examples.flights.swap.command import Swap
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

scheduling = scenarios(schedule.module)
departing = scenarios(depart.module)
landing = scenarios(land.module)
diverting = scenarios(divert.module)
cancelling = scenarios(cancel.module)
swapping = scenarios(swap.module)


@pytest.mark.parametrize("aircraft", [PLANE, None])
def test_a_flight_is_scheduled_with_or_without_an_aircraft(aircraft: str | None) -> None:
    command = Schedule(ONE, aircraft, "UA", "JFK", "LAX", DAY, NOON)
    scheduling().when(command).then(scheduled(aircraft=aircraft))


def test_a_flight_is_scheduled_once() -> None:
    command = Schedule(ONE, PLANE, "UA", "JFK", "LAX", DAY, NOON)
    scheduling(scheduled()).when(command).then(rejected("flight is already scheduled"))


def test_a_departure_knows_its_delay() -> None:
    departing(scheduled()).when(Depart(ONE, PLANE, after(20))).then(departed(delay=20))
    departing(scheduled()).when(Depart(ONE, PLANE, after(-5))).then(departed(delay=-5))


@pytest.mark.parametrize(
    "happened",
    [
        (),
        (scheduled(), departed()),
        (scheduled(), departed(), landed()),
        (scheduled(), departed(), diverted()),
        (scheduled(), cancelled()),
    ],
)
def test_only_a_scheduled_flight_departs_is_cancelled_or_gets_another_aircraft(
    happened: tuple[Event, ...],
) -> None:
    no = rejected("flight does not wait for departure", flight=ONE)
    departing(*happened).when(Depart(ONE, PLANE, NOON)).then(no)
    cancelling(*happened).when(Cancel(ONE)).then(no)
    swapping(*happened).when(Swap(ONE, SPARE)).then(no)


def test_an_aircraft_in_the_air_cannot_depart() -> None:
    """The rule that spans two entities: the other flight is fine, its aircraft is not."""
    departing(scheduled(ONE), scheduled(OTHER), departed(ONE)).when(
        Depart(OTHER, PLANE, after(30))
    ).then(rejected("aircraft is in the air", aircraft=PLANE, on_flight=ONE))


@pytest.mark.parametrize("down", [landed(ONE), diverted(ONE)])
def test_an_aircraft_that_came_down_departs_again(down: Event) -> None:
    departing(scheduled(ONE), scheduled(OTHER), departed(ONE), down).when(
        Depart(OTHER, PLANE, after(400))
    ).then(departed(OTHER, delay=400))


def test_a_landing_knows_the_minutes_in_the_air() -> None:
    landing(scheduled(), departed()).when(Land(ONE, PLANE, after(320), -3)).then(landed())
    diverting(scheduled(), departed()).when(Divert(ONE, PLANE, after(200))).then(diverted())


def test_only_a_flight_in_the_air_lands_or_is_diverted() -> None:
    no = rejected("flight is not in the air", flight=ONE)
    for happened in ((), (scheduled(),), (scheduled(), departed(), landed())):
        landing(*happened).when(Land(ONE, PLANE, after(320), 0)).then(no)
        diverting(*happened).when(Divert(ONE, PLANE, after(200))).then(no)


def test_the_aircraft_that_lands_is_the_one_that_departed() -> None:
    no = rejected("aircraft is not on this flight", flight=ONE)
    landing(scheduled(), departed()).when(Land(ONE, "N0", after(320), 0)).then(no)
    diverting(scheduled(), departed()).when(Divert(ONE, "N0", after(200))).then(no)


def test_a_scheduled_flight_can_be_cancelled() -> None:
    cancelling(scheduled()).when(Cancel(ONE)).then(cancelled())


def test_a_flight_gets_another_aircraft_and_knows_the_one_before() -> None:
    swapping(scheduled()).when(Swap(ONE, SPARE)).then(swapped(instead_of=PLANE))
    swapping(scheduled(aircraft=None)).when(Swap(ONE, SPARE)).then(swapped(instead_of=None))
    swapping(scheduled(), swapped()).when(Swap(ONE, PLANE)).then(swapped(PLANE, instead_of=SPARE))


def test_a_flight_is_not_given_the_aircraft_that_it_has() -> None:
    no = rejected("flight has this aircraft already")
    swapping(scheduled()).when(Swap(ONE, PLANE)).then(no)
    swapping(scheduled(), swapped()).when(Swap(ONE, SPARE)).then(no)


def test_a_flight_is_not_given_an_aircraft_in_the_air() -> None:
    swapping(scheduled(ONE), scheduled(OTHER, aircraft=SPARE), departed(ONE)).when(
        Swap(OTHER, PLANE)
    ).then(rejected("aircraft is in the air", aircraft=PLANE, on_flight=ONE))
