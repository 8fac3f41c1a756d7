"""The service in other ASGI applications, and on other servers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from litestar import Litestar, asgi
from starlette.applications import Starlette
from starlette.routing import Mount

from diptych.errors import DefinitionError
from diptych.http import Service, service
from tests.http.conftest import Serve, placing
from tests.http.reading import following
from tests.http.shop import app


def mounted() -> Service:
    return service(app.open(log="memory:", views="memory:"))


def in_fastapi() -> Any:
    api = mounted()
    host = FastAPI(lifespan=api.lifespan)
    host.mount("/shop", api)
    return host


def in_litestar() -> Any:
    api = mounted()
    return Litestar(
        route_handlers=[asgi("/shop", is_mount=True, copy_scope=True)(api.__call__)],
        lifespan=[api.lifespan],
    )


def in_starlette() -> Any:
    api = mounted()
    return Starlette(routes=[Mount("/shop", api)], lifespan=api.lifespan)


@asynccontextmanager
async def started(host: Any) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of an application whose lifespan runs, as a server would run it."""
    opening = host.lifespan() if isinstance(host, Litestar) else host.router.lifespan_context(host)
    whole: Any = host
    transport = httpx.ASGITransport(whole)
    async with (
        opening,
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


@pytest.mark.parametrize("make", [in_fastapi, in_litestar, in_starlette])
async def test_it_works_below_a_path_of_another_application(make: Any) -> None:
    async with started(make()) as client:
        done = await client.post("/shop/commands/Place", json=placing(1))
        assert done.status_code == 200, done.text
        headers = {"Diptych-After": done.headers["Diptych-Token"]}
        answer = await client.get("/shop/queries/OrdersOf?customer=ann", headers=headers)
        assert [row["order"] for row in answer.json()] == ["1"]
        assert (await client.get("/shop/queries/OrdersOf")).json()["code"] == "invalid"
        assert (await client.get("/shop/nowhere")).json()["code"] == "not-found"
        wrong = await client.get("/shop/commands/Place")
        assert (wrong.status_code, wrong.json()["code"]) == (405, "method-not-allowed")
        described = (await client.get("/shop/openapi.json")).json()
        assert described["servers"] == [{"url": "/shop"}]
        host = {"Host": "10.0.0.7"}
        assert (await client.get("/shop/health/ready", headers=host)).status_code == 200


async def test_an_open_application_is_served_and_left_open() -> None:
    async with app.open(log="memory:", views="memory:") as running:
        api = service(running)
        transport = httpx.ASGITransport(api)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.post("/commands/Place", json=placing(1))).status_code == 200
        assert await running.log.head() == 1


def test_what_is_neither_opening_nor_open_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"app\.open") as caught:
        service(app)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert "test_mounting.py" in caught.value.at


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
async def test_a_server_serves_and_stops(serve: Serve, server: str) -> None:
    served = serve("--server", server)
    async with served.client() as client:
        done = await client.post("/commands/Place", json=placing(1))
        assert done.status_code == 200
        resume = {"Last-Event-ID": done.headers["Diptych-Token"], "Prefer": "wait=10"}
        async with following(client, "/queries/OrdersOf?customer=ann", **resume) as events:
            assert [row["order"] for row in (await anext(events)).data["value"]] == ["1"]
            await client.post("/commands/Place", json=placing(2))
            assert len((await anext(events)).data["value"]) == 2
    assert served.stop() == 0
