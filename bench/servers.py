"""Servers of HTTP as processes of their own: ours by `diptych serve`, the bare ones beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.client import ROOT

TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds by which processor time is counted."""

_MAIN: Final = "import sys; from diptych.cli import main; sys.exit(main())"


class Served:
    """A server that runs. ``url`` is its address."""

    def __init__(self, url: str, process: int) -> None:
        self.url = url
        self._process = process

    def cpu(self) -> float | None:
        """Return the seconds of processor time that it has taken; None where nobody tells."""
        stat = Path(f"/proc/{self._process}/stat")
        if not stat.exists():
            return None
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK


@asynccontextmanager
async def ours(role: str, log: str, views: str) -> AsyncGenerator[Served]:
    """Serve the application that is measured."""
    options = ("--app", "bench.orders:app", "--log", log, "--views", views, "--json")
    async with _started("-c", _MAIN, "serve", *options, "--role", role, "--port", "0") as served:
        yield served


@asynccontextmanager
async def bare(kind: str, url: str = "") -> AsyncGenerator[Served]:
    """Serve a bare handler: see `bench.floors.handlers`."""
    async with _started("-m", "bench.floors.handlers", kind, url) as served:
        yield served


@asynccontextmanager
async def _started(*words: str) -> AsyncGenerator[Served]:
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore:SQLite"}  # conditions tell its version
    child = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=ROOT, stdout=subprocess.PIPE, env=quiet
    )
    assert child.stdout is not None
    try:
        line = await child.stdout.readline()
        assert line, "the server has not started"
        yield Served(json.loads(line)["url"], child.pid)
        child.send_signal(signal.SIGTERM)
        await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
