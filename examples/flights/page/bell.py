"""Wakes all who wait, and has them wait anew."""

from __future__ import annotations

import asyncio


class Bell:
    """Rings when something is to be drawn anew."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ring(self) -> None:
        """Wake all."""
        rung, self._next = self._next, asyncio.get_running_loop().create_future()
        rung.set_result(None)

    def wait(self) -> asyncio.Future[None]:
        """Return a future that is done at the next ring; shared, so do not cancel it."""
        return self._next
