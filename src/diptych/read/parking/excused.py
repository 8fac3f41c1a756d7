"""What an audit must not expect: effects that are parked, or were skipped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from diptych.log import Log, StoredEvent
from diptych.read.parking.desk import NO_KEY, Parked
from diptych.read.proving.audit import Audit
from diptych.read.proving.proof import BLOCK_SHIFT, hash_text


async def excuse(log: Log, audit: Audit, parked: Sequence[Parked]) -> None:
    """Take effects that are parked, or were skipped, off what an audit expects.

    Only what it has counted: a key that cannot be had now was not counted either.
    """
    reached = [row for row in parked if row.position <= max(audit.reach)]
    for _, rows in groupby(reached, key=lambda row: row.position >> BLOCK_SHIFT):
        block = list(rows)
        stored = await _events(log, block)
        for position, group in groupby(block, key=lambda row: row.position):
            _excuse(audit, stored.get(position), list(group))


async def _events(log: Log, block: Sequence[Parked]) -> dict[int, StoredEvent]:
    first, last = block[0].position, block[-1].position
    page = await log.read(after=first - 1, until=last, limit=1 << BLOCK_SHIFT)
    return {stored.position: stored for stored in page.events}


def _excuse(audit: Audit, stored: StoredEvent | None, rows: Sequence[Parked]) -> None:
    keyed = {hash_text(row.key.encode()) for row in rows if row.key != NO_KEY}
    passed = {place for row in rows if row.key == NO_KEY for place in _places(row)}
    for state in _states(audit, rows):
        audit.parked += state == "queued"
        audit.skipped += state == "skipped"
    if passed:
        audit.unreadable = [p for p in audit.unreadable if p != rows[0].position]
    if stored is not None:
        audit.excuse(stored, keyed, passed)


def _states(audit: Audit, rows: Iterable[Parked]) -> Iterable[str]:
    """Yield the state of each effect, once, as far as the audit reaches."""
    seen: set[str] = set()
    for row in rows:
        if row.key not in seen and any(row.position <= audit.reach[p] for p in _places(row)):
            seen.add(row.key)
            yield row.state


def _places(row: Parked) -> range:
    return range(row.slice, row.slice + row.slices)
