"""Verifying in the background: what was proved, and when, can be seen at any time."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diptych.app.running import Running
from diptych.errors import Invalid
from diptych.read.status import Status
from tests.app.test_two_readers import Step, make_app


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


async def test_one_of_several_workers_does_it(tmp_path: Path) -> None:
    log, views = f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/views.db"
    app = make_app()
    async with (
        app.open(log=log, views=views, verify_every=0.02) as one,
        app.open(log=log, views=views, verify_every=0.02) as two,
    ):
        await one.do(Step("1"))
        await seen(two, lambda s: s.workers == 2 and s.proved is not None)
        async with asyncio.timeout(60):
            while True:
                first = [r._engines[0].crew.is_first for r in (one, two)]
                if sum(first) == 1:
                    break
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("every", [0, -1, "1", True])
async def test_a_time_that_is_none_is_refused(tmp_path: Path, every: Any) -> None:
    opening = make_app().open(log="memory:", views="memory:", verify_every=every)
    with pytest.raises(Invalid, match="between two proofs"):
        async with opening:
            pass
