"""One process is used for long; memory, descriptors, tasks, threads and connections stay flat.

It does laps of equal work (`torture.soaker`): commands, queries, live streams, requests that are
cancelled, parked keys, rewinds, workers that come and go. What it holds is looked at after each.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import time
from collections.abc import Sequence
from statistics import median
from typing import Final

import msgspec
from msgspec import Struct

from torture.backends import Backend
from torture.processes import start, worker

LAPS = 12
WARM = 3
"""So many laps are not looked at, of ``LAPS``; of any number the same share."""

REAL_SECONDS = 3600.0
"""One who soaks so long has caches as large as applications have: these are full after a while."""


class Sample(Struct, frozen=True):
    """What a process held when it had done so many commands: ``memory`` in bytes, resident.

    ``blocks``: of Python's allocator, each an object or a part of one.
    """

    commands: int
    memory: int
    blocks: int
    tasks: int
    threads: int
    descriptors: int
    connections: int


LEAST: Final = {"tasks": 3, "threads": 2, "descriptors": 3, "connections": 2, "memory": 24_000_000}
"""Growth, between the first third of the laps and the last, that means nothing."""

BLOCKS = 0.5
"""Blocks for each command. A cache without bound keeps one at least."""

LEAST_BLOCKS = 2000
"""Caches of libraries are emptied now and then: sqlite3 keeps a connection's last 200 cursors."""


async def soak(backend: Backend, rng: random.Random, *bug: str) -> list[str]:
    """Do some laps."""
    return await _soaked(backend, rng, bug)


async def soak_for(backend: Backend, rng: random.Random, seconds: float) -> list[str]:
    """Do laps for so many seconds, and some at least."""
    return await _soaked(backend, rng, (), seconds)


async def _soaked(
    backend: Backend, rng: random.Random, bug: Sequence[str], seconds: float = 0.0
) -> list[str]:
    log = backend.new_log()
    views = backend.new_views(log)[0]
    caches = "real" if seconds >= REAL_SECONDS else "small"
    samples: list[Sample] = []
    began, marked = time.monotonic(), False
    arguments = (log, views, rng.random(), caches, *bug)
    with worker(*arguments, program="torture.soaker") as process:
        await asyncio.to_thread(start, [process])
        while len(samples) < LAPS or time.monotonic() - began < seconds:
            samples.append(msgspec.json.decode(await _asked(process, "lap"), type=Sample))
            warm = len(samples) >= WARM and time.monotonic() - began >= seconds * WARM / LAPS
            if warm and not marked:
                marked = True
                _say(process, "mark")
        found = growths(samples)
        if found:
            more = json.loads(await _asked(process, "types"))
            found.append(f"objects that there are more of: {dict(more)}")
        assert process.stdin is not None
        process.stdin.close()
        if code := await asyncio.to_thread(process.wait):
            found.append(f"the process has ended with {code}")
    return found


def growths(samples: Sequence[Sample]) -> list[str]:
    """Say what grows on: the medians of thirds are compared, after the laps that warm up.

    Growth that has come to its end counts as none: from the second third to the last there must be
    at least a third of it.
    """
    kept = samples[len(samples) * WARM // LAPS :]
    size = len(kept) // 3
    thirds = [kept[:size], kept[size : len(kept) - size], kept[len(kept) - size :]]
    found: list[str] = []
    steps = median(s.commands for s in thirds[2]) - median(s.commands for s in thirds[0])
    for name, least in {**LEAST, "blocks": max(BLOCKS * steps, LEAST_BLOCKS)}.items():
        first, second, last = (median(getattr(s, name) for s in third) for third in thirds)
        grown = last - first
        if grown >= least and last - second >= grown / 3:
            found.append(
                f"{name} grow on: {first:,.0f}, {second:,.0f}, {last:,.0f} "
                f"(medians of thirds, in {steps:,.0f} commands)"
            )
    return found


async def _asked(process: subprocess.Popen[str], what: str) -> str:
    _say(process, what)
    assert process.stdout is not None
    answer = await asyncio.to_thread(process.stdout.readline)
    if not answer:
        raise RuntimeError("the process has died; see what it wrote to stderr")
    return answer


def _say(process: subprocess.Popen[str], what: str) -> None:
    assert process.stdin is not None
    process.stdin.write(what + "\n")
    process.stdin.flush()
