"""Calls that wait at the same time are answered together, by one job."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar, cast

from diptych.errors import Closed

I = TypeVar("I")  # noqa: E741  # what goes in
O = TypeVar("O")  # noqa: E741  # what comes out

Done: TypeAlias = Callable[[O | None, BaseException | None], None]
"""Takes what came of something, or why nothing did; is called once, on the loop's thread."""

Deliver: TypeAlias = Done[list[O]]

Begin: TypeAlias = Callable[[list[I], Deliver[O]], None]
"""Begins a job for these requests."""


def settle(answer: asyncio.Future[O], result: O | None, failure: BaseException | None) -> None:
    """Tell who waits for a future, unless he has gone."""
    if isinstance(failure, asyncio.CancelledError):
        answer.cancel()  # the event loop is at its end
    elif answer.done():
        return
    elif failure is not None:
        answer.set_exception(failure)
    else:
        answer.set_result(cast("O", result))


def failed(error: Exception) -> asyncio.Future[Any]:
    """Return the answer to what is refused at once."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    answer.set_exception(error)
    return answer


class Gathering(Generic[I, O]):
    """While one job runs, what is asked for gathers; then it goes out as the next job.

    A caller that is cancelled leaves the job alone: it ends as a whole, for all who are in it.
    """

    def __init__(self, begin: Begin[I, O], most: int) -> None:
        self._begin = begin
        self._most = most
        self._waiting: deque[tuple[I, Done[O]]] = deque()
        self._busy = False
        self._ended: asyncio.Future[None] | None = None
        self._closed = False

    def ask(self, request: I) -> asyncio.Future[O]:
        """Have a request answered with the next job."""
        self._require_open()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[O] = loop.create_future()
        self._waiting.append((request, partial(settle, answer)))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._next)  # what is asked in this round of the loop joins
        return answer

    def begin(self, request: I, done: Done[O]) -> None:
        """Do the same for who has gathered already: without a round of the loop on either way."""
        self._require_open()
        self._waiting.append((request, done))
        if not self._busy:
            self._busy = True
            self._next()

    async def close(self) -> None:
        """Take no more, and finish what was taken."""
        self._closed = True
        if self._busy:
            self._ended = self._ended or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._ended)

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("The log has been closed")

    def _next(self) -> None:
        if not self._waiting:
            self._busy = False
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(None)
            return
        count = min(len(self._waiting), self._most)
        taken = [self._waiting.popleft() for _ in range(count)]
        deliver = partial(self._deliver, [done for _, done in taken])
        try:
            self._begin([request for request, _ in taken], deliver)
        except Exception as error:
            deliver(None, error)

    def _deliver(
        self, dones: list[Done[O]], results: list[O] | None, failure: BaseException | None
    ) -> None:
        if len(dones) == 1 and not self._waiting and self._ended is None:
            self._busy = False  # who is told may begin the next job
        else:
            # Let those who are answered ask again before the next job is made up.
            asyncio.get_running_loop().call_soon(self._next)
        if results is None:
            for done in dones:
                done(None, failure)
        else:
            for done, result in zip(dones, results, strict=True):
                done(result, None)


def as_task(run: Callable[[list[I]], Awaitable[list[O]]]) -> Begin[I, O]:
    """Return what begins such a job as a task."""
    tasks: set[asyncio.Task[None]] = set()  # the loop itself does not keep them

    async def work(requests: list[I], deliver: Deliver[O]) -> None:
        try:
            results = await run(requests)
        except BaseException as error:
            deliver(None, error)
            if not isinstance(error, Exception):
                raise
        else:
            deliver(results, None)

    def begin(requests: list[I], deliver: Deliver[O]) -> None:
        task = asyncio.get_running_loop().create_task(work(requests, deliver))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return begin
