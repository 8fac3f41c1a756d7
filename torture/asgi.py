"""Clients of an ASGI application in this process, which may go away at any moment."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message


class Caller:
    """Makes requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def get(self, address: str) -> int:
        """Return the status of an answer."""
        return await self._answered(Frames(self._app, "GET", address, b"", "application/json"))

    async def post(self, address: str, body: Any, *, gone: bool = False) -> int:
        """Return the status; ``gone``: the client has gone away before it is answered: 0."""
        data = json.dumps(body).encode()
        request = Frames(self._app, "POST", address, data, "application/json")
        if gone:
            await asyncio.sleep(0)
            await request.cancel()
            return 0
        return await self._answered(request)

    def stream(self, address: str) -> Frames:
        """Open a stream of events."""
        return Frames(self._app, "GET", address, b"", "text/event-stream")

    async def _answered(self, request: Frames) -> int:
        await request.task
        return request.status


class Frames:
    """One request under way."""

    def __init__(self, app: ASGIApp, method: str, address: str, body: bytes, accept: str) -> None:
        path, _, query = address.partition("?")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [
                (b"host", b"localhost"),
                (b"accept", accept.encode()),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
        }
        self._body: bytes | None = body
        self._gone = asyncio.Event()
        self._news: asyncio.Queue[bytes] = asyncio.Queue()
        self.status = 0
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def next(self) -> bytes:
        """Wait for an event; raise ``EOFError`` when the answer has ended."""
        while True:
            news = asyncio.ensure_future(self._news.get())
            try:
                await asyncio.wait((news, self.task), return_when=asyncio.FIRST_COMPLETED)
                if not news.done():
                    raise EOFError(f"the stream has ended with {self.status}")
                if b"data:" in (data := news.result()):
                    return data
            finally:
                news.cancel()

    async def leave(self) -> None:
        """Go away as clients do: the server is told."""
        self._gone.set()
        await self.task

    async def cancel(self) -> None:
        """Have the server give up the request."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif body := message.get("body"):
            self._news.put_nowait(body)
