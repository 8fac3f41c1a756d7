"""Who waits for which projections to reach which position."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from diptych.read.following.spans import Spans
from diptych.read.proving.proof import MODULUS

LONGEST_SECONDS: Final = 1.0
"""How long a query waits at most before it looks anew who is to do the work."""

Proof: TypeAlias = tuple[int, int]
"""Count and digest of a projection: they are others when its rows are."""


class Waiting:
    """The waiters of one engine. ``hurry`` is called when one comes whom the engine can serve.

    ``listeners`` are called when any of its checkpoints has moved.
    """

    def __init__(self, spans: Spans, hurry: Callable[[], None]) -> None:
        self._spans = spans
        self._hurry = hurry
        self._waiters: dict[asyncio.Future[None], tuple[frozenset[str], int]] = {}
        self.listeners: list[Callable[[], None]] = []
        self.running = False

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def concerns(self, name: str) -> bool:
        """Whether anybody waits for a projection."""
        return any(name in names for names, _ in self._waiters.values())

    def within(self, position: int) -> bool:
        """Whether anybody waits for a position up to this one."""
        return any(wanted <= position for _, wanted in self._waiters.values())

    async def wait_for(
        self, names: Iterable[str], position: int, timeout: Callable[[], float]
    ) -> bool:
        """Wait until all these projections have reached a position; False: not in time.

        ``timeout`` returns the seconds that are left.
        """
        wanted = frozenset(names)
        while not self._reached(wanted, position):
            mark = self._spans.store.mark()
            if not (here := self.done_here(wanted)):
                stored = await self._spans.store.checkpoints()
                if all(
                    name in stored and min(span.position for span in stored[name]) >= position
                    for name in wanted
                ):
                    return True
            remaining = timeout()
            refused = any(f.state == "refused" for name in wanted for f in self._spans.of(name))
            if remaining <= 0 or refused:
                return False
            if here:
                await self._wait(wanted, position, remaining)
            else:
                await self._spans.store.moved(mark, min(LONGEST_SECONDS, remaining))
        return True

    async def _wait(self, wanted: frozenset[str], position: int, timeout: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = (wanted, position)
        self._hurry()
        try:
            await asyncio.wait((waiter,), timeout=timeout)
        finally:
            self._waiters.pop(waiter, None)

    def done_here(self, names: Iterable[str]) -> bool:
        """Whether this engine is the one that will reach the position, as far as it knows."""
        return self.running and all(
            self._spans.is_ours(name)
            and not any(f.state == "standby" or f.projection.inline for f in self._spans.of(name))
            for name in names
        )

    def _reached(self, names: Iterable[str], position: int) -> bool:
        return all(self._spans.position(name) >= position for name in names)

    def notify(self) -> None:
        """Wake those whose position is reached, and those who must look elsewhere."""
        for listener in self.listeners:
            listener()
        for waiter, (names, position) in list(self._waiters.items()):
            if not waiter.done() and (self._reached(names, position) or not self.done_here(names)):
                waiter.set_result(None)

    async def proofs(self, names: Iterable[str]) -> dict[str, Proof]:
        """Return the proofs of projections, from the store where another process moves any."""
        spans = {name: [follower.checkpoint for follower in self._spans.of(name)] for name in names}
        if not self.done_here(names):
            spans = await self._spans.store.checkpoints()
        return {
            name: (sum(one.count for one in parts), sum(one.digest for one in parts) % MODULUS)
            for name, parts in spans.items()
        }

    def wake(self) -> None:
        """Wake all."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
