"""Faults on purpose: a TCP proxy before a server, which fails when it is told to.

It knows nothing of what goes through it, so it serves for every protocol that is not encrypted.
Where a fault is to strike is told by bytes that a client's message contains. (A message of more
than 64 KiB may be cut in its midst.)
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Final, Literal
from urllib.parse import urlsplit, urlunsplit

_PIECE: Final = 65536
_RESET: Final = struct.pack("ii", 1, 0)  # close at once: what is unsent is lost


class Fault:
    """Strikes the next ``times`` messages that contain ``marker``. Made by a `Proxy`.

    ``struck`` counts how often it has, ``arrived`` how many that were held back were let go and
    answered since.
    """

    def __init__(self, kind: Literal["before", "after", "hold"], marker: bytes, times: int) -> None:
        self.kind: Final = kind
        self.marker: Final = marker
        self.times: Final = times
        self.struck = 0
        self.arrived = 0
        self.free = asyncio.Event()
        self._news = asyncio.Condition()

    async def wait(self) -> None:
        """Wait until it has struck ``times`` times."""
        async with self._news:
            await self._news.wait_for(lambda: self.struck >= self.times)

    async def release(self) -> None:
        """Let what is held back reach the server, and wait until the server has answered."""
        self.free.set()
        async with self._news:
            await self._news.wait_for(lambda: self.arrived >= self.struck)

    async def note(self, *, struck: int = 0, arrived: int = 0) -> None:
        """Count; the proxy does."""
        self.struck += struck
        self.arrived += arrived
        async with self._news:
            self._news.notify_all()


class Proxy:
    """A TCP proxy, on a port of its own, before the server of a URL. Use it by ``async with``.

    ``url`` is the given one, through the proxy. ``made`` counts the connections that clients have
    made, refused ones too. ``delay`` (seconds) is how long each piece takes, in each direction.
    """

    def __init__(self, url: str, *, delay: float = 0.0) -> None:
        self._given = self._target = urlsplit(url)
        self.delay = delay
        self.made = 0
        self.port = 0
        self.url = ""
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._faults: list[Fault] = []
        self._refusing = False
        self._through = asyncio.Event()
        self._through.set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        user, at, _ = self._given.netloc.rpartition("@")
        self.url = urlunsplit(self._given._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        tasks = list(self._links.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def connected(self) -> int:
        """How many clients are connected."""
        return sum(not link.client.closed for link in self._links)

    # --- at once ----------------------------------------------------------------------------------

    def cut(self, most: int | None = None) -> int:
        """Cut the connections that are there, at most so many; return how many they were."""
        links = [link for link in self._links if not link.client.closed][:most]
        for link in links:
            link.cut()
        return len(links)

    def refuse(self) -> None:
        """From now on cut new connections at once. Those that are there stay: see `cut`."""
        self._refusing = True

    def accept(self) -> None:
        """Take new connections again."""
        self._refusing = False

    def swallow(self) -> None:
        """From now on let nothing through, and say nothing: the network has become silent."""
        self._through.clear()

    def restore(self) -> None:
        """Let through what was swallowed, and what comes."""
        self._through.set()

    def redirect(self, url: str) -> None:
        """From now on lead to the server of another URL: the old one has failed over to it.

        Connections that are there stay with the old one: see `cut`.
        """
        self._target = urlsplit(url)

    # --- at a message -----------------------------------------------------------------------------

    def cut_before(self, marker: bytes, times: int = 1) -> Fault:
        """Cut the connection of a client that sends these bytes, before the server gets them."""
        return self._add(Fault("before", marker, times))

    def cut_after(self, marker: bytes, times: int = 1) -> Fault:
        """Cut the connection when the server has answered these bytes, before the client knows."""
        return self._add(Fault("after", marker, times))

    def hold(self, marker: bytes, times: int = 1) -> Fault:
        """Cut the client off, as `cut_before`; the server gets the bytes on `Fault.release`."""
        return self._add(Fault("hold", marker, times))

    def heal(self) -> None:
        """Let no fault strike any more."""
        self._faults.clear()

    def _add(self, fault: Fault) -> Fault:
        self._faults.append(fault)
        return fault

    # --- what goes through ------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        client = _Side(reader, writer)
        task = asyncio.current_task()
        assert task is not None
        with suppress(asyncio.CancelledError, OSError):
            if self._refusing:
                client.cut()
                return
            host, port = self._target.hostname, self._target.port or 5432
            link = _Link(client, _Side(*await asyncio.open_connection(host, port)))
            self._links[link] = task
            answers = asyncio.create_task(self._answer(link))
            try:
                await self._ask(link)
            finally:
                answers.cancel()
                await asyncio.gather(answers, return_exceptions=True)
                link.cut()
                del self._links[link]
        client.cut()

    async def _ask(self, link: _Link) -> None:
        """Carry what the client sends to the server, until one of them has gone."""
        end = b""
        while piece := await self._piece(link.client):
            fault = self._fault(end, piece)
            end = piece
            if fault is not None:
                await fault.note(struck=1)
                if fault.kind == "before":
                    return
                link.muted = True
                if fault.kind == "hold":
                    await self._deliver_late(link, piece, fault)
                    return
            await link.server.send(piece)

    async def _deliver_late(self, link: _Link, piece: bytes, fault: Fault) -> None:
        link.client.cut()
        await fault.free.wait()
        with suppress(OSError):
            await link.server.send(piece)
            await link.answered.wait()
        await fault.note(arrived=1)

    async def _answer(self, link: _Link) -> None:
        """Carry what the server sends to the client, until one of them has gone."""
        with suppress(OSError):
            while (piece := await self._piece(link.server)) and not link.muted:
                await link.client.send(piece)
        link.answered.set()
        link.client.cut()

    def _fault(self, before: bytes, piece: bytes) -> Fault | None:
        for fault in self._faults:
            # It may have come in two pieces.
            end = before[max(0, len(before) - len(fault.marker) + 1) :]
            if fault.struck < fault.times and fault.marker in end + piece:
                return fault
        return None

    async def _piece(self, side: _Side) -> bytes:
        piece = await side.receive()
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._through.wait()
        return piece


class _Side:
    """One of a link's two connections."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        found: socket.socket = writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.closed = False

    async def receive(self) -> bytes:
        try:
            return await self._reader.read(_PIECE)
        except OSError:
            return b""

    async def send(self, piece: bytes) -> None:
        self._writer.write(piece)
        await self._writer.drain()

    def cut(self) -> None:
        self.closed = True
        self._writer.transport.abort()


class _Link:
    """A client's connection and the one to the server."""

    def __init__(self, client: _Side, server: _Side) -> None:
        self.client = client
        self.server = server
        self.muted = False
        self.answered = asyncio.Event()

    def cut(self) -> None:
        self.client.cut()
        self.server.cut()
