"""``/health/live``, ``/health/ready`` and ``/metrics``: for load balancers, and for Prometheus."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from msgspec import json

from diptych.errors import NotAuthenticated
from diptych.http.call import GUARDED, NO_STORE
from diptych.http.messages import JSON
from diptych.telemetry.prometheus import CONTENT_TYPE

if TYPE_CHECKING:
    from diptych.http.call import Call
    from diptych.http.door import Door

SECONDS: Final = 2.0
"""How long the log may take to answer."""


class Live:
    """``GET /health/live``: the process answers."""

    async def __call__(self, call: Call) -> None:
        """Answer a request."""
        await call.answer(200, json.encode({"status": "live"}), [JSON, NO_STORE, *GUARDED])


class Ready:
    """``GET /health/ready``: the application is open and its log can be read; 503 otherwise."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def __call__(self, call: Call) -> None:
        """Answer a request."""
        status = await self._status()
        body = json.encode({"status": status, "role": self._door.role})
        await call.answer(200 if status == "ready" else 503, body, [JSON, NO_STORE, *GUARDED])

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

    async def __call__(self, call: Call) -> None:
        """Answer a request."""
        running = self._door.require_running()
        if self._door.authenticate is not None and await self._door.actor_of(call.scope) is None:
            raise NotAuthenticated("Say who asks: metrics are not for everybody", message="metrics")
        with self._door.in_time():
            text = await running.metrics()
        media = (b"content-type", CONTENT_TYPE.encode())
        await call.answer(200, text.encode(), [media, NO_STORE, *GUARDED])
