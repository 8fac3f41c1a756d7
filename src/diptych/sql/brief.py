"""Reads that are made at once, on the caller's thread, as long as they are brief.

A hop to the reading thread and back costs several times what a small select does, and the event
loop must not be held up by a large one. So a select is begun on the caller's thread, with a bound
on what it may do there; what goes beyond, or meets any trouble, is given up and run by the reading
thread instead, which says what is wrong. A statement that was given up is left to that thread for
a while, each time for longer.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Final

STEPS: Final = 250
"""Steps of SQLite's virtual machine between two looks at what a read has done; some 20 µs."""

LOOKS: Final = 32
"""Looks that a read may last: 8,000 steps, or some 800 rows by an index."""

SECONDS: Final = 0.02
"""How long a read may last when it is looked at: pages that come from a slow disk take no steps.

Far more than its steps take, as it may be another process or thread that has the processor: a read
that is given up for that goes to the reading thread, whose work makes the next one late as well.
"""

MOST_BYTES: Final = 65_536
"""The longest row, text or answer: the work on it takes no steps either."""

ASIDE: Final = 8
"""Times that a statement goes to the thread after it was given up once; then twice as often."""

MOST_ASIDE: Final = 1024

_UNBOUNDED: Final = frozenset({"Count"})
"""Operations that go through a whole table in one step."""

_FUNCTIONS: Final = frozenset(
    {"json_array", "json_group_array", "json_group_object", "count", "sum", "total", "avg", "min"}
    | {"max", "abs", "coalesce", "ifnull", "iif", "length", "lower", "upper", "round", "substr"}
)
"""Functions whose work is at most in proportion to what they are given: a pattern's is not."""

_CALL = re.compile(r"(\w+)\(-?\d+\)\Z")
_CALLS = frozenset({"Function", "PureFunc", "AggStep", "AggStep1", "AggFinal", "AggValue"})
_TAUGHT = "diptych_"
"""How collations begin that are written in Python: to sort by one is one step, and a long one."""


class Habit:
    """Whether a statement is usually brief. ``bounded``: it is known to be one row by its key."""

    __slots__ = ("_given_up", "_left", "bounded")

    def __init__(self, *, bounded: bool | None = None) -> None:
        self.bounded = bounded
        self._given_up = 0
        self._left = 0

    def is_brief(self) -> bool:
        """Whether to begin it on the caller's thread, this time."""
        if self._left:
            self._left -= 1
            return False
        return True

    def kept(self) -> None:
        """Note that it was brief."""
        self._given_up = 0

    def broken(self) -> None:
        """Note that it was given up."""
        self._left = min(ASIDE << self._given_up, MOST_ASIDE)
        self._given_up = min(self._given_up + 1, 7)


class Brief:
    """A connection for brief reads; it waits for nobody's lock."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._looks = 0
        self._since = 0
        self._until = 0.0
        connection.execute("PRAGMA busy_timeout = 0")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
        connection.set_progress_handler(self._look, STEPS)

    def _look(self) -> bool:
        self._looks += 1
        return self._looks > LOOKS or perf_counter() > self._until

    @property
    def is_tiring(self) -> bool:
        """Whether so much was read since the last time that others should have a turn now."""
        if self._since < LOOKS:
            return False
        self._since = 0
        return True

    def first(self, sql: str, parameters: Sequence[Any], habit: Habit) -> Any:
        """Return the first row of a read, or None where the reading thread is to run it."""
        if not habit.is_brief():
            return None
        self._looks = 0
        self._until = perf_counter() + SECONDS
        try:
            if habit.bounded is None:
                habit.bounded = self._is_bounded(sql, parameters)
            if not habit.bounded:
                return None
            found = self.connection.execute(sql, parameters).fetchone()
        except sqlite3.Error:
            habit.broken()
            return None
        finally:
            self._since += 1 + self._looks
        habit.kept()
        return found

    def _is_bounded(self, sql: str, parameters: Sequence[Any]) -> bool:
        """Whether each step of a statement takes little time, so that counting them bounds it."""
        for _, operation, _, _, _, given, *_ in self.connection.execute(
            f"EXPLAIN {sql}", parameters
        ).fetchall():
            if operation in _UNBOUNDED:
                return False
            if operation in _CALLS:
                call = _CALL.match(given or "")
                if call is None or call[1] not in _FUNCTIONS:
                    return False
            elif operation == "SorterOpen" and _TAUGHT in str(given):
                return False
        return True
