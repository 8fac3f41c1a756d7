"""How bugs are planted, and how the checker is set on them.

A bug of one adapter's own statements is planted where that adapter is: those of SQLite by
`finds_on_sqlite`, those of PostgreSQL will be by a fixture beside it.
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


async def finds(point: int | set[int], make: Callable[[], Log]) -> bool:
    """Whether random histories on logs that bear a bug come to break a point (or one of several).

    Other points may break before: which one does is a matter of luck.
    """
    wanted = {point} if isinstance(point, int) else point
    for number in range(ROUNDS):
        rng = random.Random(f"planted:{number}")
        if wanted & points(await history_of([make()], rng, clients=6, calls=8)):
            return True
    return False


async def finds_on_sqlite(point: int, folder: Path, *, remembered: int = 25_000) -> bool:
    """The same on files that two logs write."""
    for number in range(ROUNDS):
        rng = random.Random(f"planted:{number}")
        path = folder / f"{uuid4()}.db"
        logs = [await SqliteLog.open(path, remembered=remembered) for _ in range(2)]
        try:
            if point in points(await history_of(logs, rng, clients=6, calls=8)):
                return True
        finally:
            for log in logs:
                with suppress(Exception):
                    await log.close()
    return False


def points(violations: Sequence[Violation]) -> set[int]:
    """Return the numbers of what does not hold."""
    return {violation.point for violation in violations}
