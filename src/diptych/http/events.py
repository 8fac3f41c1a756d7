"""``GET /events?types=…&tags=…``: the log itself, as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from diptych.errors import Invalid
from diptych.http.fields import pairs_of
from diptych.http.messages import too_large
from diptych.http.streams import Stream, frame, position_of, resumed
from diptych.log import Token
from diptych.messages import Event, Metadata, Recorded

if TYPE_CHECKING:
    from diptych.app.running import Running
    from diptych.http.call import Call
    from diptych.http.door import Door
    from diptych.log import Log
    from diptych.read.queries import Events

PAGE: Final = 500
STEP: Final = 1000
"""After so many events that do not match, the client is told where it stands all the same."""

_encode = msgspec.json.Encoder().encode


class Told(Struct, frozen=True):
    """An event as it is in the log."""

    position: int
    id: str
    type: str
    tags: tuple[str, ...]
    data: Any
    metadata: Metadata


class Wanted(Struct, frozen=True):
    """Which events a client asks for: of any of the types, with all of the tags."""

    types: tuple[type[Event], ...]
    tags: tuple[str, ...]


class EventStream:
    """``GET /events``."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._tail: Tail | None = None

    async def __call__(self, call: Call) -> None:
        """Answer a request."""
        door = self._door
        running = door.require_running()
        query_string: bytes = call.scope["query_string"]
        actor = await door.actor_of(call.scope)
        if len(query_string) > door.limits.body:
            raise too_large(door.limits.body)
        wanted, after = self._parse(running, pairs_of(query_string))
        position = await self._start(running, resumed(call.headers, after))
        events = running.events_for(actor)
        await events.read(wanted.types, wanted.tags, after=position, until=position)  # may he?
        if self._tail is None or self._tail.log is not running.log:
            self._tail = Tail(running.log)
        frames = _frames(running.log.identity, events, self._tail, wanted, position)
        await Stream(door, frames, actor).run(call, at_once=False)

    def _parse(self, running: Running, pairs: list[tuple[str, str]]) -> tuple[Wanted, str | None]:
        known = running.definitions.codec.events
        types: list[Any] = []
        tags: list[str] = []
        after: str | None = None
        for name, text in pairs:
            if name == "types":
                if text not in known:
                    raise _invalid("types", "the name of an event", got=text)
                types.append(known[text].cls)
            elif name == "tags":
                key, colon, _ = text.partition(":")
                if not key or not colon or "\0" in text:
                    raise _invalid("tags", "KEY:VALUE", got=text)
                tags.append(text)
            elif name == "after" and after is None:
                after = text
            else:
                raise _invalid(name, "types, tags, or after, which is given once")
        return Wanted(tuple(types), tuple(tags)), after

    async def _start(self, running: Running, after: str | None) -> int:
        """Return the position to begin after: by default the head."""
        head = await running.log.head()
        if after is None:
            return head
        position = position_of(after)
        if position is None:
            token = Token.parse(after)
            token.require_reachable(running.log.identity, head)
            return token.position
        if position > head:
            raise _invalid("after", f"at most {head}, the head of the log")
        return position


def _invalid(field: str, rule: str, **facts: Any) -> Invalid:
    return Invalid("These events cannot be told", field=field, rule=rule, **facts)


class Tail:
    """Waits for the log to grow, once for all streams."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self._head = 0
        self._waiting: asyncio.Task[None] | None = None

    async def beyond(self, position: int) -> int:
        """Return the head, as soon as it lies after a position."""
        while self._head <= position:
            if self._waiting is None:
                self._waiting = asyncio.create_task(self._wait(), name="diptych-tail")
                self._waiting.add_done_callback(_seen)
            await asyncio.shield(self._waiting)
        return self._head

    async def _wait(self) -> None:
        try:
            self._head = await self.log.wait(self._head)
        finally:
            self._waiting = None


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # told to every stream that waits


async def _frames(
    identity: str, events: Events, tail: Tail, wanted: Wanted, position: int
) -> AsyncGenerator[bytes]:
    told = position
    while True:
        head = await tail.beyond(position)
        while position < head:
            found = await events.read(
                wanted.types, wanted.tags, after=position, until=head, limit=PAGE
            )
            position = found[-1].position if len(found) == PAGE else head
            if found:
                told = position
                yield b"".join(_frame(identity, one) for one in found)
            elif position - told >= STEP:
                told = position
                yield b"id: %s\n\n" % str(Token(identity, position)).encode()


def _frame(identity: str, one: Recorded) -> bytes:
    event = one.event
    told = Told(one.position, one.id, event.message_name, one.tags, event, one.metadata)
    return frame(Token(identity, one.position), _encode(told))
