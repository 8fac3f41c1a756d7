"""A pooler in transaction mode, as PgBouncer is, and as hard on its clients as it may be.

Each transaction goes to another of the server's sessions than the one before, so whatever was left
in a session is not there. What such a pooler cannot serve is noted in ``complaints``.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102
_PARAMETERS = {b"user", b"database", b"client_encoding", b"application_name"}
_OF_SESSIONS = (b"LISTEN", b"SET SESSION", b"pg_advisory_lock")


class _Session:
    """A session of the server's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer


class Pooler:
    """Listens at ``url``. ``strict``: it refuses startup parameters, as PgBouncer does by default.

    ``transactions`` counts those that it has carried.
    """

    def __init__(self, url: str, sessions: int, strict: bool) -> None:
        self._strict = strict
        self._parts = urlsplit(url)
        self._most = sessions
        self._free: deque[_Session] = deque()
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._greeting: list[bytes] = []
        self.complaints: list[str] = []
        self.transactions = 0
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = urlunsplit(
            self._parts._replace(netloc=f"{self._parts.username}@127.0.0.1:{port}")
        )
        for _ in range(self._most):
            self._free.append(await self._connect())

    async def stop(self) -> None:
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for session in self._free:
            session.writer.transport.abort()
        await self._server.wait_closed()

    async def _connect(self) -> _Session:
        port = self._parts.port or 5432
        session = _Session(*await asyncio.open_connection(self._parts.hostname, port))
        user, database = (self._parts.username or "").encode(), self._parts.path[1:].encode()
        body = b"\0\3\0\0user\0%s\0database\0%s\0client_encoding\0utf8\0\0" % (user, database)
        session.writer.write(struct.pack("!i", len(body) + 4) + body)
        greeting: list[bytes] = []
        try:
            while not greeting or greeting[-1][:1] != b"Z":
                kind, message = await _message(session.reader)
                assert kind != b"E", message
                greeting.append(message)
        except BaseException:
            session.writer.transport.abort()
            raise
        self._greeting = greeting
        return session

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                if await self._greet(reader, writer):
                    while await self._transaction(reader, writer):
                        self.transactions += 1
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        while True:
            length, code = struct.unpack("!ii", await reader.readexactly(8))
            body = await reader.readexactly(length - 8)
            if code not in (_SSL, _GSS):
                break
            writer.write(b"N")
        if code == _CANCEL:
            return False
        names = body.rstrip(b"\0").split(b"\0")[::2]
        if self._strict and (odd := [name for name in names if name not in _PARAMETERS]):
            fields = b"SFATAL\0C08P01\0Munsupported startup parameter: %s\0\0" % odd[0]
            writer.write(b"E" + struct.pack("!i", len(fields) + 4) + fields)
            await writer.drain()
            return False
        writer.writelines(self._greeting)
        return True

    async def _transaction(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Carry one transaction; False: the client has gone."""
        kind, message = await _message(reader)
        if kind == b"X":
            return False
        async with self._news:
            await self._news.wait_for(lambda: bool(self._free))
            session = self._free.popleft()
        sound = False
        try:
            due, text = 0, b""
            while True:
                due += self._pass_on(session, kind, message)
                if kind in (b"S", b"Q", b"H"):
                    await session.writer.drain()
                if kind in (b"S", b"Q"):
                    text = b""
                    while due:
                        answer, text = await _message(session.reader)
                        writer.write(text)
                        due -= answer == b"Z"
                    await writer.drain()
                    if text[-1:] == b"I":
                        sound = True
                        return True
                elif kind == b"H":
                    await self._flushed(session, writer)
                kind, message = await _message(reader)
                if kind == b"X":
                    return False
        finally:
            # A client that goes in the midst of a transaction takes its session along.
            if not sound:
                session.writer.transport.abort()
                session = await self._connect()
            async with self._news:
                self._free.append(session)  # the others come first
                self._news.notify()

    def _pass_on(self, session: _Session, kind: bytes, message: bytes) -> int:
        if kind == b"P" and message[5:6] != b"\0":
            self.complaints.append("a prepared statement with a name")
        for word in _OF_SESSIONS:
            if kind in (b"P", b"Q") and word in message:
                self.complaints.append(f"{word.decode()} in {message[5:100]!r}")
        session.writer.write(message)
        return int(kind in (b"S", b"Q"))

    async def _flushed(self, session: _Session, writer: asyncio.StreamWriter) -> None:
        """Carry what the server says when it is asked to say what it has, after Describe."""
        while True:
            kind, message = await _message(session.reader)
            writer.write(message)
            if kind in (b"T", b"n", b"E"):  # columns, no columns, an error
                return


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    (length,) = struct.unpack("!i", head[1:])
    return head[:1], head + await reader.readexactly(length - 4)


@asynccontextmanager
async def pooled(url: str, *, sessions: int = 3, strict: bool = True) -> AsyncGenerator[Pooler]:
    """Put a pooler before a database."""
    pooler = Pooler(url, sessions, strict)
    await pooler.start()
    try:
        yield pooler
    finally:
        await pooler.stop()
