"""Wake-ups across processes: NOTIFY, coalesced and outside of the transactions they tell of.

They are hints. A connection that listens may be lost, and a notification with it: whoever waits
also polls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import asyncpg

from diptych.errors import DiptychError
from diptych.sql.postgres import LOST, Connection, Database, backoff

GATHER_SECONDS: Final = 0.005
"""How long news gather before others are told of the last."""

LAST_SECONDS: Final = 1.0
"""How long one that closes waits until others know of its last news."""

_TELL: Final = "SELECT pg_notify($1, $2), set_config('synchronous_commit', 'off', true)"
"""A hint need not be durable: the appends that come meanwhile do not wait for the disk twice."""

_QUIET = (*LOST, asyncpg.PostgresError, DiptychError)

_Heard: TypeAlias = Callable[[int], None]


class Waker:
    """Tells other processes of ever higher numbers, and is told of theirs, on one channel."""

    def __init__(self, database: Database, channel: str, heard: _Heard) -> None:
        self._database = database
        self._channel = channel
        self._heard = heard
        self._number = 0
        self._told = 0
        self._telling: asyncio.Task[None] | None = None
        self._ears: _Ears | None = None

    @property
    def listening(self) -> bool:
        """Whether news of others are heard at once, as far as is known."""
        return self._ears is not None and self._ears.connected

    def tell(self, number: int) -> None:
        """Let others know of a number, soon."""
        self._number = max(self._number, number)
        if self._telling is None and self._number > self._told:
            self._telling = asyncio.create_task(self._tell(), name="diptych-notify")

    def listen(self) -> None:
        """Begin to listen, unless that has begun or is not to be had behind a pooler."""
        if self._ears is None and not self._database.address.pooled:
            self._ears = _EARS.setdefault(self._database, _Ears(self._database))
            self._ears.add(self._channel, self._heard)

    async def close(self) -> None:
        """Tell what is to be told, if that takes no time, and stop both."""
        if self._telling is not None:
            await asyncio.wait({self._telling}, timeout=LAST_SECONDS)
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        if self._ears is not None:
            ears, self._ears = self._ears, None
            await ears.remove(self._channel, self._heard)

    async def _tell(self) -> None:
        try:
            while self._number > self._told:
                await asyncio.sleep(GATHER_SECONDS)
                number = self._number
                async with self._database.lease() as connection:
                    await connection.execute(_TELL, self._channel, str(number))
                self._told = number
        except _QUIET:
            pass  # a hint that is lost costs the others one poll
        finally:
            self._telling = None


class _Ears:
    """The one connection on which a process listens to a database, for all its channels."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._heard: list[tuple[str, _Heard]] = []
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.connected = False

    def add(self, channel: str, heard: _Heard) -> None:
        self._heard.append((channel, heard))
        self.connected = False
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="diptych-listen")

    async def remove(self, channel: str, heard: _Heard) -> None:
        self._heard.remove((channel, heard))
        if not self._heard and self._task is not None:
            _EARS.pop(self._database, None)  # they hold the database: nothing would let go of both
            task, self._task = self._task, None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _listen(self) -> None:
        attempt = 0
        while True:
            with suppress(*_QUIET):
                connection = await self._database.connect()
                try:
                    await self._hear(connection)
                    attempt = 0
                finally:
                    self.connected = False
                    connection.terminate()
            attempt += 1
            await asyncio.sleep(backoff(attempt))

    async def _hear(self, connection: Connection) -> None:
        ended = False

        def end(_connection: Any) -> None:
            nonlocal ended
            ended = True
            self._changed.set()

        connection.add_termination_listener(end)
        listened: set[str] = set()
        while not ended:
            self._changed.clear()
            for channel in {channel for channel, _ in self._heard} - listened:
                await connection.add_listener(channel, self._tell)
                listened.add(channel)
            self.connected = not self._changed.is_set()
            await self._changed.wait()

    def _tell(self, _connection: Any, _pid: int, channel: str, payload: object) -> None:
        text = str(payload)
        if text.isascii() and text.isdigit():
            for one, heard in list(self._heard):
                if one == channel:
                    heard(int(text))


_EARS: WeakKeyDictionary[Database, _Ears] = WeakKeyDictionary()
