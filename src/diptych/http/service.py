"""The service: an application as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import unquote

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from diptych.app.running import Opening, Running
from diptych.errors import DefinitionError, calling
from diptych.http.asyncapi import asyncapi
from diptych.http.call import Call, Endpoint
from diptych.http.commands import Batch, OneCommand
from diptych.http.describing import Description, Page
from diptych.http.door import Authenticate, Door, Role
from diptych.http.events import EventStream
from diptych.http.health import Live, Metrics, Ready
from diptych.http.limits import Limits
from diptych.http.messages import ClientGone
from diptych.http.openapi import openapi
from diptych.http.problems import Problem
from diptych.http.queries import OneQuery
from diptych.http.security import ANY, LOOPBACK, SENT, SHOWN, Gate


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
        self._addresses = addresses_of(self._door)
        self._server = Router(lifespan=self.lifespan)
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
                self._door.watch.stop()
                self._door.running = None

    def stop(self) -> None:
        """Take no more requests and end the streams; what was accepted is still answered."""
        self._door.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._server(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, root = _place_of(scope)
        ways, name = self._addresses.get(path), ""
        if ways is None:
            folder, _, name = path.rpartition("/")
            ways = self._addresses.get(folder + "/") if name else None
        call = Call(scope, receive, send, dict(scope["headers"]), root, name)
        try:
            if not path.startswith("/health/"):  # probes call it by whatever address it has
                self._gate.require(call.headers)
            if ways is None:
                raise Problem("not-found", "/openapi.json lists what there is")
            endpoint = ways.get(scope["method"])
            if endpoint is None:
                allow = (b"allow", ", ".join(ways).encode())
                raise Problem("method-not-allowed", "See the header Allow", headers=[allow])
            await endpoint(call)
        except ClientGone:
            pass
        except Exception as error:
            if call.started:
                raise
            await call.problem(error)


def _place_of(scope: Scope) -> tuple[str, str]:
    """Return the path below the root path, and the root path.

    Litestar's paths lack the root, and have a slash at their end.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if path.endswith("/") and path != "/":
        path = path.rstrip("/")
        whole = unquote(scope.get("raw_path", b"").decode("latin-1")).rstrip("/")
        if not root and whole.endswith(path):
            return path, whole.removesuffix(path)
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :], root
    return path, root


Addresses: TypeAlias = dict[str, dict[str, Endpoint]]
"""Paths, and by which methods what is done. One that ends with a slash goes on with a name."""


def addresses_of(door: Door) -> Addresses:
    """Return the addresses of a role."""
    found: Addresses = {}

    def get(path: str, endpoint: Endpoint) -> None:
        found[path] = {"GET": endpoint, "HEAD": endpoint}

    if door.role in ("commands", "all"):
        found["/commands/"] = {"POST": OneCommand(door)}
        found["/commands"] = {"POST": Batch(door)}
    if door.role in ("queries", "all"):
        get("/queries/", OneQuery(door))
        get("/events", EventStream(door))
    get("/health/live", Live())
    get("/health/ready", Ready(door))
    get("/metrics", Metrics(door))
    if door.role != "workers":
        get("/openapi.json", Description(door, openapi))
        get("/asyncapi.json", Description(door, asyncapi))
        get("/reference", Page())
        get("/reference/", Page())
    return found
