"""What every log does for those who wait for its next event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from diptych.errors import Closed
from diptych.testing.contracts.making import LogMaker, event, fill, only, put


class WaitContract(LogMaker):
    """A wait ends when the head moves, or when its time is over."""

    patience = 60.0
    """Seconds after which a wait that should have been woken counts as lost."""

    async def _in_time(self, waiting: Awaitable[int]) -> int:
        async with asyncio.timeout(self.patience):
            return await waiting

    async def test_a_wait_for_what_is_there_ends_at_once(self) -> None:
        """A wait for a position before the head returns the head."""
        async with self.new_log() as log:
            await fill(log, 3)
            assert await log.wait(0) == 3
            assert await log.wait(2, timeout=self.patience) == 3

    async def test_a_wait_times_out(self) -> None:
        """A wait that nobody ends returns the head when its time is over."""
        async with self.new_log() as log:
            await fill(log, 2)
            for timeout in (0, -1, 0.01):
                assert await log.wait(2, timeout=timeout) == 2
                assert await log.wait(99, timeout=timeout) == 2

    async def test_a_wait_is_woken(self) -> None:
        """Those who wait are woken by the append that moves the head beyond their position."""
        async with self.new_log() as log:
            waiters = [asyncio.ensure_future(self._in_time(log.wait(n % 2))) for n in range(50)]
            await asyncio.sleep(0)
            await put(log, event())
            await put(log, event())
            heads = await asyncio.gather(*waiters)
            assert all(head > n % 2 for n, head in enumerate(heads))

    async def test_a_wait_is_not_woken_by_what_is_refused(self) -> None:
        """An append that stores nothing does not move the head."""
        async with self.new_log() as log:
            await put(log, event("Moved", "a:1"), key="k")
            waiter = asyncio.ensure_future(self._in_time(log.wait(1)))
            await put(log, event(), conditions=(only("a:1"),))
            await put(log, event(), key="k")
            await put(log)
            assert not waiter.done()
            await put(log, event())
            assert await waiter == 2

    async def test_a_follower_never_hangs(self) -> None:
        """One who reads, waits and reads again keeps up with writers to the end."""
        async with self.new_log() as log:
            total = 200

            async def follow() -> int:
                upto = 0
                while upto < total:
                    await self._in_time(log.wait(upto))
                    upto = (await log.read(after=upto)).upto
                return upto

            followers = [asyncio.ensure_future(follow()) for _ in range(3)]
            await asyncio.gather(*(fill(log, total // 10) for _ in range(10)))
            assert await asyncio.gather(*followers) == [total] * 3

    async def test_a_cancelled_wait_leaves_nothing_behind(self) -> None:
        """A wait can be cancelled; others go on."""
        async with self.new_log() as log:
            cancelled = asyncio.ensure_future(log.wait(0))
            other = asyncio.ensure_future(self._in_time(log.wait(0)))
            await asyncio.sleep(0)
            cancelled.cancel()
            await put(log, event())
            assert await other == 1
            assert cancelled.cancelled() or cancelled.cancelling()

    async def test_closing_ends_every_wait(self) -> None:
        """Those who wait when the log is closed get ``Closed``."""
        log = await self.make_log()
        waiters = [asyncio.ensure_future(self._in_time(log.wait(0))) for _ in range(3)]
        await asyncio.sleep(0)
        await log.close()
        outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        assert all(isinstance(outcome, Closed) for outcome in outcomes), outcomes
