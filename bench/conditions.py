"""Under which conditions a run was made: versions, durability, data, machine."""

from __future__ import annotations

import os
import platform
import sqlite3
from importlib import metadata
from pathlib import Path
from typing import Final

from bench.places import BUILD
from bench.run import Run
from bench.setup import Sizes
from diptych.sql.sqlite import filesystem_of

_PACKAGES: Final = (
    "asyncpg",
    "eventsourcing",
    "msgspec",
    "psycopg",
    "sqlalchemy",
    "umadb",
)


def conditions(run: Run, sizes: Sizes, rounds: int) -> dict[str, str]:
    """Return what one must know to read the figures."""
    return {
        "Python": platform.python_version(),
        "packages": ", ".join(_version(name) for name in _PACKAGES),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {_memory()}, {_disk()}",
        "SQLite": f"{sqlite3.sqlite_version}, WAL, synchronous FULL (views: NORMAL)",
        "PostgreSQL": f"{run.settings}; on loopback, its other settings the defaults",
        "method": f"median of {rounds} rounds after one that is thrown away; subjects take turns "
        "within each round; each measurement has new databases, and its garbage collector passes "
        "over what was in memory before (gc.freeze), as in a server that was told so at its start",
        "data": "; ".join(run.notes) or "nothing was filled beforehand",
        "sizes": f"{sizes.events:,} events to catch up with and to read, {sizes.largest:,} in the "
        f"largest log",
    }


def _version(name: str) -> str:
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"{name} not installed"


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return "memory unknown"
    return f"{size / 2**30:.0f} GiB"


def _disk() -> str:
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "disk unknown"
    kind = filesystem_of(BUILD.resolve(), mounts.read_text().splitlines())
    return f"{kind} below the databases"
