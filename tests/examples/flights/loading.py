"""``python -m examples.flights load`` in processes of its own."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg

from tests.house.paths import ROOT

QUIET = "ignore::diptych.errors.SqliteVersionWarning"
LONG = 120.0


def start(url: str, slice: str, *options: str) -> subprocess.Popen[str]:
    """Begin to load a slice into one database, for log and views."""
    return subprocess.Popen(
        [
            *(sys.executable, "-W", "ignore", "-m", "examples.flights", "load", "--slice", slice),
            *("--log", url, "--views", url, "--json", *options),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> dict[str, Any]:
    """Wait for a load; return its report."""
    out, err = process.communicate(timeout=LONG)
    assert (process.returncode, err) == (status, ""), f"{process.returncode}: {err}"
    report: dict[str, Any] = json.loads(out)
    return report


async def events_in(url: str) -> int:
    """How many events the database holds."""
    if url.startswith("postgresql:"):
        postgres = await asyncpg.connect(url)
        try:
            return int(await postgres.fetchval("SELECT head FROM diptych.log"))
        except asyncpg.UndefinedTableError:  # its tables are not made yet
            return 0
        finally:
            await postgres.close()
    path = Path(url.removeprefix("sqlite:///"))
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=LONG)) as connection:
        try:
            (head,) = connection.execute("SELECT head FROM log").fetchone()
        except sqlite3.OperationalError:  # its tables are not made yet
            return 0
    return int(head)


async def wait_for_events(url: str, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until a database holds so many events, or the process has ended."""
    deadline = time.monotonic() + LONG
    while await events_in(url) < count and process.poll() is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
