"""Steps of several pages, gathered to be written as one: a row that many events touch, only once.

Where the head is far, each follower's steps are put together until there is enough for a
transaction: its cost, and that of a row, are then shared by more events.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from msgspec import structs

from diptych.read.following.follower import Follower
from diptych.read.port import Applied, Change, Writes, definition_of
from diptych.telemetry.declared import MOST_LINKS

GATHER: Final = 10
"""How many pages are written together at most."""

HELD_SECONDS: Final = 0.5
"""So long after the last transaction, or the beginning, nothing is held back: one sees how far a
slow fold is."""

MOST_ROWS: Final = 4000
"""How many rows that were there already are gathered: to write them must not take long."""

Step: TypeAlias = tuple[Follower, int, Change]
"""A step, and the follower's epoch in which it was made."""


class Gathering:
    """The steps that are not being written yet, at most one for each follower."""

    def __init__(self, pages: int) -> None:
        self._most = pages
        self._pages = 0
        self._since = 0.0
        self._steps: dict[Follower, _Gathered] = {}

    def __bool__(self) -> bool:
        return bool(self._steps)

    def add(self, steps: Sequence[Step], began: float = 0.0) -> None:
        """Hold a page's steps, each together with what is held of the same follower.

        ``began`` is when the page was taken up, by ``time.monotonic()``.
        """
        if not self._steps:
            self._since = max(self._since, began)  # after a rest the first page waits for others
        self._pages += 1
        for follower, epoch, change in steps:
            held = self._steps.get(follower)
            # A step that builds on one that failed is dropped; the checkpoint would refuse it.
            if held is None or held.epoch != epoch:
                self._steps[follower] = _Gathered(epoch, change)
            else:
                held.add(change)

    @property
    def is_due(self) -> bool:
        """Whether there is enough."""
        return (
            self._pages >= self._most
            or time.monotonic() - self._since > HELD_SECONDS
            or any(f.limit is not None or one.old > MOST_ROWS for f, one in self._steps.items())
        )

    def take(self) -> list[Step]:
        """Give away what is held and can still be written."""
        steps, self._steps = self._steps, {}
        self._pages, self._since = 0, time.monotonic()
        return [(f, one.epoch, one.change) for f, one in steps.items() if f.epoch == one.epoch]


class _Gathered:
    """The steps of one follower, and the rows that they write, by key."""

    def __init__(self, epoch: int, change: Change) -> None:
        self.epoch = epoch
        self._first = self._last = change
        self._more: list[Change] = []
        self._new: dict[Any, Any] = {}
        self._rows: dict[Any, Any] = {}
        self._positions: dict[Any, int] = {}

    @property
    def old(self) -> int:
        """How many rows are written that were there before."""
        if not self._more:
            return sum(len(one.rows) - one.new + len(one.deleted) for one in self._first.writes)
        return len(self._rows)

    def add(self, change: Change) -> None:
        """Put the next step behind those before."""
        if not self._more:
            self._write(self._first)
        self._more.append(change)
        self._last = change
        self._write(change)

    def _write(self, change: Change) -> None:
        for writes in change.writes:
            key_of = definition_of(writes.view).key_of
            new, rows = self._new, self._rows
            keys = list(map(key_of, writes.rows))
            added = writes.new
            for key, row in zip(keys[:added], writes.rows, strict=False):
                # It may have been deleted before: then there is a row to be replaced.
                (rows if key in rows else new)[key] = row
            for key, row in zip(keys[added:], writes.rows[added:], strict=True):
                (new if key in new else rows)[key] = row
            for key in writes.deleted:
                # One that came and went leaves nothing, were it not for who may be ahead of us.
                if new.pop(key, None) is None or writes.positions:
                    rows[key] = None
            self._positions |= writes.positions

    @property
    def change(self) -> Change:
        """All of them as one step."""
        if not self._more:
            return self._first
        changes = [self._first, *self._more]
        blocks = dict(self._first.blocks)
        for one in self._more:
            blocks |= one.blocks
        return structs.replace(
            self._first,
            after=self._last.after,
            blocks=blocks,
            writes=self._writes(changes),
            parked=tuple(parked for one in changes for parked in one.parked),
            applied=_together([one.applied for one in changes if one.applied is not None]),
        )

    def _writes(self, changes: Sequence[Change]) -> tuple[Writes, ...]:
        view = next((writes.view for one in changes for writes in one.writes), None)
        if view is None:
            return ()
        rows = [*self._new.values(), *(row for row in self._rows.values() if row is not None)]
        deleted = [key for key, row in self._rows.items() if row is None]
        last = set(map(id, rows))
        passed = [
            row
            for one in changes
            for writes in one.writes
            for row in (*writes.passed, *writes.rows)
            if id(row) not in last
        ]
        return (Writes(view, rows, deleted, self._positions, len(self._new), passed),)


def _together(applied: Sequence[Applied]) -> Applied | None:
    if not applied:
        return None
    traced = [stored for one in applied for stored in one.traced][-MOST_LINKS:]
    events = sum(one.events for one in applied)
    return Applied(events, applied[0].first, applied[-1].last, tuple(traced))
