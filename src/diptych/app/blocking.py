"""The synchronous facade: an application or a log, for programs that have no event loop.

An event loop runs in a thread of its own and holds what was opened; any number of other threads
call it and wait for their answers. The calls are those of the asynchronous classes: each is named
here once, and takes its parameters, its result and its documentation from there.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractAsyncContextManager, suppress
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from diptych.app.modules import Definitions
from diptych.app.running import Running
from diptych.app.running import open_log as opening_log
from diptych.errors import BlocksEventLoop, Closed, Invalid, LogUnusable, TimedOut
from diptych.log import Log
from diptych.messages import Actor
from diptych.read.control import Projections
from diptych.read.parking.keys import ParkedKeys
from diptych.read.parking.steering import Steering
from diptych.read.queries import Events, Views

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")

_GRACE_SECONDS = 1.0
"""How long answers that are on their way have, after the end, to reach their threads."""

_AT_ONCE = 500
"""How many items an iteration fetches from the loop's thread at a time."""


# --- methods, made from asynchronous ones ---------------------------------------------------------
# ``self`` is a `_Facade`, whose members are its own business: hence Any.


def _blocking(
    method: Callable[Concatenate[Any, P], Awaitable[C]],
) -> Callable[Concatenate[Any, P], C]:
    """Make the method that waits for what an asynchronous one returns."""

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> C:
        result: C = self._thread.run(self._seconds, self._own(method), *args, **kwargs)
        return result

    return update_wrapper(call, method)


def _starting(
    method: Callable[Concatenate[Any, P], Awaitable[C]],
) -> Callable[Concatenate[Any, P], Future[C]]:
    """Make the method that begins an asynchronous one and returns a future."""

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Future[C]:
        future: Future[C] = self._thread.start(self._own(method), *args, **kwargs)
        return future

    return update_wrapper(call, method)


def _iterating(
    method: Callable[Concatenate[Any, P], AsyncIterator[C]],
) -> Callable[Concatenate[Any, P], Iterator[C]]:
    """Make the method that iterates over what an asynchronous one yields."""

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[C]:
        items: AsyncIterator[C] = self._own(method)(*args, **kwargs)
        more = True
        while more:
            taken, failure = self._thread.run(self._seconds, _take, items)
            yield from taken
            if failure is not None:
                raise failure
            more = len(taken) == _AT_ONCE

    return update_wrapper(call, method)


async def _take(items: AsyncIterator[C]) -> tuple[list[C], Exception | None]:
    """Return the next items, and what was raised after them."""
    taken: list[C] = []
    try:
        async for item in items:
            taken.append(item)
            if len(taken) == _AT_ONCE:
                break
    except Exception as error:
        return taken, error
    return taken, None


# --- the facade -----------------------------------------------------------------------------------


class _Facade(Generic[T]):
    """An inner object whose methods are called in a loop's thread."""

    def __init__(self, thread: LoopThread[Any], inner: T, seconds: float | None) -> None:
        self._thread = thread
        self._inner = inner
        self._seconds = seconds

    def _own(self, method: Callable[Concatenate[Any, P], C]) -> Callable[P, C]:
        """Return the inner object's own method: an adapter's, where ``method`` is its port's."""
        bound: Callable[P, C] = getattr(self._inner, method.__name__)
        return bound


class _Opened(_Facade[T]):
    """What a program opens, and closes at the end: a context manager, or by ``close``."""

    def with_timeout(self, seconds: float) -> Self:
        """Return the same with a limit to each call: after so many seconds, ``TimedOut``.

        Raises ``Invalid`` for what is no number of seconds above 0.
        """
        if type(seconds) not in (int, float) or not 0 < seconds <= threading.TIMEOUT_MAX:
            raise Invalid(
                "That is no limit to a call",
                field="seconds",
                rule=f"a number above 0, at most {threading.TIMEOUT_MAX:.0f}; without a limit, use "
                "the application as it was opened",
                got=repr(seconds),
            )
        return type(self)(self._thread, self._inner, seconds)

    def close(self) -> None:
        """Finish what was accepted, then release everything. May be called twice."""
        self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class BlockingViews(_Facade[Views]):
    """The views as they are now: `Views`, with calls that wait."""

    all = _blocking(Views.all)
    first = _blocking(Views.first)
    one = _blocking(Views.one)
    get = _blocking(Views.get)
    rows = _blocking(Views.rows)


class BlockingParkedKeys(_Facade[ParkedKeys]):
    """What projections could not apply: `ParkedKeys`, with calls that wait."""

    keys = _blocking(ParkedKeys.keys)
    show = _blocking(ParkedKeys.show)
    retry = _blocking(ParkedKeys.retry)
    due = _blocking(ParkedKeys.due)
    skip = _blocking(ParkedKeys.skip)


class BlockingSteering(_Facade[Steering]):
    """Pauses, resumes and rewinds: `Steering`, with calls that wait."""

    pauses = _blocking(Steering.pauses)
    pause = _blocking(Steering.pause)
    resume = _blocking(Steering.resume)
    rewind = _blocking(Steering.rewind)


class BlockingProjections(_Facade[Projections]):
    """Versions and rebuilds: `Projections`, with calls that wait."""

    versions = _blocking(Projections.versions)
    plan = _blocking(Projections.plan)
    compare = _blocking(Projections.compare)
    rebuild = _blocking(Projections.rebuild)
    cutover = _blocking(Projections.cutover)
    rollback = _blocking(Projections.rollback)
    droppable = _blocking(Projections.droppable)
    drop = _blocking(Projections.drop)
    back = _blocking(Projections.back)


class BlockingEvents(_Facade[Events]):
    """The log, decoded: `Events`, with calls that wait."""

    read = _blocking(Events.read)
    all = _iterating(Events.all)


class BlockingLog(_Opened[Log]):
    """A log: the port, with calls that wait. ``close`` ends all that was opened with it."""

    @property
    def identity(self) -> str:
        """The log's own id, made when it was created and never changed."""
        return self._inner.identity

    append = _blocking(Log.append)
    read = _blocking(Log.read)
    head = _blocking(Log.head)
    wait = _blocking(Log.wait)
    recall = _blocking(Log.recall)


class BlockingRunning(_Opened[Running]):
    """An open application, for any number of threads: `Running`, with calls that wait.

    Made by ``App.open_blocking``.
    """

    do = _blocking(Running.do)
    submit = _starting(Running.do)
    recall = _blocking(Running.recall)
    ask = _blocking(Running.ask)
    status = _blocking(Running.status)
    metrics = _blocking(Running.metrics)
    catch_up = _blocking(Running.catch_up)
    verify = _blocking(Running.verify)
    verify_rows = _blocking(Running.verify_rows)

    @property
    def definitions(self) -> Definitions:
        """What the application consists of, compiled."""
        return self._inner.definitions

    @property
    def events(self) -> BlockingEvents:
        """The log, decoded."""
        return BlockingEvents(self._thread, self._inner.events, self._seconds)

    def events_for(self, actor: Actor | str | None) -> BlockingEvents:
        """The log, decoded, as far as this actor may read it: what clients are given."""
        return BlockingEvents(self._thread, self._inner.events_for(actor), self._seconds)

    @property
    def parked(self) -> BlockingParkedKeys:
        """What projections could not apply: looked at, retried, skipped."""
        return BlockingParkedKeys(self._thread, self._inner.parked, self._seconds)

    @property
    def steering(self) -> BlockingSteering:
        """Pauses, resumes and rewinds projections."""
        return BlockingSteering(self._thread, self._inner.steering, self._seconds)

    @property
    def projections(self) -> BlockingProjections:
        """The versions of projections: planned, built, switched to, dropped."""
        return BlockingProjections(self._thread, self._inner.projections, self._seconds)

    @property
    def log(self) -> BlockingLog:
        """The log itself."""
        return BlockingLog(self._thread, self._inner.log, self._seconds)

    @property
    def views(self) -> BlockingViews:
        """The views as they are now, for scripts and tests; applications ask queries."""
        return BlockingViews(self._thread, self._inner.views, self._seconds)


def open_app(opening: AbstractAsyncContextManager[Running]) -> BlockingRunning:
    """Open an application in a thread of its own: what ``Module.open_blocking`` does."""
    thread = LoopThread(opening)
    return BlockingRunning(thread, thread.value, None)


def open_log(url: str) -> BlockingLog:
    """Open a bare log by its URL, in a thread of its own, and make it when there is none.

    Raises ``Invalid`` (the URL), ``LogUnusable``, ``Unavailable``.
    """
    thread = LoopThread(opening_log(url))
    return BlockingLog(thread, thread.value, None)


# --- the loop and its thread ----------------------------------------------------------------------


class LoopThread(Generic[T]):
    """A thread with an event loop, which opens something, holds it, and closes it at the end.

    ``value`` is what was opened. Errors of opening and closing come through unchanged.
    """

    def __init__(self, opening: AbstractAsyncContextManager[T]) -> None:
        _require_no_loop()
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._stop = asyncio.Event()
        self._process = os.getpid()
        # Nothing may be given to the loop after its end: nobody would ever answer.
        self._lock = threading.Lock()
        self._closed = False
        self._waiting: set[Future[Any]] = set()
        self._calls: set[asyncio.Task[Any]] = set()
        self._opened: Future[T] = Future()
        self._ended: Future[None] = Future()
        # A daemon: a program that forgets to close comes to its end all the same.
        threading.Thread(
            target=self._main, args=(opening,), name="diptych-loop", daemon=True
        ).start()
        try:
            self.value = self._opened.result()
        except BaseException:  # it cannot be opened, or the wait was interrupted
            self._request_stop()
            raise

    # --- in this thread ---------------------------------------------------------------------------

    def _main(self, opening: AbstractAsyncContextManager[T]) -> None:
        failure: BaseException | None = None
        try:
            with self._runner:
                try:
                    self._runner.run(self._hold(opening))
                finally:
                    with self._lock:
                        self._closed = True
        except BaseException as error:  # for whoever opens or closes
            failure = error
        for future in list(self._waiting):  # a loop that broke down did not come to them
            with suppress(InvalidStateError):
                future.set_exception(_closed())
        if failure is None:
            self._ended.set_result(None)
        elif self._opened.done():
            self._ended.set_exception(failure)
        else:
            self._opened.set_exception(failure)

    async def _hold(self, opening: AbstractAsyncContextManager[T]) -> None:
        async with opening as value:
            self._opened.set_result(value)
            await self._stop.wait()
        # What was accepted is answered by now; the answers have yet to reach their threads.
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=_GRACE_SECONDS)
            for call in late:
                call.cancel()
            if late:
                await asyncio.wait(late)

    async def _call(
        self, work: Callable[P, Awaitable[C]], /, *args: P.args, **kwargs: P.kwargs
    ) -> C:
        call = asyncio.current_task()
        assert call is not None
        self._calls.add(call)
        call.add_done_callback(_seen)
        try:
            return await work(*args, **kwargs)
        except asyncio.CancelledError:
            if self._closed:
                raise _closed() from None
            raise
        finally:
            self._calls.discard(call)

    # --- in the threads of the callers ------------------------------------------------------------

    def start(
        self, work: Callable[P, Awaitable[C]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[C]:
        """Begin a call. They begin in the order of these, as far as one thread can tell."""
        if os.getpid() != self._process:
            raise LogUnusable(
                "An application or log must not be used after fork; open it in the new process"
            )
        with self._lock:
            if self._closed:
                raise _closed()
            call = self._call(work, *args, **kwargs)
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
            self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def run(
        self,
        seconds: float | None,
        work: Callable[P, Awaitable[C]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> C:
        """Return what a call returns, or raise what it raises."""
        _require_no_loop()
        future = self.start(work, *args, **kwargs)
        try:
            return future.result(seconds)
        except TimeoutError:
            if future.done():  # at the last moment, or it is the call's own error
                return future.result()
            raise TimedOut(
                "The call took longer than it may; a command can have its effect all the same, "
                "so send it again with its key",
                seconds=seconds,
            ) from None
        finally:
            future.cancel()  # interrupted or too late; of no effect on what is done
            del future  # an error's traceback knows this frame: no circle

    def close(self) -> None:
        """Finish what was accepted, then end the thread. May be called twice."""
        if os.getpid() != self._process:
            return
        _require_no_loop()
        self._request_stop()
        self._ended.result()

    def _request_stop(self) -> None:
        with self._lock, suppress(RuntimeError):  # the loop has ended already
            self._closed = True
            self._loop.call_soon_threadsafe(self._stop.set)


def _require_no_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise BlocksEventLoop(
        "A blocking call would make this thread's event loop stand still; use "
        "`async with app.open(...)` there, or call from another thread (asyncio.to_thread)"
    )


def _seen(call: asyncio.Task[Any]) -> None:
    """Keep asyncio from complaining on stderr of an error whose caller was interrupted before."""
    if not call.cancelled():
        call.exception()


def _closed() -> Closed:
    return Closed("The application or log has been closed")
