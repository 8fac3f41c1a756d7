"""``GET /queries/{Name}`` with ``Accept: text/event-stream``: the live query."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Meta, Struct

from diptych.http.messages import TOKEN, preferences, wait_of
from diptych.http.streams import Stream, frame, resumed

if TYPE_CHECKING:
    from diptych.app.running import Running
    from diptych.http.call import Call
    from diptych.http.door import Door
    from diptych.messages import Actor
    from diptych.read.queries import Answer

KEPT: Final = 64
"""Answers whose JSON is kept for those who are about to be told the same."""


class LiveAnswer(Struct, frozen=True):
    """An answer of a live query.

    ``as_of`` is the position in the log that the views had reached, ``age`` (seconds) how old that
    was, ``stale`` whether the token to go on from is not reached yet.
    """

    value: Any
    as_of: int
    age: float
    stale: bool
    token: Annotated[str, Meta(pattern=TOKEN)]


class Frames:
    """Answers as events: one that goes to many is written once."""

    def __init__(self, encode: Any) -> None:
        self._encode = encode
        self._kept: OrderedDict[int, tuple[Answer[Any], bytes]] = OrderedDict()

    def of(self, answer: Answer[Any]) -> bytes:
        """Return the event of an answer."""
        # The answer is kept too, so that its id is not given to another one meanwhile.
        found = self._kept.get(id(answer))
        if found is not None:
            return found[1]
        told = LiveAnswer(answer.value, answer.as_of, answer.age, answer.stale, str(answer.token))
        written = frame(answer.token, self._encode(told))
        self._kept[id(answer)] = answer, written
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return written


class LiveStream:
    """A live query, as a stream."""

    def __init__(self, door: Door, encode: Any) -> None:
        self._door = door
        self._frames = Frames(encode)

    async def run(
        self, running: Running, query: Any, actor: Actor | None, after: str | None, call: Call
    ) -> None:
        """Send answers until the client goes away."""
        wait = wait_of(preferences(call.headers), self._door.limits.wait) or 0.0
        frames = self._answers(running, query, actor, resumed(call.headers, after), wait)
        await Stream(self._door, frames, actor).run(call, at_once=True)

    async def _answers(
        self, running: Running, query: Any, actor: Actor | None, after: str | None, wait: float
    ) -> AsyncGenerator[bytes]:
        following = running.live(query, actor=actor, after=after, wait=wait)
        async with aclosing(following) as answers:
            async for answer in answers:
                yield self._frames.of(answer)
