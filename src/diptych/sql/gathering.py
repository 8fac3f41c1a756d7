"""Calls that wait at the same time go to a thread together, as one job."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from diptych.errors import Closed

I = TypeVar("I")  # noqa: E741  # what goes in
O = TypeVar("O")  # noqa: E741  # what comes out


def failed(error: Exception) -> asyncio.Future[Any]:
    """Return the answer to what is refused at once."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    answer.set_exception(error)
    return answer


class Gathering(Generic[I, O]):
    """While one job runs, what is asked for gathers; then it goes out as the next job.

    A caller that is cancelled leaves the job alone: it ends as a whole, for all who are in it.
    """

    def __init__(self, run: Callable[[list[I]], Awaitable[list[O]]], most: int) -> None:
        self._run = run
        self._most = most
        self._waiting: deque[tuple[I, asyncio.Future[O]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def ask(self, request: I) -> asyncio.Future[O]:
        """Have a request answered with the next job."""
        if self._closed:
            raise Closed("The log has been closed")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[O] = loop.create_future()
        self._waiting.append((request, answer))
        if self._task is None:
            # The task begins in the loop's next round: what is asked in this one joins.
            self._task = loop.create_task(self._serve())
        return answer

    async def close(self) -> None:
        """Take no more, and finish what was taken."""
        self._closed = True
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _serve(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), self._most)
                taken = [self._waiting.popleft() for _ in range(count)]
                await self._answer(taken)
                # Let those who were answered ask again before the next job is made up.
                await asyncio.sleep(0)
        finally:
            self._task = None

    async def _answer(self, taken: list[tuple[I, asyncio.Future[O]]]) -> None:
        try:
            results = await self._run([request for request, _ in taken])
        except Exception as error:
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), result in zip(taken, results, strict=True):
                if not future.done():
                    future.set_result(result)
