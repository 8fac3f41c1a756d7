"""``/health/live``, ``/health/ready`` and ``/metrics``: for load balancers, and for Prometheus."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from msgspec import json

from diptych.errors import NotAuthenticated
from diptych.http.messages import JSON, respond
from diptych.telemetry.prometheus import CONTENT_TYPE

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from diptych.http.door import Door

SECONDS: Final = 2.0
"""How long the log may take to answer."""

_NO_STORE = (b"cache-control", b"no-store")


def is_health(scope: Scope) -> bool:
    """Whether a probe asks, which calls the service by whatever address it has."""
    root: str = scope.get("root_path", "")
    path: str = scope["path"]
    return path.removeprefix(root).startswith("/health/")


class Live:
    """``GET /health/live``: the process answers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await respond(send, 200, json.encode({"status": "live"}), [JSON, _NO_STORE])


class Ready:
    """``GET /health/ready``: the application is open and its log can be read; 503 otherwise."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        status = await self._status()
        body = json.encode({"status": status, "role": self._door.role})
        await respond(send, 200 if status == "ready" else 503, body, [JSON, _NO_STORE])

    async def _status(self) -> str:
        if self._door.closing:
            return "stopping"
        running = self._door.running
        if running is None:
            return "starting"
        try:
            async with asyncio.timeout(SECONDS):
                await running.log.head()
        except Exception:  # whatever it is: nobody is to be sent here now
            return "unavailable"
        return "ready"


class Metrics:
    """``GET /metrics``: what Prometheus reads; where requests are authenticated, not by anybody."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        running = self._door.require_running()
        if self._door.authenticate is not None and await self._door.actor_of(scope) is None:
            raise NotAuthenticated("Say who asks: metrics are not for everybody", message="metrics")
        with self._door.in_time() as timeout:
            async with timeout:
                text = await running.metrics()
        media = (b"content-type", CONTENT_TYPE.encode())
        await respond(send, 200, text.encode(), [media, _NO_STORE])
