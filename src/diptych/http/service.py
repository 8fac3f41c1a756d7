"""The service: an application as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diptych.app.running import Opening, Running
from diptych.errors import DefinitionError, calling
from diptych.http.commands import Batch, OneCommand
from diptych.http.door import Authenticate, Door, Role
from diptych.http.events import EventStream
from diptych.http.health import Live, Ready
from diptych.http.limits import Limits
from diptych.http.messages import ClientGone, respond_problem
from diptych.http.problems import Problem
from diptych.http.queries import OneQuery


def service(
    opening: AbstractAsyncContextManager[Running] | Running,
    /,
    *,
    role: Role = "all",
    limits: Limits | None = None,
    authenticate: Authenticate | None = None,
) -> Service:
    """Return the service of an application: ``service(app.open(log=URL, views=URL))``.

    What was not opened yet is opened when the server starts, and closed when it stops; a
    ``Running`` is left open. ``role`` says which addresses there are. ``authenticate`` says who
    sends a request. Raises ``DefinitionError``.
    """
    return Service(opening, role=role, limits=limits, authenticate=authenticate)


class Service:
    """An ASGI application; to be mounted in another one, see ``lifespan``."""

    def __init__(
        self,
        opening: AbstractAsyncContextManager[Running] | Running,
        /,
        *,
        role: Role,
        limits: Limits | None,
        authenticate: Authenticate | None,
    ) -> None:
        if not isinstance(opening, (Opening, Running)):
            raise DefinitionError(
                "A service is made of what app.open(...) returns, or of an open application",
                at=calling(),
                got=type(opening).__name__,
            )
        self._opening = opening
        self._door = Door(opening.definitions, limits or Limits(), authenticate, role)
        if isinstance(opening, Running):
            self._door.running = opening
        self._router = Router(
            routes_of(self._door),
            redirect_slashes=False,
            default=_not_found,
            lifespan=self.lifespan,
        )

    @asynccontextmanager
    async def lifespan(self, host: Any = None) -> AsyncGenerator[None]:
        """Open the application, and close it at the end.

        A server does it. In another ASGI application, that one must:
        ``FastAPI(lifespan=shop.lifespan)``, ``Litestar(lifespan=[shop.lifespan])``.
        """
        if isinstance(self._opening, Running):
            yield
            return
        async with self._opening as running:
            self._door.running = running
            self._door.closing = False
            try:
                yield
            finally:
                self.stop()
                self._door.running = None

    def stop(self) -> None:
        """Take no more requests and end the streams; what was accepted is still answered."""
        self._door.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._router(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._router({**scope, "app": self}, receive, sending)
        except ClientGone:
            pass
        except HTTPException as error:
            headers = [(k.lower().encode(), v.encode()) for k, v in (error.headers or {}).items()]
            await respond_problem(
                sending,
                Problem("method-not-allowed", "See the header Allow", headers=headers),
            )
        except Exception as error:
            if started:
                raise
            await respond_problem(sending, error)


def routes_of(door: Door) -> Sequence[Route]:
    """Return the addresses of a role."""
    found: list[Route] = [
        Route("/health/live", _app(Live()), methods=["GET"]),
        Route("/health/ready", _app(Ready(door)), methods=["GET"]),
    ]
    if door.role in ("commands", "all"):
        found += [
            Route("/commands/{name}", _app(OneCommand(door)), methods=["POST"]),
            Route("/commands", _app(Batch(door)), methods=["POST"]),
        ]
    if door.role in ("queries", "all"):
        found += [
            Route("/queries/{name}", _app(OneQuery(door)), methods=["GET"]),
            Route("/events", _app(EventStream(door)), methods=["GET"]),
        ]
    return found


def _app(endpoint: ASGIApp) -> ASGIApp:
    return endpoint


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise Problem("not-found", "/openapi.json lists what there is")
