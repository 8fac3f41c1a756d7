"""``/health/live``, ``/health/ready`` and ``/metrics``: for load balancers, and for Prometheus."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct, json

from diptych.errors import NotAuthenticated
from diptych.http.call import GUARDED, NO_STORE
from diptych.http.messages import JSON
from diptych.telemetry.prometheus import CONTENT_TYPE

if TYPE_CHECKING:
    from diptych.http.call import Call
    from diptych.http.door import Door
    from diptych.read.status import Status

SECONDS: Final = 2.0
"""How long the log may take to answer."""

TROUBLE: Final = ("away", "refused", "failed")


class Live:
    """``GET /health/live``: the process answers."""

    async def __call__(self, call: Call) -> None:
        """Answer a request."""
        await call.answer(200, json.encode({"status": "live"}), [JSON, NO_STORE, *GUARDED])


class Trouble(Struct, frozen=True, omit_defaults=True):
    """A projection that does not apply everything: it has failed, is refused, or parks keys.

    Or nobody knows, as its read database is away.
    """

    projection: str
    state: str
    parked_keys: int = 0
    parked_events: int = 0


class Health(Struct, frozen=True, omit_defaults=True):
    """Whether requests may come; ``degraded``: they may, and somebody should look at it.

    ``views`` are unavailable when any read database is; ``projections`` tell which.
    Anybody may ask, so that why a projection has failed is told by ``diptych status`` only.
    """

    status: Literal["ready", "degraded", "starting", "stopping", "unavailable"]
    role: str
    projections: list[Trouble] = []
    views: Literal["", "unavailable"] = ""


class Ready:
    """``GET /health/ready``: the application is open and its log can be read; 503 otherwise."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def __call__(self, call: Call) -> None:
        """Answer a request."""
        health = await self._health()
        status = 200 if health.status in ("ready", "degraded") else 503
        await call.answer(status, json.encode(health), [JSON, NO_STORE, *GUARDED])

    async def _health(self) -> Health:
        role = self._door.role
        if self._door.closing:
            return Health("stopping", role)
        running = self._door.running
        if running is None:
            return Health("starting", role)
        try:
            async with asyncio.timeout(SECONDS):
                await running.log.head()
        except Exception:  # whatever it is: nobody is to be sent here now
            return Health("unavailable", role)
        if role == "commands":
            return Health("ready", role)
        try:
            async with asyncio.timeout(SECONDS):
                found = [trouble for one in await running.status() if (trouble := _trouble(one))]
        except Exception:  # the others have no views either, most likely
            return Health("degraded", role, views="unavailable")
        away = any(one.state == "away" for one in found)
        views: Literal["", "unavailable"] = "unavailable" if away else ""
        return Health("degraded" if found else "ready", role, found, views)


def _trouble(status: Status) -> Trouble | None:
    if not status.parked_keys and status.state not in TROUBLE:
        return None
    return Trouble(status.projection, status.state, status.parked_keys, status.parked_events)


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
