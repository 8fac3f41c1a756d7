"""All addresses, and what stands before them."""

from __future__ import annotations

from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diptych import DiptychError
from diptych.http import service
from diptych.http.messages import headers_of
from diptych.http.problems import Problem, problem_of
from diptych.http.security import LOOPBACK, Gate
from examples.flights.page import board, changes, stories
from examples.flights.page.desk import Desk
from examples.flights.page.drawing import HERE, page

_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
        "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def site_of(desk: Desk) -> Starlette:
    """Return the site: pages, and under /api the application's own door."""
    site = Starlette(
        routes=[
            Route("/", board.home),
            Route("/board/{airport}", board.board, name="board"),
            Route("/board/{airport}/live", board.board_live),
            Route("/board/{airport}/then", board.past),
            Route("/flights/{flight}", stories.flight),
            Route("/flights/{flight}/settled", board.settled),
            Route("/flights/{flight}/change", changes.change),
            Route("/flights/{flight}/cancel", changes.cancel, methods=["POST"]),
            Route("/flights/{flight}/swap", changes.swap, methods=["POST"]),
            Route("/aircraft/{tail}", stories.aircraft),
            Route("/carriers", stories.carriers),
            Route("/carriers/live", stories.carriers_live),
            Route("/clock", changes.set_speed, methods=["POST"]),
            Route("/lag", changes.set_lag, methods=["POST"]),
            Mount("/static", StaticFiles(directory=HERE / "static")),
            Mount("/api", service(desk.running)),
        ],
        middleware=[Middleware(_Guard)],
        exception_handlers={DiptychError: _failed, HTTPException: _missing},
    )
    site.state.desk = desk
    return site


class _Guard:
    """Refuses foreign names and origins, as the door does, and tells browsers what not to do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._gate = Gate(LOOPBACK, ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"] = list(message.get("headers", ()))
                known = {name for name, _ in headers}
                told = {name.encode(): text.encode() for name, text in _HEADERS.items()}
                headers += [(name, text) for name, text in told.items() if name not in known]
            await send(message)

        try:
            self._gate.require(headers_of(scope))
        except Problem as problem:
            status, told, _ = problem_of(problem)
            refusal = page("error.html", status, title=told["title"], detail=told["detail"])
            await refusal(scope, receive, sending)
            return
        await self._app(scope, receive, sending)


async def _failed(_request: Request, error: Exception) -> Response:
    status, told, _ = problem_of(error)
    return page("error.html", status, title=told["title"], detail=told["detail"])


async def _missing(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return page("error.html", status, title="Not here", detail="There is no such page.")
