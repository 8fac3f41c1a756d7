"""Several processes on one log: their histories are joined and checked."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from diptych.testing.checker import Violation, check_history
from diptych.testing.history import load
from torture.backends import Backend, open_log

ROOT = Path(__file__).parents[1]
PROCESSES = 3


@contextmanager
def worker(*arguments: object, program: str = "torture.worker") -> Generator[subprocess.Popen[str]]:
    """Run a worker, or another program; kill it in the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", program, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def start(workers: Sequence[subprocess.Popen[str]]) -> None:
    """Let workers begin together, when all are ready."""
    for process in workers:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("a worker has died before it began")
    for process in workers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


async def processes(backend: Backend, rng: random.Random, *bug: str) -> list[Violation]:
    """Random clients and races in three processes at once."""
    url = backend.new_log()
    await (await open_log(url)).close()
    with tempfile.TemporaryDirectory(prefix="diptych-torture-") as folder, ExitStack() as stack:
        paths = [Path(folder) / f"{number}.jsonl" for number in range(PROCESSES)]
        workers = [
            stack.enter_context(worker("clients", path, url, "none", rng.random(), *bug))
            for path in paths
        ]
        await asyncio.to_thread(start, workers)
        for process in workers:
            if await asyncio.to_thread(process.wait):
                raise RuntimeError("a worker has failed; see what it wrote to stderr")
        log = await open_log(url)
        try:
            return await check_history(load(*paths), log)
        finally:
            await log.close()
