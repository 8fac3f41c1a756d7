"""What all addresses of one service share: the application, the limits, who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

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
        self.closing = False
        self._queries = 0
        self._streams: set[Stream] = set()

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
    def asking(self) -> Generator[None]:
        """Count a query that is being answered; ``Overloaded`` when there are too many."""
        if self._queries >= self.limits.queries:
            raise Overloaded(
                "Too many queries wait for their answer; ask again later",
                waiting=self._queries,
                limit=self.limits.queries,
            )
        self._queries += 1
        try:
            yield
        finally:
            self._queries -= 1

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

    @contextmanager
    def in_time(self) -> Generator[asyncio.Timeout]:
        """Turn a timeout into ``TimedOut``."""
        timeout = asyncio.timeout(self.limits.seconds)
        try:
            yield timeout
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise TimedOut(
                "The service has not answered in time. A command can have its effect all the "
                "same: send it again with the same idempotency key only",
                seconds=self.limits.seconds,
            ) from error
