"""``python -m examples.flights load`` in processes of its own."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.house.paths import ROOT

QUIET = "ignore::diptych.errors.SqliteVersionWarning"
LONG = 120.0


def start(path: Path, slice: str, *options: str) -> subprocess.Popen[str]:
    """Begin to load a slice into one file, for log and views."""
    url = f"sqlite:///{path}"
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


def events_in(path: Path) -> int:
    """How many events the file holds."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=LONG)) as connection:
        try:
            (head,) = connection.execute("SELECT head FROM log").fetchone()
        except sqlite3.OperationalError:  # its tables are not made yet
            return 0
    return int(head)


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something is so, or the process has ended."""
    deadline = time.monotonic() + LONG
    while not reached() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
