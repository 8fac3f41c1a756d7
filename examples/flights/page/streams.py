"""Live queries as parts of a page: server-sent events whose data is HTML."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from diptych import Answer, DiptychError, Query
from examples.flights.page.desk import STREAMS, Desk, desk_of
from examples.flights.page.drawing import draw

RETRY: Final = "retry: 1000\n\n"
ALIVE: Final = ": alive\n\n"
HEARTBEAT: Final = 15.0
SETTLE: Final = 0.2
"""Seconds in which changes gather before they are drawn: more than that nobody can read."""


def event(name: str, html: str, id: object = None) -> str:
    """Return one event; its id is what the browser comes back with when the line was cut."""
    lines = "".join(f"data: {line}\n" for line in html.splitlines() if line.strip())
    return (f"id: {id}\n" if id is not None else "") + f"event: {name}\n{lines}\n"


class Shown:
    """What a page shows of a live query: for the question at this time, its answer as HTML."""

    def __init__(
        self,
        name: str,
        question: Callable[[], Query[Any]],
        drawn: Callable[[Answer[Any]], str],
    ) -> None:
        self.name = name
        self.question = question
        self.drawn = drawn


async def answer(request: Request, shown: Shown) -> Response:
    """Answer with a stream that goes on from what the page shows already."""
    desk = desk_of(request)
    if desk.streams >= STREAMS or desk.closing:
        return PlainTextResponse("Too many look on; come again later", 503, {"retry-after": "5"})
    after = request.headers.get("last-event-id") or request.query_params.get("after")
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(
        _stream(desk, shown, after), media_type="text/event-stream", headers=headers
    )


async def _stream(desk: Desk, shown: Shown, after: str | None) -> AsyncGenerator[str]:
    desk.streams += 1
    bar = Bar(desk)
    following = _Following(desk, shown, after)
    try:
        yield RETRY
        while not desk.closing:
            rung = desk.bell.wait()
            parts = [*bar.news(), *following.news()]
            if parts:
                yield "".join(parts)
            waiting: set[asyncio.Future[Any]] = {rung, following.next}
            done, _ = await asyncio.wait(
                waiting, timeout=HEARTBEAT, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                yield ALIVE
            await asyncio.sleep(SETTLE)
    finally:
        desk.streams -= 1
        await following.stop()


class _Following:
    """A live query whose question changes with the clock."""

    def __init__(self, desk: Desk, shown: Shown, after: str | None) -> None:
        self._desk = desk
        self._shown = shown
        self._last: Answer[Any] | None = None
        self._html = ""
        self._ask(after)

    def _ask(self, after: str | None) -> None:
        self._question = self._shown.question()
        self._answers = self._desk.running.live(self._question, after=after)
        self._resumed = after is not None
        self._take()

    def _take(self) -> None:
        answers = self._answers

        async def following() -> Answer[Any]:
            return await anext(answers)

        self.next = asyncio.create_task(following(), name="board-next")

    def news(self) -> list[str]:
        """Return the answer as HTML, when it is another or is to be drawn otherwise."""
        if self.next.done():
            self._taken()
        if self._question != self._shown.question():  # the clock has moved on
            self._stopping = asyncio.create_task(self._end(self.next, self._answers))
            self._ask(None)
        if self._last is None:
            return []
        html = self._shown.drawn(self._last)
        if html == self._html:
            return []
        self._html = html
        return [event(self._shown.name, html, self._last.token)]

    def _taken(self) -> None:
        try:
            self._last = self.next.result()
        except StopAsyncIteration:  # the application is being closed
            self._desk.close()
            return
        except DiptychError:
            if not self._resumed:
                raise
            self._ask(None)  # what it was to go on from is of another log: begin afresh
            return
        self._resumed = False
        self._take()

    async def stop(self) -> None:
        await self._end(self.next, self._answers)

    @staticmethod
    async def _end(task: asyncio.Task[Any], answers: AsyncGenerator[Any]) -> None:
        task.cancel()
        with suppress(asyncio.CancelledError, StopAsyncIteration, DiptychError):
            await task
        await answers.aclose()


class Bar:
    """Clock, age of the data and switches: the same on all pages that follow something."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._sent: dict[str, str] = {}

    def parts(self) -> dict[str, str]:
        """Return each part as HTML."""
        desk = self._desk
        return {
            "clock": draw("_clock.html", now=desk.clock.now),
            "fresh": draw("_fresh.html", fresh=desk.leash.fresh),
            "controls": draw("_controls.html", speed=desk.clock.speed, slow=desk.leash.slow),
        }

    def news(self) -> list[str]:
        """Return those that have changed."""
        before, self._sent = self._sent, self.parts()
        return [event(name, html) for name, html in self._sent.items() if before.get(name) != html]
