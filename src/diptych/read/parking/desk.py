"""The operators' part of the port of view stores: parked keys, pauses, rewinds.

Whatever is changed here raises the `revision` of the checkpoints concerned, within the same
transaction: so no follower makes a step that rests on what was so before.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from diptych.read.port import Checkpoint
    from diptych.read.proving.proof import Tally
    from diptych.read.views import View

Place: TypeAlias = tuple[str, int, int]
"""Which parked effect of a projection: its key, its position, its slice."""

NO_KEY = ""
"""In place of a key's JSON: of an event that has none, as its key function raises."""


class Parked(Struct, frozen=True):
    """An effect that was not applied: it failed, or waits behind one that did, or was skipped.

    ``key`` is canonical JSON, `NO_KEY` where none could be had: then ``slices`` from ``slice`` on
    have passed the event over. ``kind`` and ``error`` say what was raised; where they are empty, it
    waits. ``time`` is the event's, ``since`` that of the first attempt. ``actor``, ``why`` and
    ``decided`` tell who skipped it.
    """

    projection: str
    key: str
    position: int
    slice: int
    slices: int
    event_id: str
    event: str
    time: datetime
    since: datetime
    kind: str = ""
    error: str = ""
    attempts: int = 0
    state: Literal["queued", "skipped"] = "queued"
    actor: str = ""
    why: str = ""
    decided: datetime | None = None

    @property
    def place(self) -> Place:
        """What tells it from the others of its projection."""
        return self.key, self.position, self.slice


class ParkedKey(Struct, frozen=True):
    """A key of which effects were not applied: how many are queued, how many were skipped.

    ``position``, ``event``, ``kind``, ``error``, ``since`` and ``attempts`` are those of the first
    one queued; ``time`` is that event's.
    """

    projection: str
    key: str
    slice: int
    events: int
    skipped: int
    position: int = 0
    time: datetime | None = None
    event: str = ""
    kind: str = ""
    error: str = ""
    since: datetime | None = None
    attempts: int = 0


class Pause(Struct, frozen=True):
    """Who has paused a projection, when, and why."""

    projection: str
    since: datetime
    actor: str
    why: str


class Desk(Protocol):
    """What an adapter offers to operators."""

    async def keys(self) -> dict[str, list[ParkedKey]]:
        """Return the keys of which effects are queued or skipped, by projection, in their order."""
        ...

    async def parked(
        self,
        projection: str,
        key: str | None = None,
        *,
        queued: bool = False,
        limit: int | None = None,
    ) -> list[Parked]:
        """Return a projection's parked effects, of one key or of all, by position.

        ``queued``: without those that were skipped.
        """
        ...

    async def pause(self, pause: Pause) -> Pause:
        """Stop a projection: no step that rests on an older revision is made from now on.

        Return the pause that stands: the first one, where it is paused already.
        """
        ...

    async def resume(self, projection: str) -> bool:
        """Let a projection go on; False where it was not paused."""
        ...

    async def pauses(self) -> dict[str, Pause]:
        """Return the projections that are paused."""
        ...

    async def rewind(self, to: Checkpoint, block: Tally, views: Sequence[type[View]]) -> None:
        """Put a projection back, as one span, in one transaction.

        ``block`` is the tally of the block of that position; later ones, what is parked or skipped
        behind it, what was proved, and all rows of the views go.
        """
        ...
