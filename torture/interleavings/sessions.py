"""Sessions of PostgreSQL that run step by step, in an order that is given.

What runs is the log's own code: a step is a statement that it sends. A statement is held back until
it is the session's turn. BEGIN is no step of its own, as it neither looks nor locks; a statement
that appends outside of a transaction is two, the statement and its commit. Whether a session waits
for a lock, PostgreSQL is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from typing import Any, Literal, TypeVar, cast

from asyncpg.connection import _ConnectionProxy  # pyright: ignore[reportPrivateUsage]
from asyncpg.transaction import Transaction

from diptych.sql.postgres import Connection, Database

T = TypeVar("T")

SECONDS = 30.0
"""How long all of an interleaving may take: more than the longest wait for a lock."""

_BLOCKED = """
SELECT pid FROM unnest($1::int[]) AS p (pid) WHERE cardinality(pg_blocking_pids(pid)) > 0
"""
_NO_STEPS = ("BEGIN", "SAVEPOINT", "RELEASE", "SELECT pg_notify", "SELECT current_setting")


class Session:
    """One client's connection, and what it does. ``free``: statements do not wait for their turn.

    ``state``: it is held back ("held"), its statement runs ("runs"), its program does something
    else than statements ("thinks"), or is at its end ("ended").
    """

    def __init__(self, url: str, news: asyncio.Event) -> None:
        self.database = Stepped(url, self)
        self.free = True
        self.pid = 0
        self.state: Literal["held", "runs", "thinks", "ended"] = "ended"
        self._news = news
        self._turn = asyncio.Event()

    def let_go(self) -> None:
        """Let the statement that is held back run."""
        self._to("runs")
        self._turn.set()

    async def step(self, pid: int, run: Callable[[], Awaitable[T]]) -> T:
        """Run a statement, when it is the session's turn."""
        if self.free:
            return await run()
        self.pid = pid
        self._turn.clear()
        self._to("held")
        await self._turn.wait()
        try:
            return await run()
        finally:
            self._to("thinks")

    async def play(self, program: Coroutine[Any, Any, None]) -> None:
        """Run a program to its end, step by step."""
        self.free = False
        self._to("thinks")
        try:
            await program
        finally:
            self.free = True
            self._to("ended")

    def _to(self, state: Literal["held", "runs", "thinks", "ended"]) -> None:
        self.state = state
        self._news.set()


class Stepped(Database):
    """A database whose connections are those of a session."""

    def __init__(self, url: str, session: Session) -> None:
        super().__init__(url)
        self._session = session

    async def connect(self) -> Connection:
        """Return a connection whose statements are steps."""
        return cast("Connection", _Connection(await super().connect(), self._session))


class _Connection(_ConnectionProxy):
    """A connection that waits before each statement until it is the session's turn."""

    def __init__(self, connection: Connection, session: Session) -> None:
        self._connection = connection
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, query: str, *values: Any) -> Any:
        if not query.startswith("WITH moved") or self._connection.is_in_transaction():
            return await self._step(query, lambda: self._connection.execute(query, *values))
        async with self.transaction():
            return await self._step(query, lambda: self._connection.execute(query, *values))

    async def fetch(self, query: str, *values: Any) -> Any:
        return await self._step(query, lambda: self._connection.fetch(query, *values))

    async def fetchval(self, query: str, *values: Any) -> Any:
        return await self._step(query, lambda: self._connection.fetchval(query, *values))

    async def fetchrow(self, query: str, *values: Any) -> Any:
        if ".append(" not in query or self._connection.is_in_transaction():
            return await self._step(query, lambda: self._connection.fetchrow(query, *values))
        async with self.transaction():
            return await self._step(query, lambda: self._connection.fetchrow(query, *values))

    def transaction(self, **options: Any) -> Any:
        # It sends its statements by `execute`.
        own: Any = self
        return Transaction(own, options.get("isolation"), readonly=False, deferrable=False)

    async def _step(self, query: str, run: Callable[[], Awaitable[T]]) -> T:
        if query.startswith(_NO_STEPS):
            return await run()
        return await self._session.step(self._connection.get_server_pid(), run)


class Stage:
    """Sessions on one server, and a connection beside them that sees who is blocked."""

    def __init__(self, url: str, watcher: Connection) -> None:
        self._url = url
        self._watcher = watcher
        self._news = asyncio.Event()
        self._sessions: list[Session] = []

    @classmethod
    @asynccontextmanager
    async def on(cls, url: str) -> AsyncGenerator[Stage]:
        """Make a stage on a server; all that is on it is closed in the end."""
        database = Database(url)
        async with database.lease() as watcher:
            stage = cls(url, watcher)
            try:
                yield stage
            finally:
                for session in stage._sessions:
                    await session.database.close()
        await database.close()

    def new(self) -> Session:
        """Return a new session."""
        self._sessions.append(Session(self._url, self._news))
        return self._sessions[-1]

    async def play(
        self, programs: Sequence[tuple[Session, Coroutine[Any, Any, None]]], order: Iterable[int]
    ) -> None:
        """Play programs, in this order of steps and then in turn; raise what they raise.

        The turn of a session that waits for a lock, or is at its end, passes.
        """
        sessions = [session for session, _ in programs]
        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
            for session, program in programs:
                group.create_task(session.play(program))
                session.state = "thinks"
            await self._settle(sessions)
            for index in order:
                await self._turn(sessions, sessions[index])
            for session in cycle(sessions):
                if all(each.state == "ended" for each in sessions):
                    break
                await self._turn(sessions, session)

    async def _turn(self, sessions: Sequence[Session], session: Session) -> None:
        if session.state == "held":
            session.let_go()
        await self._settle(sessions)

    async def _settle(self, sessions: Sequence[Session]) -> None:
        """Wait until each session is held back, blocked by another, or at its end."""
        while True:
            self._news.clear()
            thinking = any(session.state == "thinks" for session in sessions)
            running = [session.pid for session in sessions if session.state == "runs"]
            if not running and not thinking:
                return
            if thinking:
                await self._news.wait()
                continue
            with suppress(TimeoutError):  # most statements are done before one could ask
                async with asyncio.timeout(0.001):
                    await self._news.wait()
                    continue
            blocked = await self._watcher.fetch(_BLOCKED, running)
            if len(blocked) == len(running) and not self._news.is_set():
                return
            await asyncio.sleep(0)
