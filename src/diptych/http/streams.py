"""Server-sent events: to one client, until it goes away, is too slow, or the service stops."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

from diptych.errors import Invalid, NotAuthenticated
from diptych.http.actors import ExpiringActor
from diptych.http.call import GUARDED
from diptych.http.messages import EVENTS, JSON, text_of
from diptych.http.problems import encoded, problem_of

if TYPE_CHECKING:
    from starlette.types import Receive, Send

    from diptych.http.call import Call, Named
    from diptych.http.door import Door
    from diptych.messages import Actor

ALIVE: Final = b": alive\n\n"
RETRY: Final = b"retry: 1000\n\n"
"""How long a browser waits before it connects again, milliseconds."""

_HEADERS: Final = [
    (b"content-type", EVENTS.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would keep events back
    *GUARDED,
]

_EVENTS: Final = EVENTS.encode()
_PLAIN: Final = frozenset({JSON[1], b"*/*"})

_logger = logging.getLogger("diptych.http")

AFTER: Final = "diptych-after"

_EXPIRED: Final = NotAuthenticated(
    "Who asked is known no longer: his token has expired. Connect again with a new one"
)


def is_stream(headers: Named) -> bool:
    """Whether the client asks for a stream, and for nothing else that it could be given."""
    accepted = headers.get(b"accept")
    if accepted is None or accepted in _PLAIN:
        return False
    accepted = accepted.lower()
    return _EVENTS in accepted and JSON[1] not in accepted


def resumed(headers: Named, parameter: str | None) -> str | None:
    """Return the token to go on from.

    Browsers send ``Last-Event-ID`` by themselves, and can set no header: hence the parameter.
    """
    return (
        text_of(headers, b"last-event-id") or text_of(headers, AFTER.encode()) or parameter or None
    )


def frame(token: object, data: bytes) -> bytes:
    """Return an event: JSON has no line breaks, so its data is one line."""
    return b"id: %s\ndata: %s\n\n" % (str(token).encode(), data)


class Stream:
    """One open stream."""

    def __init__(self, door: Door, frames: AsyncGenerator[bytes], actor: Actor | None) -> None:
        self._door = door
        self._frames = frames
        self._expires = actor.expires if isinstance(actor, ExpiringActor) else None
        self._gone: asyncio.Task[None] | None = None

    def end(self) -> None:
        """End it, as if the client had gone."""
        if self._gone is not None:
            self._gone.cancel()

    async def run(self, call: Call, *, at_once: bool) -> None:
        """Send frames until the end. ``at_once``: the first one, or its error, is the answer."""
        try:
            with self._door.streaming(self):
                first = await self._first() if at_once else b""
                await call.start(200, _HEADERS)
                self._gone = asyncio.create_task(_gone(call.receive), name="diptych-stream")
                if await self._sent(call.send, RETRY + first):
                    await self._follow(call.send, self._gone)
        finally:
            if self._gone is not None:
                self._gone.cancel()
                await asyncio.gather(self._gone, return_exceptions=True)
            await self._frames.aclose()

    async def _first(self) -> bytes:
        with self._door.in_time():
            return await anext(self._frames, b"")

    async def _follow(self, send: Send, gone: asyncio.Task[None]) -> None:
        following = _next(self._frames)
        end = time.monotonic() + self._door.limits.stream
        try:
            while not self._door.closing and (left := end - time.monotonic()) > 0:
                known = math.inf if self._expires is None else self._expires - time.time()
                if known <= 0:
                    await self._sent(send, _problem(_EXPIRED))
                    break
                done, _ = await asyncio.wait(
                    (following, gone),
                    timeout=min(self._door.limits.heartbeat, left, known),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if gone in done:
                    break
                news, last = (ALIVE, False) if not done else _taken(following)
                if not await self._sent(send, news):
                    return
                if last:
                    break
                if done:
                    following = _next(self._frames)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await send({"type": "http.response.body", "body": b""})

    async def _sent(self, send: Send, data: bytes) -> bool:
        """Send; False when the client has not taken it in time, or is no longer there."""
        try:
            async with asyncio.timeout(self._door.limits.send):
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            _logger.info("A client took nothing for %s s: dropped", self._door.limits.send)
            return False
        except OSError:
            return False
        return True


def _next(frames: AsyncGenerator[bytes]) -> asyncio.Task[bytes]:
    async def following() -> bytes:
        return await anext(frames, b"")

    return asyncio.create_task(following(), name="diptych-next")


def _taken(following: asyncio.Task[bytes]) -> tuple[bytes, bool]:
    """Return what is to be sent, and whether it is the last."""
    error = following.exception()
    if error is not None:
        return _problem(error), True
    return following.result(), not following.result()


def _problem(error: BaseException) -> bytes:
    """Return the event that says why a stream ends."""
    _, told, _ = problem_of(error, reading=True)
    return b"event: problem\ndata: %s\n\n" % encoded(told)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def position_of(text: str) -> int | None:
    """Return a position that is written as a number; None for anything else."""
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > 18:
        raise Invalid("There is no such position", field="after", rule="a token, or a position")
    return int(text)
