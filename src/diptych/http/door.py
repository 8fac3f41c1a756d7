"""What all addresses of one service share: the application, the limits, who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from starlette.requests import Request

from diptych.errors import Closed, Overloaded, TimedOut
from diptych.messages import Actor

if TYPE_CHECKING:
    from starlette.types import Scope

    from diptych.app.modules import Definitions
    from diptych.app.running import Running
    from diptych.http.limits import Limits
    from diptych.http.streams import Stream

Role: TypeAlias = Literal["commands", "queries", "workers", "all"]
"""What a process serves."""

Authenticate: TypeAlias = Callable[[Request], Actor | Awaitable[Actor | None] | None]
"""From a request to who sends it; None: nobody that is known."""


class Door:
    """The state behind the addresses."""

    def __init__(
        self,
        definitions: Definitions,
        limits: Limits,
        authenticate: Authenticate | None,
        role: Role,
    ) -> None:
        self.definitions = definitions
        self.limits = limits
        self.authenticate = authenticate
        self.role: Role = role
        self.running: Running | None = None
        self.watch = Watch(limits.seconds)
        self.asking = Bound(
            limits.queries, "Too many queries wait for their answer; ask again later"
        )
        self._streams: set[Stream] = set()

    @property
    def closing(self) -> bool:
        """Whether nothing new is taken any more."""
        return self.watch.stopping

    @closing.setter
    def closing(self, closing: bool) -> None:
        self.watch.stopping = closing

    def require_running(self) -> Running:
        """Return the application; ``Closed`` when it is not open, or no longer."""
        if self.running is None or self.closing:
            raise Closed(
                "The service is being stopped" if self.closing else "The service is not open"
            )
        return self.running

    async def actor_of(self, scope: Scope) -> Actor | None:
        """Return who sends a request, as the host's authentication says."""
        if self.authenticate is None:
            return None
        found = self.authenticate(Request(scope))
        return await found if isinstance(found, Awaitable) else found

    def stop(self) -> None:
        """Take nothing new, and end the streams."""
        self.closing = True
        for stream in self._streams:
            stream.end()

    # --- bounds -----------------------------------------------------------------------------------

    @contextmanager
    def streaming(self, stream: Stream) -> Generator[None]:
        """Keep an open stream in mind; ``Overloaded`` when there are too many."""
        if len(self._streams) >= self.limits.streams:
            raise Overloaded(
                "Too many streams are open; connect again later",
                waiting=len(self._streams),
                limit=self.limits.streams,
            )
        self._streams.add(stream)
        try:
            yield
        finally:
            self._streams.discard(stream)

    def in_time(self) -> InTime:
        """Turn what takes longer than it may into ``TimedOut``: ``with door.in_time():``."""
        return InTime(self.watch)


class Bound:
    """So many at a time; ``Overloaded`` for one more."""

    def __init__(self, limit: int, text: str) -> None:
        self._limit = limit
        self._text = text
        self._count = 0

    def __enter__(self) -> None:
        if self._count >= self._limit:
            raise Overloaded(self._text, waiting=self._count, limit=self._limit)
        self._count += 1

    def __exit__(self, *exception: object) -> None:
        self._count -= 1


class Watch:
    """Cancels what takes too long; one timer serves all that is under way.

    ``stopping``: the server is at its end, and cancels what has outlasted its grace.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.stopping = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self._ends: dict[InTime, float] = {}  # the next one to end comes first
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, one: InTime, loop: asyncio.AbstractEventLoop) -> None:
        """Watch one."""
        end = self._ends[one] = loop.time() + self.seconds
        if self._timer is None:
            self.loop = loop
            self._timer = loop.call_at(end, self._look, loop)

    def end(self, one: InTime) -> None:
        """Watch it no longer."""
        self._ends.pop(one, None)

    def stop(self) -> None:
        """Watch nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for one, end in list(self._ends.items()):
            if end > now:
                self._timer = loop.call_at(end, self._look, loop)
                return
            del self._ends[one]
            one.expire()


class InTime:
    """What ``asyncio.timeout`` does, without a timer of its own, and told as ``TimedOut``."""

    __slots__ = ("_before", "_expired", "_task", "_watch")

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._expired = False

    def __enter__(self) -> None:
        # To find out which loop runs takes Python 3.11 a call of the system.
        task = asyncio.current_task(self._watch.loop) or asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self._watch.begin(self, task.get_loop())

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        self._watch.end(self)
        cancelled = kind is asyncio.CancelledError
        ours = self._expired or (cancelled and self._watch.stopping)
        if ours and self._task.uncancel() <= self._before and cancelled:
            raise TimedOut(
                "The service has not answered in time. A command can have its effect all the "
                "same: send it again with the same idempotency key only",
                seconds=self._watch.seconds,
            ) from error

    def expire(self) -> None:
        """Cancel the task that is within."""
        self._expired = True
        self._task.cancel()
