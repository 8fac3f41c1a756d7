"""Waits on the PostgreSQL log end quietly, whatever happens beside them."""

import asyncio
import gc
from typing import Any

import pytest

from diptych.errors import Unavailable
from tests.logs.on_postgres import opened


async def test_a_wait_that_is_over_leaves_no_error_behind(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The poll fails while the last look at the head is under way: nobody needs to know."""
    lost: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    async with opened(postgres_url) as log:
        looks = 0

        async def head() -> int:
            nonlocal looks
            looks += 1
            if looks == 2:
                log._disappoint(Unavailable("away"))
            return 0

        monkeypatch.setattr(log, "head", head)
        assert await log.wait(0, timeout=0.01) == 0
        gc.collect()
        assert (looks, lost) == (2, [])
