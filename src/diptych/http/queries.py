"""``GET /queries/{Name}?field=…``: an answer, how fresh it is, and whether it is still the same."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import msgspec

from diptych.errors import UnknownMessage
from diptych.http.call import GUARDED
from diptych.http.fields import Parameters, pairs_of
from diptych.http.live import LiveStream
from diptych.http.messages import (
    JSON,
    preferences,
    require_shallow,
    text_of,
    too_large,
    wait_of,
)
from diptych.http.streams import AFTER, is_stream

if TYPE_CHECKING:
    from diptych.app.modules import Definitions
    from diptych.http.call import Call
    from diptych.http.door import Door
    from diptych.http.limits import Limits
    from diptych.http.problems import Headers
    from diptych.read.queries import Answer

WAIT: Final = 5.0
"""Seconds that a query waits for its token where the client does not say."""

_ALWAYS: Final[Headers] = [
    (b"cache-control", b"private, no-cache"),
    (b"vary", b"Accept"),
    *GUARDED,
]

encode = msgspec.json.Encoder().encode


class Asked:
    """Finds the query that an address stands for."""

    def __init__(self, definitions: Definitions) -> None:
        self._codec = definitions.codec
        self._parameters = {
            name: Parameters(registered) for name, registered in self._codec.queries.items()
        }

    def parse(self, call: Call, limits: Limits, *, live: bool = False) -> tuple[Any, str | None]:
        """Return the query, and the token that a live one is to go on from.

        Raises ``UnknownMessage``, ``Invalid``, ``Problem``.
        """
        name = call.name
        parameters = self._parameters.get(name)
        if parameters is None:
            raise UnknownMessage(
                "There is no such query; /openapi.json lists what there is", name=name
            )
        query_string: bytes = call.scope["query_string"]
        if len(query_string) > limits.body:
            raise too_large(limits.body)
        pairs = pairs_of(query_string)
        after = None
        if live:
            after = next((text for name, text in reversed(pairs) if name == AFTER), None)
            pairs = [pair for pair in pairs if pair[0] != AFTER]
        for _, text in pairs:
            if len(text) > limits.depth:
                require_shallow(text.encode(errors="replace"), limits.depth)
        return parameters.parse(self._codec, pairs), after


class OneQuery:
    """``GET /queries/{Name}``."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._asked = Asked(door.definitions)
        self._live = LiveStream(door, encode)

    async def __call__(self, call: Call) -> None:
        """Answer a request."""
        door = self._door
        running = door.require_running()
        headers = call.headers
        actor = None if door.authenticate is None else await door.actor_of(call.scope)
        if is_stream(headers):
            query, after = self._asked.parse(call, door.limits, live=True)
            await self._live.run(running, query, actor, after, call)
            return
        query, _ = self._asked.parse(call, door.limits)
        preferred = preferences(headers)
        wait = wait_of(preferred, door.limits.wait)
        with door.asking, door.in_time():
            answer = await running.ask(
                query,
                actor=actor,
                after=text_of(headers, b"diptych-after"),
                wait=min(WAIT, door.limits.wait) if wait is None else wait,
                strict=preferred.get("handling") == "strict",
            )
        body = encode(answer.value)
        tag = etag_of(body)
        told = [*_ALWAYS, *freshness(answer), (b"etag", tag)]
        if is_known(headers.get(b"if-none-match", b""), tag):
            await call.unchanged(told)
            return
        told.append(JSON)
        await call.answer(200, body, told)


def freshness(answer: Answer[Any]) -> Headers:
    """Return the headers that say how fresh an answer is; ``Age`` 0 is the present."""
    told = [
        (b"diptych-as-of", b"%d" % answer.as_of),
        (b"diptych-token", str(answer.token).encode()),
        (b"age", b"%d" % -int(-answer.age // 1)),
    ]
    if answer.stale:
        told.append((b"diptych-stale", b"true"))
    return told


def etag_of(body: bytes) -> bytes:
    """Return the entity tag of a body."""
    return b'"%s"' % blake2b(body, digest_size=12).hexdigest().encode()


def is_known(if_none_match: bytes, tag: bytes) -> bool:
    """Whether the client has a body with this entity tag."""
    if not if_none_match:
        return False
    known = [one.strip().removeprefix(b"W/") for one in if_none_match.split(b",")]
    return tag in known or b"*" in known
