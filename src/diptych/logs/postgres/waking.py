"""Wake-ups across processes: NOTIFY, coalesced and outside of the appends' transactions.

They are hints. A connection that listens may be lost, and a notification with it: whoever waits
also polls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import asyncpg

from diptych.errors import DiptychError
from diptych.sql.postgres import LOST, Connection, Database, backoff

GATHER_SECONDS: Final = 0.005
"""How long heads gather before others are told of the last one."""

LAST_SECONDS: Final = 1.0
"""How long a log that closes waits until others know of its last events."""

_QUIET = (*LOST, asyncpg.PostgresError, DiptychError)


class Waker:
    """Tells other processes of new heads, and is told of theirs, on one connection for both."""

    def __init__(self, database: Database, channel: str, heard: Callable[[int], None]) -> None:
        self._database = database
        self._channel = channel
        self._heard = heard
        self._head = 0
        self._told = 0
        self._telling: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None

    def tell(self, head: int) -> None:
        """Let others know of a head, soon."""
        self._head = max(self._head, head)
        if self._telling is None and self._head > self._told:
            self._telling = asyncio.create_task(self._tell(), name="diptych-notify")

    def listen(self) -> None:
        """Begin to listen, unless that has begun or is not to be had behind a pooler."""
        if self._listening is None and not self._database.address.pooled:
            self._listening = asyncio.create_task(self._listen(), name="diptych-listen")

    async def close(self) -> None:
        """Tell what is to be told, if that takes no time, and stop both."""
        if self._telling is not None:
            await asyncio.wait({self._telling}, timeout=LAST_SECONDS)
        tasks = [task for task in (self._telling, self._listening) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self) -> None:
        try:
            while self._head > self._told:
                await asyncio.sleep(GATHER_SECONDS)
                head = self._head
                async with self._database.lease() as connection:
                    await connection.execute("SELECT pg_notify($1, $2)", self._channel, str(head))
                self._told = head
        except _QUIET:
            pass  # a hint that is lost costs the others one poll
        finally:
            self._telling = None

    async def _listen(self) -> None:
        attempt = 0
        while True:
            with suppress(*_QUIET):
                connection = await self._database.connect()
                try:
                    await self._hear(connection)
                    attempt = 0
                finally:
                    connection.terminate()
            attempt += 1
            await asyncio.sleep(backoff(attempt))

    async def _hear(self, connection: Connection) -> None:
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _connection: ended.set())

        def heard(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
            text = str(payload)
            if text.isascii() and text.isdigit():
                self._heard(int(text))

        await connection.add_listener(self._channel, heard)
        await ended.wait()
