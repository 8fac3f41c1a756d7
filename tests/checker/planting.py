"""How bugs are planted, and how the checker is set on them.

A bug of one adapter's own statements is planted where that adapter is: those of SQLite by
`sqlite_pair`, those of PostgreSQL will be by a fixture beside it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from diptych.log import Log
from diptych.logs.sqlite import SqliteLog
from diptych.testing.checker import Violation
from torture.histories import history_of

ROUNDS = 60
"""Histories until a bug must have been found; most are found in the first."""


async def findings(make: Callable[[], Log]) -> list[Violation]:
    """Check random histories on logs that bear a bug, until something is found."""
    for number in range(ROUNDS):
        rng = random.Random(f"planted:{number}")
        if found := await history_of([make()], rng, clients=6, calls=8):
            return found
    return []


async def sqlite_pair(folder: Path, *, remembered: int = 25_000) -> list[Violation]:
    """Check random histories on files that two logs write, until something is found."""
    for number in range(ROUNDS):
        rng = random.Random(f"planted:{number}")
        path = folder / f"{uuid4()}.db"
        logs = [await SqliteLog.open(path, remembered=remembered) for _ in range(2)]
        try:
            if found := await history_of(logs, rng, clients=6, calls=8):
                return found
        finally:
            for log in logs:
                with suppress(Exception):
                    await log.close()
    return []


def points(violations: Sequence[Violation]) -> set[int]:
    """Return the numbers of what does not hold."""
    return {violation.point for violation in violations}
