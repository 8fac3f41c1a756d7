"""9: the resident memory of four projections' catch-up from nothing, in a process of its own.

``python -m bench.scenarios.memory LOG VIEWS`` is that process; it prints its figures as JSON.
"""

from __future__ import annotations

import asyncio
import functools
import json
import resource
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from bench import loader
from bench.figures import OURS, Backend, Contest, Entrant, Figures
from bench.four import opened
from bench.places import Place
from bench.setup import Setup
from diptych.errors import SqliteVersionWarning


def contests(setup: Setup) -> Iterator[Contest]:
    """Yield the contests of scenario 9: one for each size of the log."""
    sizes = setup.sizes
    for backend in setup.backends:
        for events in sorted({sizes.small, sizes.events, sizes.largest}):
            entrants = [Entrant(OURS, 1, functools.partial(ours, setup, backend, events))]
            rounds = 1 if events > sizes.events else None  # it takes minutes, and is always alike
            yield Contest(9, f"memory of a catch-up, {events:,} events", backend, entrants, rounds)


async def ours(setup: Setup, backend: Backend, events: int, place: Place) -> Figures:
    """Run a catch-up in a new process; return its peak."""
    log = await setup.prepared(backend, OURS, events, loader.fill)
    command = [sys.executable, "-m", "bench.scenarios.memory", log.url, place.database()]
    root = Path(__file__).parents[2]
    child = await asyncio.create_subprocess_exec(*command, cwd=root, stdout=subprocess.PIPE)
    output, _ = await child.communicate()
    assert child.returncode == 0
    answer = json.loads(output)
    assert answer["events"] >= events
    return {"MB": answer["MB"]}


async def _catch_up(log: str, views: str) -> int:
    async with opened(log, views) as running:
        await running.catch_up()
        return min(status.position for status in await running.status())


def peak() -> float:
    """Return this process's peak of resident memory, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says there includes the parent's before exec
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1000
    scale = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


if __name__ == "__main__":
    warnings.simplefilter("ignore", SqliteVersionWarning)
    count = asyncio.run(_catch_up(*sys.argv[1:]))
    print(json.dumps({"events": count, "MB": peak()}))
