"""Verify in the background, so that one knows at any time what was proved, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from diptych.errors import DiptychError, Invalid
from diptych.read.following.engine import Engine


@asynccontextmanager
async def proving(
    verify: Callable[..., Coroutine[Any, Any, Any]], engines: Sequence[Engine], every: float | None
) -> AsyncGenerator[None]:
    """Verify each projection from its last proof on, every so many seconds; None: not at all.

    Of the workers that share a read database one does it.
    """
    if every is None:
        yield
        return
    if type(every) not in (int, float) or not every > 0:
        raise Invalid(
            "That is no time between two proofs",
            field="verify_every",
            rule="seconds, more than 0",
            got=repr(every),
        )
    task = asyncio.create_task(_prove(verify, engines, every), name="diptych-prove")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _prove(
    verify: Callable[..., Coroutine[Any, Any, Any]], engines: Sequence[Engine], every: float
) -> None:
    while True:
        await asyncio.sleep(every)
        for engine in engines:
            if engine.running and engine.crew.is_first and engine.projections:
                with suppress(DiptychError):  # the database is away: next time
                    await verify(*engine.projections, since="last")
