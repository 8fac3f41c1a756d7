"""Clients that are slow, silent or stay for ever do no harm to others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from diptych.errors import TimedOut
from diptych.http import Limits, service
from diptych.http.door import InTime, Watch
from tests.http.conftest import on_uvicorn, placing, until
from tests.http.reading import following
from tests.http.shop import app

LIVE = "/queries/OrdersOf?customer=ann"


@asynccontextmanager
async def here(limits: Limits) -> AsyncGenerator[tuple[str, Any]]:
    """The shop on a real server in this process, and what it holds open."""
    async with app.open(log="memory:", views="memory:") as running:
        api = service(running, limits=limits)
        async with on_uvicorn(api) as url:
            yield url, api


def open_streams(api: Any) -> int:
    return len(api._door._streams)


async def test_a_client_that_takes_nothing_is_dropped_and_others_go_on() -> None:
    async with (
        here(Limits(send=0.3)) as (url, api),
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        request = f"GET {LIVE} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", httpx.URL(url).port))
            deaf.sendall(request.encode())
            await until(lambda: open_streams(api) == 1)
            async with following(client, LIVE) as events:
                number = 0
                while open_streams(api) != 1 or not number:
                    for _ in range(50):
                        number += 1
                        assert (
                            await client.post("/commands/Place", json=placing(number))
                        ).is_success
                    await anext(events)
                async for answer in events:
                    if len(answer.data["value"]) == number:
                        break


async def test_a_stream_without_news_says_that_it_is_alive() -> None:
    async with (
        here(Limits(heartbeat=0.05)) as (url, _),
        httpx.AsyncClient(base_url=url) as client,
        following(client, "/events") as events,
    ):
        reading = asyncio.ensure_future(anext(events))
        await until(lambda: events.comments >= 2)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_a_stream_ends_after_its_time_and_when_its_client_goes() -> None:
    async with here(Limits(stream=0.2, heartbeat=0.05)) as (url, api):
        async with httpx.AsyncClient(base_url=url) as client, following(client, LIVE) as events:
            assert len([one async for one in events]) == 1
        await until(lambda: open_streams(api) == 0)
    async with here(Limits()) as (url, api):
        async with httpx.AsyncClient(base_url=url) as client, following(client, LIVE) as events:
            await anext(events)
            assert open_streams(api) == 1
        await until(lambda: open_streams(api) == 0)
        running = api._door.running
        await until(lambda: not running._live._topics)


async def test_streams_are_bounded() -> None:
    async with (
        here(Limits(streams=1)) as (url, _),
        httpx.AsyncClient(base_url=url) as client,
        following(client, LIVE) as events,
    ):
        await anext(events)
        refused = await client.get(LIVE, headers={"Accept": "text/event-stream"})
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert (await client.get(LIVE)).status_code == 200


async def test_each_of_many_is_given_its_own_time_and_a_cancellation_stays_one() -> None:
    watch = Watch(0.05)

    async def late() -> None:
        with InTime(watch):
            await asyncio.Event().wait()

    for _ in range(2):  # the timer that has rung is set anew
        tasks = [asyncio.create_task(late()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in found] == [TimedOut, asyncio.CancelledError, TimedOut]
    with InTime(watch):
        pass
    watch.stop()


async def test_what_outlasts_the_grace_of_a_stop_is_answered_and_not_a_stack_trace() -> None:
    """The server cancels it then; before the stop a cancellation is the host's own affair."""
    async with app.open(log="memory:", views="memory:", projections=False) as running:
        api = service(running)
        transport = httpx.ASGITransport(api)
        async with httpx.AsyncClient(base_url="http://localhost", transport=transport) as client:
            placed = await client.post("/commands/Place", json=placing(1))
            late = {"diptych-after": placed.headers["diptych-token"], "prefer": "wait=30"}

            async def cancelled() -> httpx.Response:
                asking = asyncio.create_task(client.get(LIVE, headers=late))
                await until(lambda: api._door.asking._count)
                asking.cancel()
                return await asking

            with pytest.raises(asyncio.CancelledError):
                await cancelled()
            waiting = asyncio.create_task(client.get(LIVE, headers=late))
            await until(lambda: api._door.asking._count)
            api.stop()
            waiting.cancel()
            answer = await waiting
            assert answer.status_code == 504
            assert answer.json()["code"] == "timed-out"
