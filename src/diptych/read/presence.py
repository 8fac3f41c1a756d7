"""Which workers are there, told by a clock that does not jump.

A worker stamps its row again and again. Whether the stamp has changed lately is measured here, by
``time.monotonic``: clocks of the day go back, and the dead of another host would live until then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from diptych.read.port import Worker


class Sight(Struct, frozen=True, array_like=True):
    """A worker's row, and how many seconds ago it was stamped, by the clock of the day."""

    worker: Worker
    stamp: Any
    age: float


class _Noted(Struct, frozen=True):
    stamp: Any
    since: float
    known: bool  # to be there: else its first change is waited for


class Presence:
    """Judges the rows of workers, as one process sees them again and again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._noted: dict[str, _Noted] = {}

    def judged(self, rows: Iterable[Sight], lease: float) -> tuple[list[Worker], list[Worker]]:
        """Return who is there, and who is gone: unchanged for ``lease`` seconds.

        Only of rows that were never seen before the clock of the day is believed.
        """
        now, before, self._noted = self._clock(), self._noted, {}
        there: list[Worker] = []
        gone: list[Worker] = []
        for row in rows:
            noted = before.get(row.worker.id)
            if noted is None:
                noted = _Noted(row.stamp, now, abs(row.age) < lease)
            elif noted.stamp != row.stamp:
                noted = _Noted(row.stamp, now, True)
            self._noted[row.worker.id] = noted
            if now - noted.since >= lease:
                gone.append(row.worker)
            elif noted.known:
                there.append(row.worker)
        return there, gone
