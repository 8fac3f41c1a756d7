"""Keeps the views current, and lets them lag on purpose."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from msgspec import Struct

from diptych import Running, Unavailable
from examples.flights.page.bell import Bell

PROJECTION: Final = "flight_row"
LOOK_SECONDS: Final = 0.5
REST_SECONDS: Final = 1.0
SLOW: Final = 8.0
"""Seconds between two looks at the log, when the views are slowed down."""


class Freshness(Struct, frozen=True):
    """How far the board's view is: a position, the log's head, and the age of what is missing."""

    position: int = 0
    head: int = 0
    age: float = 0.0

    @property
    def behind(self) -> int:
        """Events that are not in the view yet."""
        return max(self.head - self.position, 0)


class Leash:
    """The read side's only worker in this process: the application is opened without its own."""

    def __init__(self, running: Running, bell: Bell, *, slow: bool = False) -> None:
        self._running = running
        self._bell = bell
        self._switched = asyncio.Event()
        self.slow = slow
        self.fresh = Freshness()

    def hold(self, slow: bool) -> None:
        """Slow the views down, or let them go."""
        if slow != self.slow:
            self.slow = slow
            self._switched.set()
            self._bell.ring()

    async def run(self) -> None:
        """Follow the log until cancelled."""
        head = 0
        while True:
            if not self.slow:
                head = await self._running.log.wait(head, timeout=REST_SECONDS)
            if await self._may_go():
                with suppress(Unavailable):
                    await self._running.catch_up()
                    await self._look()

    async def _may_go(self) -> bool:
        """Wait as long as the views are to lag; False when they are let go meanwhile."""
        if not self.slow:
            return True
        self._switched.clear()
        try:
            await asyncio.wait_for(self._switched.wait(), SLOW)
        except TimeoutError:
            return True
        return not self.slow

    async def watch(self) -> None:
        """Measure how old the board is, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(Unavailable):
                await self._look()

    async def _look(self) -> None:
        for one in await self._running.status():
            if one.projection == PROJECTION:
                fresh = Freshness(one.position, one.head, one.lag_seconds)
                if fresh != self.fresh:
                    self.fresh = fresh
                    self._bell.ring()
