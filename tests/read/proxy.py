"""A TCP proxy in front of PostgreSQL that cuts connections, before or after a request is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

Cut = Literal["request", "reply"]


class Proxy:
    """``cut("request")``: the next request that has the mark never gets there; ``cut("reply")``:
    it does, and its reply is lost. ``away`` refuses everybody.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._parts = parts
        self._target = (parts.hostname, parts.port)
        self._mark = b""
        self._armed: Cut | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.away = False
        self.cuts = 0

    def cut(self, how: Cut, mark: bytes = b"") -> None:
        """Cut the next connection on which a request with this mark is sent."""
        self._armed, self._mark = how, mark

    def cut_all(self) -> None:
        """Cut whatever is open now."""
        for writer in self._open:
            writer.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[str]:
        """Give the URL by which the database is reached through the proxy."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        user = self._parts.username
        try:
            yield urlunsplit(self._parts._replace(netloc=f"{user}@127.0.0.1:{port}"))
        finally:
            server.close()
            self.cut_all()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._target)
        self._open |= {writer, back}
        if self.away:  # since the connection was accepted
            self.cut_all()
        lost = False

        def request(data: bytes) -> bool:
            nonlocal lost
            if self._armed is None or self._mark not in data:
                return True
            how, self._armed = self._armed, None
            self.cuts += 1
            lost = how == "reply"
            return lost

        try:
            await asyncio.gather(
                self._pass(reader, back, request), self._pass(there, writer, lambda _: not lost)
            )
        finally:
            self._open -= {writer, back}

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        go_on: Callable[[bytes], bool],
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(2**16):
                if not go_on(data):
                    break
                writer.write(data)
                await writer.drain()
        self.cut_pair(writer)

    def cut_pair(self, writer: asyncio.StreamWriter) -> None:
        """End a connection."""
        writer.transport.abort()
