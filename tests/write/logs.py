"""A log that misbehaves on purpose, around one that does not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from diptych.errors import Unavailable
from diptych.log import (
    EVERY_EVENT,
    Append,
    Appended,
    EventQuery,
    Log,
    Outcome,
    Page,
    Refused,
    WorksBy,
)


class Troubled:
    """Delays everything a little; fails batches where ``fails`` says so."""

    def __init__(self, log: Log, rng: random.Random, fails: Callable[[], bool]) -> None:
        self._log = log
        self._rng = rng
        self._fails = fails
        self.works_by: WorksBy | None = None
        self.reads = 0
        self.batches: list[int] = []
        self.refused: list[str] = []

    @property
    def identity(self) -> str:
        return self._log.identity

    async def _dawdle(self) -> None:
        for _ in range(self._rng.randrange(4)):
            await asyncio.sleep(0)

    async def append(self, batch: Sequence[Append]) -> list[Outcome]:
        await self._dawdle()
        if self._fails():
            raise Unavailable("planted")
        self.batches.append(len(batch))
        outcomes = await self._log.append(batch)
        self.refused += [o.reason for o in outcomes if isinstance(o, Refused)]
        await self._dawdle()
        return outcomes

    async def read(
        self,
        query: EventQuery = EVERY_EVENT,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int = 1000,
    ) -> Page:
        self.reads += 1
        await self._dawdle()
        page = await self._log.read(query, after=after, until=until, limit=limit)
        await self._dawdle()
        return page

    async def head(self) -> int:
        return await self._log.head()

    async def wait(self, after: int, timeout: float | None = None) -> int:
        return await self._log.wait(after, timeout)

    async def recall(self, keys: Sequence[str]) -> dict[str, Appended]:
        return await self._log.recall(keys)

    async def close(self) -> None:
        await self._log.close()
