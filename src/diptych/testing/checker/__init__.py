"""The checker: a history, held against the log that it was made on.

The log's positions are the serial order of everything that took effect, so that the check is one
replay along them. What must hold is numbered: `POINTS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diptych.log import Log, StoredEvent
from diptych.testing.checker.attempts import attempts_of, check_batches, check_storage
from diptych.testing.checker.conditions import check_conditions, check_order
from diptych.testing.checker.keys import check_keys
from diptych.testing.checker.reading import check_commands, check_reads, check_tokens
from diptych.testing.checker.views import check_views
from diptych.testing.checker.violations import (
    POINTS,
    Found,
    Stored,
    Violation,
    check_positions,
    read_all,
)
from diptych.testing.history import Call, History

__all__ = ["POINTS", "Violation", "check_history", "check_views", "judge"]


async def check_history(
    history: History | Iterable[Call], log: Log, *, alone: bool = True
) -> list[Violation]:
    """Check a history against its log, when nobody appends any more; return what does not hold.

    Points 1 to 8, and 10 as far as positions show it. ``alone``: nothing else than this history
    has ever appended to the log. Views are checked by `check_views`.
    """
    found = Found()
    events = await read_all(log, found)
    return found.violations + judge(history, events, alone=alone)


def judge(
    history: History | Iterable[Call], events: Sequence[StoredEvent], *, alone: bool = True
) -> list[Violation]:
    """Check a history against all the events of its log."""
    calls = history.calls if isinstance(history, History) else list(history)
    found = Found()
    check_positions(events, found)
    stored = Stored(events)
    attempts = attempts_of(calls, stored)
    places, by_commands = check_commands(calls, stored, found)
    check_storage(attempts, stored, found, foreign=by_commands if alone else None)
    check_batches(attempts, found)
    check_keys(calls, attempts, found, alone=alone)
    check_order(calls, attempts, places, found)
    check_conditions(attempts, stored, found)
    check_reads(calls, stored, found)
    check_tokens(calls, stored, found)
    return found.violations
