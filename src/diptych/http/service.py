"""The service: an application as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import unquote

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diptych.app.running import Opening, Running
from diptych.errors import DefinitionError, calling
from diptych.http.asyncapi import asyncapi
from diptych.http.commands import Batch, OneCommand
from diptych.http.describing import Description, Page
from diptych.http.door import Authenticate, Door, Role
from diptych.http.events import EventStream
from diptych.http.health import Live, Metrics, Ready, is_health
from diptych.http.limits import Limits
from diptych.http.messages import ClientGone, headers_of, respond_problem
from diptych.http.openapi import openapi
from diptych.http.problems import Problem
from diptych.http.queries import OneQuery
from diptych.http.security import ANY, LOOPBACK, SENT, SHOWN, Gate, secured


def service(
    opening: AbstractAsyncContextManager[Running] | Running,
    /,
    *,
    role: Role = "all",
    limits: Limits | None = None,
    authenticate: Authenticate | None = None,
    hosts: Sequence[str] | None = None,
    origins: Sequence[str] = (),
) -> Service:
    """Return the service of an application: ``service(app.open(log=URL, views=URL))``.

    What was not opened yet is opened when the server starts, and closed when it stops; a
    ``Running`` is left open. ``role`` says which addresses there are. ``authenticate`` says who
    sends a request. ``hosts`` are the names that it answers to, "*": any; by default any where
    requests are authenticated, else those of this machine alone. ``origins`` are the origins
    (``https://shop.example``) of pages besides its own that may call it. Raises
    ``DefinitionError``.
    """
    if hosts is None:
        hosts = LOOPBACK if authenticate is None else (ANY,)
    return Service(
        opening,
        role=role,
        limits=limits or Limits(),
        authenticate=authenticate,
        gate=Gate(hosts, origins),
        origins=origins,
    )


class Service:
    """An ASGI application; to be mounted in another one, see ``lifespan``."""

    def __init__(
        self,
        opening: AbstractAsyncContextManager[Running] | Running,
        /,
        *,
        role: Role,
        limits: Limits,
        authenticate: Authenticate | None,
        gate: Gate,
        origins: Sequence[str],
    ) -> None:
        if not isinstance(opening, (Opening, Running)):
            raise DefinitionError(
                "A service is made of what app.open(...) returns, or of an open application",
                at=calling(),
                got=type(opening).__name__,
            )
        self._opening = opening
        self._gate = gate
        self._door = Door(opening.definitions, limits, authenticate, role)
        if isinstance(opening, Running):
            self._door.running = opening
        self._router = Router(
            routes_of(self._door),
            redirect_slashes=False,
            default=_not_found,
            lifespan=self.lifespan,
        )
        self._app: ASGIApp = self._answer
        if origins:
            self._app = CORSMiddleware(
                self._answer,
                allow_origins=origins,
                allow_methods=("GET", "POST"),
                allow_headers=(*SENT, "authorization"),
                expose_headers=SHOWN,
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
        await self._app({**scope, **_place_of(scope), "app": self}, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if not started:
                started = True
                message = secured(message)
            await send(message)

        try:
            if not is_health(scope):
                self._gate.require(headers_of(scope))
            await self._router(scope, receive, sending)
        except ClientGone:
            pass
        except HTTPException as error:  # the router's: the address is there, the method is not
            headers = [(k.lower().encode(), v.encode()) for k, v in (error.headers or {}).items()]
            wrong = Problem("method-not-allowed", "See the header Allow", headers=headers)
            await respond_problem(sending, wrong)
        except Exception as error:
            if started:
                raise
            await respond_problem(sending, error)


def _place_of(scope: Scope) -> dict[str, str]:
    """Return path and root path. Litestar's lack the root, and have a slash at their end."""
    path: str = scope["path"]
    if not path.endswith("/") or path == "/":
        return {}
    path = path.rstrip("/")
    root: str = scope.get("root_path", "")
    whole = unquote(scope.get("raw_path", b"").decode("latin-1")).rstrip("/")
    if not root and whole.endswith(path):
        root = whole.removesuffix(path)
    return {"path": path, "root_path": root}


def routes_of(door: Door) -> Sequence[Route]:
    """Return the addresses of a role."""
    found: list[Route] = []  # looked through in this order: what is asked most comes first
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
    found += [
        Route("/health/live", _app(Live()), methods=["GET"]),
        Route("/health/ready", _app(Ready(door)), methods=["GET"]),
        Route("/metrics", _app(Metrics(door)), methods=["GET"]),
    ]
    if door.role != "workers":
        found += [
            Route("/openapi.json", _app(Description(door, openapi)), methods=["GET"]),
            Route("/asyncapi.json", _app(Description(door, asyncapi)), methods=["GET"]),
            Route("/reference", _app(Page()), methods=["GET"]),
            Route("/reference/{file}", _app(Page()), methods=["GET"]),
        ]
    return found


def _app(endpoint: ASGIApp) -> ASGIApp:
    return endpoint


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise Problem("not-found", "/openapi.json lists what there is")
