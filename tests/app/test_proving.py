"""Verifying in the background: what was proved, and when, can be seen at any time."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from diptych import Key, View
from diptych.app.proving import _prove_due
from diptych.app.running import Running
from diptych.errors import Invalid
from diptych.read.status import Status
from diptych.testing.servers import RedisServer
from tests.app.test_two_readers import First, Step, make_app


class Copies(View, store="cache"):
    order: Key[str]


async def seen(running: Running, holds: Callable[[Status], bool]) -> Status:
    async with asyncio.timeout(60):
        while True:
            (one,) = await running.status()
            if holds(one):
                return one
            await asyncio.sleep(0.01)


async def test_what_is_proved_goes_on_with_the_log(tmp_path: Path) -> None:
    log, views = f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/views.db"
    async with make_app().open(log=log, views=views, verify_every=0.02) as running:
        head = 0
        for n in range(5):
            head = (await running.do(Step(f"{n}"))).last
        found = await seen(running, lambda s: s.proved is not None and s.proved.position >= head)
        assert found.proved is not None
        assert (found.proved.ok, found.proved.reason) == (True, "")
        assert found.proved.age >= 0
        assert found.workers == 1
        with sqlite3.connect(tmp_path / "views.db") as planted:
            planted.execute("UPDATE diptych_checkpoints SET count = count + 1")
        planted.close()
        found = await seen(running, lambda s: s.proved is not None and not s.proved.ok)
        assert found.proved is not None
        assert "not the sum" in found.proved.reason


@pytest.mark.parametrize("place", [0, 1])
async def test_one_of_two_workers_verifies_whichever_came_first(tmp_path: Path, place: int) -> None:
    log, views = f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/views.db"
    app = make_app()
    every: list[float | None] = [None, None]
    every[place] = 0.02
    async with (
        app.open(log=log, views=views, verify_every=every[0]) as one,
        app.open(log=log, views=views, verify_every=every[1]),
    ):
        last = (await one.do(Step("1"))).last
        await seen(one, lambda s: s.workers == 2)
        await seen(one, lambda s: s.proved is not None and s.proved.position == last)


async def test_what_another_worker_has_proved_in_time_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, views = f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/views.db"
    app = make_app()
    async with (
        app.open(log=log, views=views, verify_every=0.02) as one,
        app.open(log=log, views=views) as two,
    ):
        head = (await one.do(Step("1"))).last
        await seen(one, lambda s: s.proved is not None and s.proved.position >= head)
        (seldom,) = two._builders
        monkeypatch.setattr(seldom, "verify", None)
        assert 3500 < await _prove_due(seldom, 3600) <= 3600


async def test_a_proof_of_a_clock_that_is_wrong_is_not_waited_for(tmp_path: Path) -> None:
    log, views = f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/views.db"
    app = make_app()
    async with app.open(log=log, views=views) as running:
        await running.catch_up()
        await running.verify()
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    with sqlite3.connect(tmp_path / "views.db") as planted:
        planted.execute("UPDATE diptych_proofs SET time = ?", [future])
    planted.close()
    async with app.open(log=log, views=views, verify_every=60) as running:
        await seen(running, lambda s: s.proved is not None and s.proved.age > 0)


async def test_views_in_a_row_store_are_proved_too(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """Its books are in a read database whose own engine is another one."""
    at = f"sqlite:///{tmp_path}/all.db"
    views = {"main": at, "cache": f"{redis_server.url}?prefix=proving:"}
    app = make_app()

    @app.projects(Copies)
    def copies(row: Copies | None, event: First) -> Copies:
        return Copies(event.order)

    async with app.open(log=at, views=views, verify_every=0.02) as running:
        async with asyncio.timeout(60):
            while not all(one.proved for one in await running.status()):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("every", [0, -1, "1", True])
async def test_a_time_that_is_none_is_refused(tmp_path: Path, every: Any) -> None:
    opening = make_app().open(log="memory:", views="memory:", verify_every=every)
    with pytest.raises(Invalid, match="between two proofs"):
        async with opening:
            pass
