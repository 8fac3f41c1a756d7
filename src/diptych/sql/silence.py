"""Limits for statements: short ones are watched by one timer for all, others have one each.

A timer that is made and cancelled for each statement, as asyncpg's ``command_timeout`` is, costs a
command that comes alone some 20 µs, a twentieth of its time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import asyncpg

Connection: TypeAlias = "asyncpg.Connection[Any]"

COMMAND_SECONDS: Final = 300.0
"""How long one of the others may take before its connection is given up."""


class Silence:
    """Gives up connections that short statements are made on, when nothing is heard on them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: dict[Connection, float] = {}  # the next one to end comes first
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, connection: Connection) -> None:
        """Watch a connection."""
        loop = asyncio.get_running_loop()
        end = self._ends[connection] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(end, self._look, loop)

    def end(self, connection: Connection) -> None:
        """Watch it no longer."""
        self._ends.pop(connection, None)

    def close(self) -> None:
        """Watch nothing more."""
        self._ends.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for connection, end in list(self._ends.items()):
            if end > now:
                self._timer = loop.call_at(end, self._look, loop)
                return
            del self._ends[connection]
            connection.terminate()


def limit(connection: Connection, seconds: float | None) -> None:
    """Give each statement of a connection so long; ``TimeoutError``, and it is lost."""
    # asyncpg asks for it at each statement. It can be given at the start only, and to each call.
    config: Any = getattr(connection, "_config")  # noqa: B009  # no other way
    setattr(connection, "_config", config._replace(command_timeout=seconds))  # noqa: B010
