"""Verify in the background, so that one knows at any time what was proved, and when."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

from diptych.errors import DiptychError, Invalid
from diptych.read.versioning.rebuild import Builder


@asynccontextmanager
async def proving(builders: Sequence[Builder], every: float | None) -> AsyncGenerator[None]:
    """Verify each projection from its last proof on, every so many seconds; None: not at all.

    What anybody has proved within that time is left alone. So of several workers one does it,
    whichever others there are; two that do it at once only waste their work.
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
    task = asyncio.create_task(_prove(builders, every), name="diptych-prove")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _prove(builders: Sequence[Builder], every: float) -> None:
    wait = 0.0
    while True:
        # Not all workers at the same moment: the first one's proof spares the others theirs.
        await asyncio.sleep(wait + random.uniform(0, every / 10))
        wait = every
        for builder in builders:
            if builder.engine.running:
                with suppress(DiptychError):  # the database is away: next time
                    wait = min(wait, await _prove_due(builder, every))


async def _prove_due(builder: Builder, every: float) -> float:
    """Prove what nobody has proved for so long; return in how many seconds the next is due."""
    ages = await builder.proof_ages()
    # A proof of the future is by a clock that is wrong: who waited for it might never prove.
    due = [name for name, age in ages.items() if not abs(age) < every]
    if due:
        await builder.verify(due, since="last")
    return min([every, *(every - age for name, age in ages.items() if name not in due)])
