"""How times become figures."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from bench.figures import Figures


async def together(in_flight: int, client: Callable[[int], Awaitable[None]]) -> float:
    """Run so many clients at once; return the seconds until the last is done."""
    began = time.perf_counter()
    await asyncio.gather(*[client(number) for number in range(in_flight)])
    return time.perf_counter() - began


def percentiles(taken: list[float]) -> Figures:
    """Return p50 and p99 of seconds, in milliseconds."""
    if len(taken) < 2:
        taken = taken * 2
    hundredths = statistics.quantiles(taken, n=100, method="inclusive")
    return {"p50 ms": hundredths[49] * 1000, "p99 ms": hundredths[98] * 1000}
