"""``POST /commands/{Name}``, one command, and ``POST /commands``, one a line."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from diptych.errors import Invalid, Overloaded, UnknownMessage
from diptych.http.call import GUARDED, NO_STORE
from diptych.http.messages import (
    JSON,
    LINES,
    TOKEN,
    ClientGone,
    body_of,
    chunks_of,
    key_of,
    require_json,
    require_key,
    require_lines,
    require_shallow,
    too_large,
)
from diptych.http.problems import Headers, encoded, problem_of
from diptych.write.entry import Receipt

if TYPE_CHECKING:
    from starlette.types import Receive, Send

    from diptych.app.running import Running
    from diptych.http.call import Call
    from diptych.http.door import Door

_ALWAYS: Final[Headers] = [JSON, NO_STORE, *GUARDED]


class Accepted(Struct, frozen=True):
    """The answer to a command that was accepted.

    ``token`` is what a query needs to see its effect. ``first`` and ``last`` are the positions of
    its events in the log (``first`` 0: there was nothing to change). ``replayed``: its idempotency
    key had been used, this is the first answer again, with a ``command_id`` of this attempt.
    """

    token: Annotated[str, Meta(pattern=TOKEN)]
    command_id: str
    first: int
    last: int
    replayed: bool


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    """A command in a batch: its name, its fields and, if it has one, its idempotency key."""

    command: str
    data: Raw = Raw(b"{}")
    key: str | None = None


_line = msgspec.json.Decoder(Line)
_encode = msgspec.json.Encoder().encode


def accepted(receipt: Receipt) -> Accepted:
    """Return a receipt as it is answered."""
    return Accepted(
        str(receipt.token), receipt.command_id, receipt.first, receipt.last, receipt.replayed
    )


def parse_command(running: Running, name: str, data: bytes, depth: int) -> Any:
    """Return a command from its JSON; ``UnknownMessage``, ``Invalid``, ``Problem``."""
    codec = running.definitions.codec
    if name not in codec.commands:
        raise UnknownMessage(
            "There is no such command; /openapi.json lists what there is", name=name
        )
    require_shallow(data, depth)
    return codec.parse(codec.commands, name, data)


class OneCommand:
    """``POST /commands/{Name}``."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def __call__(self, call: Call) -> None:
        """Answer a request."""
        door = self._door
        running = door.require_running()
        headers = call.headers
        actor = None if door.authenticate is None else await door.actor_of(call.scope)
        require_json(headers)
        key = key_of(call.scope["headers"])
        body = await body_of(headers, call.receive, door.limits.body)
        command = parse_command(running, call.name, body, door.limits.depth)
        with door.in_time():
            receipt = await running.submit(command, key=key, actor=actor)
        answer = accepted(receipt)
        token = (b"diptych-token", answer.token.encode())
        await call.answer(200, _encode(answer), [*_ALWAYS, token])


_Waiting: TypeAlias = tuple[int, "bytes | asyncio.Future[Receipt]"]
"""The number of a line, and its answer or what will be."""


class Batch:
    """``POST /commands``: newline-delimited JSON, answered line by line, in order.

    Lines are submitted as they arrive, so that those which wait together share a transaction.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    async def __call__(self, call: Call) -> None:
        """Answer a request."""
        running = self._door.require_running()
        actor = await self._door.actor_of(call.scope)
        require_lines(call.headers)
        work = _BatchWork(self._door, running, actor)
        await call.start(200, [(b"content-type", LINES.encode()), NO_STORE, *GUARDED])
        answering = asyncio.create_task(work.answer(call.send), name="diptych-batch")
        try:
            await work.read(call.receive)
            await answering
        except ClientGone:
            pass  # what was submitted stands
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)


class _BatchWork:
    def __init__(self, door: Door, running: Running, actor: Any) -> None:
        self._limits = door.limits
        self._running = running
        self._actor = actor
        self._waiting: deque[_Waiting] = deque()
        self._more = asyncio.Event()
        self._complete = False
        self._room = asyncio.Semaphore(door.limits.in_flight)

    # --- reading ----------------------------------------------------------------------------------

    async def read(self, receive: Receive) -> None:
        """Submit all lines; a client that does not read its answers yet is no reason to stop."""
        number = 0
        try:
            async for line in self._lines(receive):
                number += 1
                if line.strip():
                    await self._take(number, line)
        except Exception as error:
            if isinstance(error, ClientGone):
                raise
            self._put(number + 1, _refused(number + 1, error))
        self._complete = True
        self._more.set()

    async def _lines(self, receive: Receive) -> AsyncIterator[bytes]:
        size, rest = 0, b""
        async for chunk in chunks_of(receive):
            size += len(chunk)
            if size > self._limits.batch:
                raise too_large(self._limits.batch)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line
            if len(rest) > self._limits.body:
                raise too_large(self._limits.body)
        if rest:
            yield rest

    async def _take(self, number: int, line: bytes) -> None:
        try:
            if len(line) > self._limits.body:
                raise too_large(self._limits.body)
            command, key = self._parse(line)
            self._put(number, await self._submit(command, key))
        except Exception as error:
            self._put(number, _refused(number, error))

    def _parse(self, line: bytes) -> tuple[Any, str | None]:
        require_shallow(line, self._limits.depth)
        try:
            given = _line.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(
                "That is no line of a batch", field="", rule='{"command": "Name", "data": {…}}'
            ) from error
        if given.key is not None:
            require_key(given.key, "key")
        data = bytes(given.data)
        return parse_command(self._running, given.command, data, self._limits.depth), given.key

    async def _submit(self, command: Any, key: str | None) -> asyncio.Future[Receipt]:
        await self._room.acquire()
        try:
            future = await self._submitted(command, key)
        except BaseException:
            self._room.release()
            raise
        future.add_done_callback(self._done)
        return future

    async def _submitted(self, command: Any, key: str | None) -> asyncio.Future[Receipt]:
        """Submit; while others fill the queue, wait rather than refuse the line."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limits.seconds
        while True:
            try:
                return self._running.submit(command, key=key, actor=self._actor)
            except Overloaded:
                if loop.time() > end:
                    raise
                await asyncio.sleep(0.01)

    def _done(self, future: asyncio.Future[Receipt]) -> None:
        self._room.release()
        if not future.cancelled():
            future.exception()  # seen, also where the client has gone

    def _put(self, number: int, answer: bytes | asyncio.Future[Receipt]) -> None:
        self._waiting.append((number, answer))
        self._more.set()

    # --- answering --------------------------------------------------------------------------------

    async def answer(self, send: Send) -> None:
        """Send the answers in the order of the lines, as many at a time as are there."""
        while True:
            ready: list[bytes] = []
            while self._waiting and _is_there(self._waiting[0][1]):
                ready.append(_told(*self._waiting.popleft()))
            if ready:
                await send(
                    {"type": "http.response.body", "body": b"".join(ready), "more_body": True}
                )
            elif self._waiting:
                future = self._waiting[0][1]
                assert not isinstance(future, bytes)
                await asyncio.wait((future,))
            elif self._complete:
                await send({"type": "http.response.body", "body": b""})
                return
            else:
                self._more.clear()
                await self._more.wait()


def _is_there(answer: bytes | asyncio.Future[Receipt]) -> bool:
    return isinstance(answer, bytes) or answer.done()


def _told(number: int, answer: bytes | asyncio.Future[Receipt]) -> bytes:
    if isinstance(answer, bytes):
        return answer
    error = answer.exception()
    if error is not None:
        return _refused(number, error)
    receipt = accepted(answer.result())
    return _encode({"line": number, "status": 200, "receipt": receipt}) + b"\n"


def _refused(number: int, error: BaseException) -> bytes:
    status, told, _ = problem_of(error)
    return b'{"line":%d,"status":%d,"problem":%s}\n' % (number, status, encoded(told))
