"""9: the resident memory of four projections' catch-up from nothing, and of their rebuild.

The rebuild has the next version of all four built beside the live ones, proved and switched to.
Each is a process of its own: ``python -m bench.scenarios.memory catch-up|rebuild LOG VIEWS``, which
prints its figures as JSON.
"""

from __future__ import annotations

import asyncio
import functools
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import four, loader
from bench.figures import OURS, Backend, Contest, Entrant, Figures
from bench.places import Place
from bench.setup import Setup
from diptych.errors import SqliteVersionWarning

CATCH_UP: Final = "MB"
REBUILD: Final = "MB of a rebuild"


def contests(setup: Setup) -> Iterator[Contest]:
    """Yield the contests of scenario 9: one for each size of the log."""
    sizes = setup.sizes
    for backend in setup.backends:
        for events in sorted({sizes.small, sizes.events, sizes.largest}):
            entrants = [Entrant(OURS, 1, functools.partial(ours, setup, backend, events))]
            rounds = 1 if events > sizes.small else None  # it takes minutes, and is always alike
            yield Contest(9, f"memory of a catch-up, {events:,} events", backend, entrants, rounds)


async def ours(setup: Setup, backend: Backend, events: int, place: Place) -> Figures:
    """Run a catch-up and then a rebuild, each in a new process; return their peaks."""
    log = await setup.prepared(backend, OURS, events, loader.fill)
    views = place.database()
    peaks: Figures = {}
    for unit, work in ((CATCH_UP, "catch-up"), (REBUILD, "rebuild")):
        answer = await _child(work, log.url, views)
        assert answer["events"] >= events
        peaks[unit] = answer["MB"]
        if events > setup.sizes.small:
            seconds = answer["seconds"]
            setup.notes.append(
                f"{backend}, {work} of four projections: {events:,} events in {seconds:,.1f} s"
            )
    return peaks


async def _child(work: str, log: str, views: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.scenarios.memory", work, log, views]
    root = Path(__file__).parents[2]
    child = await asyncio.create_subprocess_exec(*command, cwd=root, stdout=subprocess.PIPE)
    output, _ = await child.communicate()
    assert child.returncode == 0
    found: dict[str, float] = json.loads(output)
    return found


async def _catch_up(log: str, views: str) -> int:
    async with four.opened(log, views) as running:
        await running.catch_up()
        return min(status.position for status in await running.status())


async def _rebuild(log: str, views: str) -> int:
    async with four.opened_later(log, views) as running:
        built = await running.projections.rebuild()
        assert len(built) == len(four.later.projections), built
        assert all(one.state == "live" for one in built), built
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
    began = time.perf_counter()
    count = asyncio.run((_rebuild if sys.argv[1] == "rebuild" else _catch_up)(*sys.argv[2:]))
    print(json.dumps({"events": count, "MB": peak(), "seconds": time.perf_counter() - began}))
