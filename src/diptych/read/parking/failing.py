"""What cannot be applied: whose fault it is, and what to say."""

from __future__ import annotations

from datetime import UTC
from typing import Final

from diptych.errors import ProjectionFailed, Unavailable, said
from diptych.read.port import Change, ParkedKey, ViewStore, definition_of
from diptych.read.projections import Projection
from diptych.read.proving.proof import hash_key

STANDS: Final = (
    "The projection cannot apply this event; it stands still before it and tries again "
    "from time to time. Correct the function and restart"
)


class _Undo(Exception):
    """Rolls a transaction back."""


async def unwritable(store: ViewStore, change: Change) -> dict[tuple[int, int], Exception]:
    """Return the effects of a step of one event whose rows the store does not take, and why.

    They are told by position and hash of the key. Each row is written in a transaction of its own,
    which is rolled back.
    """
    position = change.after.position
    found: dict[tuple[int, int], Exception] = {}
    for writes in change.writes:
        for row in writes.rows:
            try:
                async with store.session() as tx:
                    await tx.put(row)
                    raise _Undo
            except _Undo:
                continue
            except Unavailable:
                raise
            except Exception as error:
                key = definition_of(writes.view).key_of(row)
                found[position, hash_key(key)] = error
    return found


def failure_of(one: Projection, position: int, error: Exception) -> ProjectionFailed:
    """Return the error of a projection that stands still before an event."""
    if isinstance(error, ProjectionFailed):
        return error
    failure = ProjectionFailed(
        STANDS, projection=one.title, position=position, why=said(error), at=one.at
    )
    failure.__cause__ = error
    return failure


def failure_noted(one: Projection, key: ParkedKey) -> ProjectionFailed:
    """Return the error of a handler that stands still before an event, in whatever process."""
    since = key.since and key.since.astimezone(UTC)
    return ProjectionFailed(
        STANDS,
        projection=one.title,
        position=key.position,
        event=key.event,
        since=since and since.isoformat(timespec="seconds"),
        attempts=key.attempts,
        why=": ".join(filter(None, (key.kind, key.error))),
    )
