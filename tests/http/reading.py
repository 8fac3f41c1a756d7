"""Reads server-sent events, as a browser does."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx


class Sent(NamedTuple):
    """One event: its id, its name and its data."""

    id: str
    name: str
    data: Any


class Events:
    """The events of one stream; comments are counted."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.comments = 0
        self._events = self._read()

    def __aiter__(self) -> AsyncIterator[Sent]:
        return self

    async def __anext__(self) -> Sent:
        return await anext(self._events)

    async def _read(self) -> AsyncGenerator[Sent]:
        fields: dict[str, str] = {}
        async for line in self.response.aiter_lines():
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            else:
                if "data" in fields:
                    data = json.loads(fields["data"])
                    yield Sent(fields.get("id", ""), fields.get("event", "message"), data)
                fields = {}


@asynccontextmanager
async def following(
    client: httpx.AsyncClient, address: str, **headers: str
) -> AsyncGenerator[Events]:
    """Open a stream."""
    given = {"Accept": "text/event-stream", **headers}
    async with client.stream("GET", address, headers=given) as response:
        assert response.status_code == 200, (await response.aread()).decode()
        assert response.headers["Content-Type"] == "text/event-stream"
        yield Events(response)
