"""How the projections fare, for operators."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, get_args

from msgspec import Struct

from diptych.codec import metadata_of
from diptych.log import Log
from diptych.read.follower import Follower, State
from diptych.read.freshness import Freshness, ReadMeasures
from diptych.read.port import Checkpoint, ViewStore


class Status(Struct, frozen=True):
    """A projection's state: positions and ``lag`` in events, ``lag_seconds`` in seconds.

    ``lag_seconds`` is the age of the oldest event not yet applied; 0.0 when there is none.
    ``state``: new, running, standby (another worker does it), failed, refused. ``freshness``: how
    it keeps its ``fresh_within``, None where it has none.
    """

    projection: str
    position: int
    head: int
    lag: int
    lag_seconds: float
    state: str
    error: str | None = None
    failed_position: int = 0
    inline: bool = False
    count: int = 0
    freshness: Freshness | None = None
    slice: int = 0


STATES: Final = get_args(State)


async def status_of(
    log: Log,
    store: ViewStore,
    followers: Iterable[Follower],
    measures: ReadMeasures,
) -> list[Status]:
    """Return the state of every projection, from the checkpoints in the store."""
    # The checkpoints first: one that moves meanwhile must not seem to lie beyond the head.
    stored = await store.checkpoints()
    head = await log.head()
    ages: dict[int, float] = {}
    found: list[Status] = []
    for follower in followers:
        checkpoint = stored.get(follower.name) or Checkpoint(follower.name, "")
        position = checkpoint.position
        if position not in ages:
            ages[position] = await age_after(log, position)
        found.append(
            Status(
                follower.name,
                position,
                head,
                max(head - position, 0),
                ages[position],
                follower.state,
                None if follower.error is None else str(follower.error),
                follower.failed_position if follower.state == "failed" else 0,
                follower.projection.inline,
                checkpoint.count,
                measures.freshness(follower.name),
                checkpoint.slice,
            )
        )
    return found


async def age_after(log: Log, position: int) -> float:
    """Return the age in seconds of the first event after a position; 0.0 when there is none."""
    page = await log.read(after=position, limit=1)
    if not page.events:
        return 0.0
    since = metadata_of(page.events[0]).time
    return max((datetime.now(UTC) - since).total_seconds(), 0.0)
