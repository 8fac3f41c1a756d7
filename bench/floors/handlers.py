"""Bare handlers by Starlette, under the very server, loop and settings that ours has.

``python -m bench.floors.handlers commands`` decodes a command and answers; ``queries URL`` runs
the SQL of the query, and encodes its row. It prints its address as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import msgspec
import uvloop
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from bench.orders import Add, Confirm, Open, Summary
from bench.places import file_of
from diptych.http import serving

_COMMANDS: Final = {kind.__name__: msgspec.json.Decoder(kind) for kind in (Open, Add, Confirm)}
_SELECT: Final = 'SELECT "order", customer, items, status FROM summaries WHERE "order" = '
_encode = msgspec.json.Encoder().encode

Find = Callable[[str], Awaitable[Any]]


class Bare:
    """An application of one route."""

    def __init__(self, route: Route) -> None:
        self._router = Router([route])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        await self._router(scope, receive, send)

    def stop(self) -> None:
        """Nothing is to be closed."""


async def command(request: Request) -> Response:
    """Decode a command, and nothing else."""
    _COMMANDS[request.path_params["name"]].decode(await request.body())
    return Response(b"{}", media_type="application/json")


def query(find: Find) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler that finds a row by its key."""

    async def handler(request: Request) -> Response:
        row = await find(request.query_params["order"])
        found = None if row is None else Summary(*row)
        return Response(_encode(found), media_type="application/json")

    return handler


@asynccontextmanager
async def finder(url: str) -> AsyncGenerator[Find]:
    """Return the function that runs the SQL: by asyncpg's pool, or sqlite3 on this thread."""
    if url.startswith("sqlite:"):
        connection = sqlite3.connect(file_of(url))

        async def by_sqlite(order: str) -> Any:
            return connection.execute(_SELECT + "?", (order,)).fetchone()

        yield by_sqlite
        connection.close()
        return
    async with asyncpg.create_pool(url) as pool:

        async def by_asyncpg(order: str) -> Any:
            return await pool.fetchrow(_SELECT + "$1", order)

        yield by_asyncpg


async def serve(kind: str, url: str) -> None:
    """Serve until a signal."""
    with serving.bound("127.0.0.1", 0) as sock:

        def started(address: str) -> None:
            print(json.dumps({"url": address}), flush=True)

        async def run(route: Route) -> None:
            await serving.run(Bare(route), sock, "uvicorn", grace=10.0, started=started)

        if kind == "commands":
            await run(Route("/commands/{name}", command, methods=["POST"]))
            return
        async with finder(url) as find:
            await run(Route("/queries/SummaryOf", query(find), methods=["GET"]))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(*sys.argv[1:]))
