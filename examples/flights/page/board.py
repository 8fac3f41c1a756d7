"""The board of an airport: as it is, live, and as it was at a position of the log."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from diptych import Answer
from examples.flights.board.query import Board
from examples.flights.page import streams
from examples.flights.page.desk import Desk, desk_of
from examples.flights.page.drawing import draw, page
from examples.flights.page.places import AIRPORTS
from examples.flights.page.rows import rows_of
from examples.flights.past_board.query import PastBoard


async def home(request: Request) -> Response:
    """Go to the first airport."""
    return RedirectResponse(request.url_for("board", airport="EWR").path)


async def board(request: Request) -> Response:
    """Show the board as it is known now; the page follows it by itself."""
    desk, airport = desk_of(request), request.path_params["airport"]
    if airport not in AIRPORTS:
        return page("error.html", 404, title="No such airport", detail=f"{airport} is not here.")
    answer = await desk.running.ask(Board(airport, *desk.clock.window()))
    return page(
        "board.html",
        airport=airport,
        token=str(answer.token),
        rows=_rows(desk, airport, answer),
        parts=streams.Bar(desk).parts(),
    )


async def board_live(request: Request) -> Response:
    """Stream the board, whenever it has become another."""
    desk, airport = desk_of(request), request.path_params["airport"]
    shown = streams.Shown(
        "rows",
        lambda: Board(airport, *desk.clock.window()),
        lambda answer: _rows(desk, airport, answer),
    )
    return await streams.answer(request, shown)


def _rows(desk: Desk, airport: str, answer: Answer[Any]) -> str:
    rows = rows_of(answer.value, desk.clock.now)
    return draw("_rows.html", airport=airport, rows=rows, as_of=answer.as_of, past=False)


async def settled(request: Request) -> Response:
    """Say whether the board shows a command's effect, after waiting for its token."""
    desk, flight = desk_of(request), request.path_params["flight"]
    after, airport = (request.query_params.get(name, "") for name in ("after", "airport"))
    question = Board(airport, *desk.clock.window())
    found = await desk.running.ask(question, after=after, wait=1.0)
    for _ in range(9):  # not ten seconds at once: the server may be stopped meanwhile
        if desk.closing or not found.stale:
            break
        found = await desk.running.ask(question, after=after, wait=1.0)
    again = f"?{request.url.query}"
    return page("_settled.html", flight=flight, as_of=found.as_of, stale=found.stale, again=again)


async def past(request: Request) -> Response:
    """Show the board as it was, folded from the log."""
    desk, airport = desk_of(request), request.path_params["airport"]
    head = await desk.running.log.head()
    asked = request.query_params.get("position", "")
    position = min(int(asked), head) if asked.isdigit() and len(asked) < 12 else head
    answer = await desk.running.ask(PastBoard(airport, position))
    then = answer.value
    rows = draw(
        "_rows.html",
        airport=airport,
        rows=rows_of(then.rows, then.moment),
        as_of=then.position,
        past=True,
    )
    return page("past.html", airport=airport, then=then, head=head, rows=rows, position=position)
