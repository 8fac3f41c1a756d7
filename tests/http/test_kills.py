"""A server that is killed under load, and clients that send again: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import httpx
import msgspec

from diptych.codec import metadata_of
from diptych.log import StoredEvent
from diptych.testing.checker import check_history
from diptych.testing.history import Call, Done, DoRequest, History
from tests.http.conftest import Serve, placing, quiet_port
from tests.http.shop import app

CLIENTS = 12
KILLS = 4
BETWEEN = 60
"""Answers between one kill and the next."""


async def test_kill_9_under_load_loses_nothing_and_does_nothing_twice(
    serve: Serve, tmp_path: Path
) -> None:
    port = quiet_port()
    server = serve(port=port)
    base = server.url
    history = History()
    answered: set[str] = set()
    sent: Counter[str] = Counter()
    enough = asyncio.Condition()
    stopping = asyncio.Event()

    async def send(client: httpx.AsyncClient, name: str, order: str) -> None:
        """Send with one key until there is an answer."""
        while order not in answered:
            sent[order] += 1
            call = history.begin(name, DoRequest("Place", order, f"{order}#{sent[order]}"))
            try:
                done = await client.post(
                    "/commands/Place", json=placing(order), headers={"Idempotency-Key": order}
                )
            except httpx.TransportError as error:
                history.end(call, "unknown", error=type(error).__name__)
                await asyncio.sleep(0.02)
                continue
            told = done.json()
            if done.status_code == 503:
                history.end(call, "failed", error=told["code"])
                continue
            assert done.status_code == 200, done.text
            receipt = Done(told["command_id"], told["first"], told["last"], told["replayed"])
            history.end(call, "ok", receipt)
            answered.add(order)
            async with enough:
                enough.notify_all()

    async def work(number: int) -> None:
        async with httpx.AsyncClient(base_url=base, timeout=10) as client:
            count = 0
            while not stopping.is_set():
                await send(client, f"client {number}", f"{number}-{count}")
                count += 1

    def has(wanted: int) -> bool:
        return len(answered) >= wanted

    clients = [asyncio.create_task(work(number)) for number in range(CLIENTS)]
    for kill in range(1, KILLS + 1):
        async with enough:
            await enough.wait_for(partial(has, kill * BETWEEN))
        await asyncio.to_thread(server.stop, signal.SIGKILL)
        server = await asyncio.to_thread(serve, port=port)
    stopping.set()
    await asyncio.gather(*clients)
    assert server.stop() == 0

    assert len(answered) >= KILLS * BETWEEN
    assert max(sent.values()) > 1  # the kills did hit
    url = f"sqlite:///{tmp_path}/shop.db"
    async with app.open(log=url, views=url) as running:
        events = (await running.log.read(limit=100_000)).events
        calls = correlated(history.calls, events)
        assert await check_history(calls, running.log) == []
        assert await check_history(calls[1:], running.log)  # an event that nobody asked for
        assert {event.tags for event in events} == {(f"order:{order}",) for order in answered}
        await running.catch_up()
        assert all(verdict.ok for verdict in await running.verify())


def correlated(calls: list[Call], events: list[StoredEvent]) -> list[Call]:
    """Give each attempt the id that its events bear, which the server has made.

    Who was answered was told it. What else an order has in the log is that of attempts that were
    not answered, in their order; what is left over is nobody's, and the checker says so.
    """
    known = {c.answer.command_id for c in calls if isinstance(c.answer, Done)}
    left: defaultdict[str, list[str]] = defaultdict(list)
    for event in events:
        if (made := metadata_of(event).command_id) not in known:
            left[event.tags[0].removeprefix("order:")].append(made)
    found: list[Call] = []
    for call in calls:
        request = call.request
        assert isinstance(request, DoRequest)
        if isinstance(call.answer, Done):
            made = call.answer.command_id
        elif call.outcome == "unknown" and left[request.key or ""]:
            made = left[request.key or ""].pop(0)
        else:
            made = request.correlation
        found.append(
            msgspec.structs.replace(call, request=DoRequest(request.command, request.key, made))
        )
    return found
