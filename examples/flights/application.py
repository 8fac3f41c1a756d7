"""The application: all features put together."""

from diptych import App
from examples.flights.aircraft_use import query as aircraft_use
from examples.flights.airport_day import query as airport_day
from examples.flights.board import query as board
from examples.flights.cancel import command as cancel
from examples.flights.depart import command as depart
from examples.flights.divert import command as divert
from examples.flights.history import query as history
from examples.flights.land import command as land
from examples.flights.past_board import query as past_board
from examples.flights.punctuality import query as punctuality
from examples.flights.schedule import command as schedule
from examples.flights.swap import command as swap

app = App(
    "flights",
    schedule.module,
    swap.module,
    depart.module,
    land.module,
    divert.module,
    cancel.module,
    board.module,
    punctuality.module,
    airport_day.module,
    aircraft_use.module,
    history.module,
    past_board.module,
)
