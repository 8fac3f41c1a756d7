"""Live queries: an answer now, and another one whenever it has become another.

All who ask the same share the work. A query is asked again when one of the projections that its
last answer rested on has had an effect (its proof has moved), and what comes out is compared.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from diptych.codec import Codec
from diptych.errors import Unavailable
from diptych.log import Log, Token
from diptych.messages import Actor, Query, actor_of, everybody_may
from diptych.read.following.engine import Engine
from diptych.read.following.waiting import Proof
from diptych.read.queries import Answer, Look, Queries
from diptych.read.status import age_after

R = TypeVar("R")

AT_ONCE: Final = 8
"""How many queries are asked at the same time."""

POLL_SECONDS: Final = 0.1
"""How often to look at checkpoints that another process, or an append, moves."""

REST_SECONDS: Final = 1.0
SHORTEST_PAUSE: Final = 0.01
PAUSE_PER_READER: Final = 0.0002
"""Seconds that the event loop is left to those who take a new answer, for each of them."""

LONGEST_PAUSE: Final = 2.0
RETRY_SECONDS: Final = 0.5


class _Topic:
    """One query that somebody follows, and its newest answer."""

    def __init__(self, key: tuple[type, bytes], query: Query[Any]) -> None:
        self.key = key
        self.query = query
        self.readers = 0
        self.answer: Answer[Any] | None = None
        self.error: Exception | None = None
        self.version = 0
        self.begun = 0
        self.done = 0
        self.looking: asyncio.Task[None] | None = None
        self.projections: frozenset[str] = frozenset()
        self.reads_log = False
        self.proofs: Mapping[str, Proof] = {}
        self.turns: tuple[int, ...] = ()
        self.head = 0
        self.failed = False
        self.news: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def is_behind(self, proofs: Mapping[str, Proof], turns: tuple[int, ...], head: int) -> bool:
        """Whether what the answer rests on has moved since, or another version is live."""
        if self.answer is None or self.failed or (self.reads_log and self.head != head):
            return True
        if self.turns != turns:
            return True
        return any(self.proofs.get(name) != proofs.get(name) for name in self.projections)

    def tell(self) -> None:
        """Wake all readers."""
        news, self.news = self.news, asyncio.get_running_loop().create_future()
        news.set_result(None)


class LiveQueries:
    """The live queries of one application. Nothing runs while nobody follows one."""

    def __init__(
        self,
        log: Log,
        codec: Codec,
        queries: Queries,
        engines: Sequence[Engine],
        require_allowed: Callable[[Actor | None, Query[Any]], None] = everybody_may,
    ) -> None:
        self._require_allowed = require_allowed
        self._log = log
        self._codec = codec
        self._queries = queries
        self._engines = engines
        self._topics: dict[tuple[type, bytes], _Topic] = {}
        self._proofs: Mapping[str, Proof] = {}
        self._turns: tuple[int, ...] = ()
        self._head = 0
        self._room = asyncio.Semaphore(AT_ONCE)
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        for engine in engines:
            engine.waiting.listeners.append(self._moved.set)

    async def answers(
        self,
        query: Query[R],
        *,
        actor: Actor | str | None = None,
        after: Token | str | None = None,
        wait: float = 0.0,
    ) -> AsyncGenerator[Answer[R]]:
        """Yield the answer, then each one that differs from the last; ends with `stop`."""
        clean, data = self._codec.validate(query)
        self._require_allowed(actor_of(actor), clean)
        topic = self._join((type(query), data), clean)
        try:
            answer = await self._anew(topic)
            if after is not None:
                answer = await self._queries.ask(query, actor=actor, after=after, wait=wait)
                while answer.stale and not self._closed:
                    yield answer
                    answer = await self._queries.ask(
                        query, actor=actor, after=after, wait=REST_SECONDS
                    )
            yield answer
            last: Any = answer.value
            if after is not None:  # what others are told may be older than that
                answer = await self._anew(topic)
            seen = -1
            while not self._closed:
                if topic.error is not None:
                    raise topic.error
                if topic.version != seen:
                    seen = topic.version
                    assert topic.answer is not None
                    if topic.answer.value != last:
                        last = topic.answer.value
                        yield topic.answer
                else:
                    await asyncio.shield(topic.news)
        finally:
            self._leave(topic)

    async def stop(self) -> None:
        """End all of them."""
        self._closed = True
        for topic in self._topics.values():
            topic.tell()
        looking = [topic.looking for topic in self._topics.values() if topic.looking]
        for task in (self._task, *looking):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    # --- who follows what -------------------------------------------------------------------------

    def _join(self, key: tuple[type, bytes], query: Query[Any]) -> _Topic:
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = _Topic(key, query)
        topic.readers += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="diptych-live")
        return topic

    def _leave(self, topic: _Topic) -> None:
        topic.readers -= 1
        if not topic.readers:
            self._forget(topic)

    def _forget(self, topic: _Topic) -> None:
        if self._topics.get(topic.key) is topic:
            del self._topics[topic.key]

    # --- asking again -----------------------------------------------------------------------------

    async def _anew(self, topic: _Topic) -> Answer[Any]:
        """Return an answer that was asked for after this call; those who come together share it."""
        wanted = topic.begun + 1
        while topic.done < wanted:
            await asyncio.shield(self._look(topic))
            if topic.error is not None:
                raise topic.error
        assert topic.answer is not None
        return topic.answer

    def _look(self, topic: _Topic) -> asyncio.Task[None]:
        if topic.looking is None:
            topic.looking = asyncio.create_task(self._look_now(topic), name="diptych-look")
        return topic.looking

    async def _look_now(self, topic: _Topic) -> None:
        try:
            async with self._room:
                topic.begun += 1
                topic.proofs, topic.turns, topic.head = self._proofs, self._turns, self._head
                look = await self._queries.look(topic.query)
                answer = await self._answer(look)
        except Unavailable as error:
            topic.failed = True
            if topic.answer is None:
                self._fail(topic, error)
        except Exception as error:
            self._fail(topic, error)
        else:
            topic.failed = False
            topic.projections, topic.reads_log = look.projections, look.reads_log
            known, topic.answer = topic.answer, answer
            if known is None or known.value != answer.value:
                topic.version += 1
                topic.tell()
        finally:
            topic.done = topic.begun
            topic.looking = None

    def _fail(self, topic: _Topic, error: Exception) -> None:
        """Tell all readers; who comes later starts afresh."""
        topic.error = error
        self._forget(topic)
        topic.tell()

    async def _answer(self, look: Look) -> Answer[Any]:
        head = await self._log.head()
        age = await age_after(self._log, look.as_of) if look.as_of < head else 0.0
        token = Token(self._log.identity, look.as_of)
        return Answer(look.value, look.as_of, age, stale=False, token=token)

    # --- noticing ---------------------------------------------------------------------------------

    async def _run(self) -> None:
        while self._topics:
            try:
                await self._refresh()
                now = (self._proofs, self._turns, self._head)
                due = [topic for topic in self._topics.values() if topic.is_behind(*now)]
            except Exception:  # the database is away, most likely
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if not due:
                await self._rest()
                continue
            versions = [topic.version for topic in due]
            begun = time.monotonic()
            await asyncio.gather(*map(self._look, due), return_exceptions=True)
            took = time.monotonic() - begun
            told = sum(t.readers for t, v in zip(due, versions, strict=True) if t.version != v)
            failed = any(topic.failed for topic in due)
            # Commands and other queries are to have the event loop half of the time.
            pause = max(SHORTEST_PAUSE, took, told * PAUSE_PER_READER)
            await asyncio.sleep(RETRY_SECONDS if failed else min(pause, LONGEST_PAUSE))

    async def _refresh(self) -> None:
        """Take the proofs of all projections that matter."""
        self._moved.clear()
        wanted = {name for topic in self._topics.values() for name in topic.projections}
        proofs: dict[str, Proof] = {}
        for engine in self._engines:
            if not engine.running:  # else it looks by itself which versions are live
                await engine.versions.refresh()
            served = engine.versions.served
            if not wanted.isdisjoint(served):
                proofs |= await engine.waiting.proofs(served)
        self._proofs = proofs
        self._turns = tuple(engine.versions.turn for engine in self._engines)
        if self._reads_log():
            self._head = await self._log.head()

    def _reads_log(self) -> bool:
        return any(topic.reads_log for topic in self._topics.values())

    async def _rest(self) -> None:
        """Wait until something moves; what moves elsewhere is looked at from time to time."""
        here = all(engine.waiting.done_here(engine.versions.served) for engine in self._engines)
        timeout = REST_SECONDS if here else POLL_SECONDS
        waiting: set[asyncio.Task[Any]] = {asyncio.create_task(self._moved.wait())}
        if self._reads_log():
            waiting.add(asyncio.ensure_future(self._log.wait(self._head, timeout=timeout)))
        try:
            await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


__all__ = ["LiveQueries"]
