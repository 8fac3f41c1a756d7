"""Kill -9 of the application under load, again and again on the same log and views.

It shows that no transaction is left half done, that unknown is unknown, and that keys and views
outlive their process. It does not test fsync: what a process has written, the system keeps. That
is what `power` is for.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from diptych.testing.checker import Violation
from diptych.testing.history import load
from torture.backends import Backend
from torture.load import check_application
from torture.processes import start, worker

KILLS = 2


async def kill(backend: Backend, rng: random.Random, *bug: str) -> list[Violation]:
    """Kill one or two processes under load, open the application anew, and check everything."""
    log = backend.new_log()
    views = rng.choice(backend.new_views(log))
    with tempfile.TemporaryDirectory(prefix="diptych-torture-") as folder:
        paths: list[Path] = []
        together = rng.random() < 0.5
        for _ in range(1 if together else KILLS):
            with ExitStack() as stack:
                workers: list[subprocess.Popen[str]] = []
                for _ in range(KILLS if together else 1):
                    paths.append(Path(folder) / f"{len(paths)}.jsonl")
                    arguments = ("application", paths[-1], log, views, rng.random(), *bug)
                    workers.append(stack.enter_context(worker(*arguments)))
                await asyncio.to_thread(_load_and_kill, workers, rng.randint(1, 150))
        return await check_application(log, views, load(*paths))


def _load_and_kill(workers: Sequence[subprocess.Popen[str]], answers: int) -> None:
    """Kill them when they have answered so often, one right after the other."""
    start(workers)
    for process in workers:
        assert process.stdout is not None
        for _ in range(answers // len(workers) + 1):
            if not process.stdout.readline():
                raise RuntimeError("a worker has died by itself; see what it wrote to stderr")
    for process in workers:
        process.kill()
    for process in workers:
        process.wait()
