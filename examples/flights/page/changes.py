"""Forms that send a command: the answer is a receipt, whose token the page waits with."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from diptych import Command, DiptychError, Invalid, Rejected
from diptych.http.problems import problem_of
from examples.flights.board.query import Board
from examples.flights.cancel.command import Cancel
from examples.flights.history.query import History
from examples.flights.page.desk import Desk, desk_of
from examples.flights.page.drawing import is_part, page
from examples.flights.schedule.event import FlightScheduled
from examples.flights.swap.command import Swap

LARGEST: Final = 10_000


async def fields_of(request: Request) -> dict[str, str]:
    """Return the fields of a form; each is given once."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            raise Invalid("That is too much for a form", field="body", rule=f"{LARGEST} bytes")
    found = parse_qs(body.decode("utf-8", "replace"), max_num_fields=20)
    return {name: values[0] for name, values in found.items()}


async def change(request: Request) -> Response:
    """Answer with the forms for one flight, each with a key of its own."""
    desk, flight = desk_of(request), request.path_params["flight"]
    history = (await desk.running.ask(History(flight))).value
    if not history or not isinstance(history[0].event, FlightScheduled):
        return page("rejected.html", 404, reason="there is no such flight", facts={}, flight=flight)
    scheduled = history[0].event
    fleet = await fleet_of(desk, scheduled)
    return page("change.html", flight=flight, scheduled=scheduled, fleet=fleet)


async def fleet_of(desk: Desk, scheduled: FlightScheduled) -> list[str]:
    """Return aircraft of the same carrier on the board, to choose from; some are in the air."""
    rows = (await desk.running.ask(Board(scheduled.origin, *desk.clock.window()))).value
    mine = {row.aircraft for row in rows if row.carrier == scheduled.carrier and row.aircraft}
    return sorted(mine - {scheduled.aircraft})


async def cancel(request: Request) -> Response:
    """Cancel a flight."""
    fields = await fields_of(request)
    return await _do(request, Cancel(request.path_params["flight"]), fields, "cancelled")


async def swap(request: Request) -> Response:
    """Give a flight another aircraft."""
    fields = await fields_of(request)
    aircraft = fields.get("aircraft", "").strip().upper()
    if not aircraft:
        return _refused(request, 422, "name an aircraft", {})
    command = Swap(request.path_params["flight"], aircraft)
    return await _do(request, command, fields, f"given to {aircraft}")


async def _do(request: Request, command: Command, fields: dict[str, str], what: str) -> Response:
    """Send a command under the form's key: sent twice, it takes effect once."""
    desk, flight = desk_of(request), request.path_params["flight"]
    try:
        receipt = await desk.running.do(command, key=fields.get("key"), actor="visitor")
    except Rejected as rejection:
        return _refused(request, 409, rejection.reason, dict(rejection.facts))
    except DiptychError as error:
        status, told, _ = problem_of(error)
        return _refused(request, status, told["detail"], {})
    if not is_part(request):
        return RedirectResponse(f"/flights/{flight}?after={receipt.token}", 303)
    return page(
        "accepted.html",
        flight=flight,
        airport=fields.get("airport", ""),
        what=what,
        receipt=receipt,
        token=str(receipt.token),
    )


def _refused(request: Request, status: int, reason: str, facts: dict[str, object]) -> Response:
    flight = request.path_params["flight"]
    if is_part(request):
        # A "no" is an answer, and a whole part of the page; browsers would log a 409 as an error.
        return page("rejected.html", reason=reason, facts=facts, flight=flight)
    facts_told = "; ".join(f"{name}: {fact}" for name, fact in facts.items())
    detail = f"{reason}. {facts_told}" if facts_told else reason
    return page("error.html", status, title="Not done", detail=detail.capitalize())


async def set_speed(request: Request) -> Response:
    """Let the flights' time go faster or slower, for everybody."""
    fields = await fields_of(request)
    desk = desk_of(request)
    try:
        desk.clock.run_at(float(fields.get("speed", "")))
    except ValueError:
        return _no_number()
    return _back(request)


async def set_lag(request: Request) -> Response:
    """Slow the views down on purpose, or let them go."""
    fields = await fields_of(request)
    desk_of(request).leash.hold(fields.get("slow") == "on")
    return _back(request)


def _no_number() -> Response:
    return page("error.html", 422, title="Not done", detail="A speed is a number.")


def _back(request: Request) -> Response:
    return Response(status_code=204) if is_part(request) else RedirectResponse("/", 303)
