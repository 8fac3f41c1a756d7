"""The head of the log, for those who only want to know how far behind it they are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diptych.log import Log


class Present:
    """Looks at the head once for all who ask in one round of the event loop.

    What was acknowledged to anybody in this process before the round is in it. Only where the log
    answers at once, as SQLite's does: one that is asked over a connection may have looked before
    the others had their turn.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._head: int | None = None
        self._round = 0
        self._turning = False

    async def head(self) -> int:
        """Return the position of the last event; 0 when there is none."""
        if self._head is not None:
            return self._head
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)
        began = self._round
        head = await self._log.head()
        if began == self._round:
            self._head = head
        return head

    def _turn(self) -> None:
        self._round += 1
        self._head = None
        self._turning = False
