"""The desk of a store that keeps its rows apart from its checkpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from diptych.read.parking.desk import Desk, Parked, ParkedKey, Pause
from diptych.read.port import Checkpoint, Tally, View

Rewind: TypeAlias = Callable[[Checkpoint, Tally, Sequence[type[View]]], Awaitable[None]]


class DeskBeside:
    """The books' desk; only a rewind concerns the rows too."""

    def __init__(self, desk: Desk, rewind: Rewind) -> None:
        self._desk = desk
        self._rewind = rewind

    async def keys(self) -> dict[str, list[ParkedKey]]:
        """Return the keys of which effects are queued or skipped, by projection."""
        return await self._desk.keys()

    async def parked(
        self,
        projection: str,
        key: str | None = None,
        *,
        queued: bool = False,
        limit: int | None = None,
    ) -> list[Parked]:
        """Return a projection's parked effects, of one key or of all, by position."""
        return await self._desk.parked(projection, key, queued=queued, limit=limit)

    async def pause(self, pause: Pause) -> Pause:
        """Stop a projection; return the pause that stands."""
        return await self._desk.pause(pause)

    async def resume(self, projection: str) -> bool:
        """Let a projection go on; False where it was not paused."""
        return await self._desk.resume(projection)

    async def pauses(self) -> dict[str, Pause]:
        """Return the projections that are paused."""
        return await self._desk.pauses()

    async def rewind(self, to: Checkpoint, block: Tally, views: Sequence[type[View]]) -> None:
        """Put a projection back, and drop the rows of these views."""
        await self._rewind(to, block, views)


__all__ = ["DeskBeside"]
