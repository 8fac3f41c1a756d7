"""A server that is killed under load, and clients that send again: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import httpx

from tests.http.conftest import Serve, placing, quiet_port
from tests.http.shop import Placed, app

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
    answered: dict[str, tuple[int, bool]] = {}
    sent: Counter[str] = Counter()
    enough = asyncio.Condition()
    stopping = asyncio.Event()

    async def send(client: httpx.AsyncClient, order: str) -> None:
        """Send with one key until there is an answer."""
        while True:
            sent[order] += 1
            try:
                done = await client.post(
                    "/commands/Place", json=placing(order), headers={"Idempotency-Key": order}
                )
            except httpx.TransportError:
                await asyncio.sleep(0.02)
                continue
            if done.status_code == 503:
                continue
            assert done.status_code == 200, done.text
            answered[order] = (done.json()["first"], done.json()["replayed"])
            async with enough:
                enough.notify_all()
            return

    async def work(number: int) -> None:
        async with httpx.AsyncClient(base_url=base, timeout=10) as client:
            count = 0
            while not stopping.is_set():
                await send(client, f"{number}-{count}")
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
        found = [recorded async for recorded in running.events.all([Placed])]
        places = {one.event.order: one.position for one in found if isinstance(one.event, Placed)}
        assert len(places) == len(found), "a command took effect twice"
        assert places == {order: first for order, (first, _) in answered.items()}
        await running.catch_up()
        assert all(verdict.ok for verdict in await running.verify())
