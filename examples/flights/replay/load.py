"""Sends the commands of a slice through an application, a bounded number of them at a time."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

from msgspec import Struct
from msgspec.json import Decoder

from diptych import Command, Receipt, Rejected, Running
from examples.flights.replay.commands import Keyed

CHUNK = 500
"""Commands sent before what has been answered meanwhile is counted."""

WINDOW = 3000
"""Commands that may wait for their answers."""

RECALLED = 10_000
"""Keys asked for at a time when a load is resumed: more than could wait when it was stopped."""


class Kept(Struct):
    """A rejection as the log keeps it under its key."""

    reason: str
    code: str
    facts: dict[str, Any]


class Rejection(Struct, frozen=True):
    """A command that was rejected, and why."""

    command: str
    reason: str
    code: str
    facts: dict[str, Any]


_kept = Decoder(Kept)


class Load:
    """Counts what came of the commands, by their names."""

    def __init__(self, running: Running) -> None:
        self.accepted: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.rejections: deque[Rejection] = deque(maxlen=1000)
        self.recalled = 0
        self.stopped = False
        self._running = running
        self._waiting: deque[tuple[Command, asyncio.Future[Receipt]]] = deque()

    @property
    def answered(self) -> int:
        """How many commands have been answered, by this run and those before it."""
        return self.accepted.total() + self.rejected.total()

    def stop(self) -> None:
        """Send no more; what has been sent is still waited for."""
        self.stopped = True

    async def run(self, commands: Iterator[Keyed]) -> None:
        """Send all commands that have no answer yet, in order."""
        left = deque(await self.resume(commands))
        while not self.stopped:
            chunk = [left.popleft() for _ in range(min(CHUNK, len(left)))]
            chunk = chunk or list(islice(commands, CHUNK))
            if not chunk:
                break
            await self._answers(WINDOW - len(chunk))
            for key, command in chunk:
                self._waiting.append((command, self._running.submit(command, key=key)))
            await asyncio.sleep(0)
        await self._answers(0)

    async def resume(self, commands: Iterator[Keyed]) -> list[Keyed]:
        """Count what has been answered by earlier runs; return what they have left out."""
        left: list[Keyed] = []
        while chunk := list(islice(commands, RECALLED)):
            known = await self._running.recall([key for key, _ in chunk])
            for key, command in chunk:
                answer = known.get(key)
                if answer is None:
                    left.append((key, command))
                elif answer.rejection is None:
                    self.accepted[command.message_name] += 1
                else:
                    kept = _kept.decode(answer.rejection)
                    self._reject(command, kept)
            self.recalled += len(known)
            if self.stopped or len(known) < len(chunk) // 2:
                break
        return left

    async def _answers(self, most: int) -> None:
        """Count the answers at hand, until at most so many are waited for."""
        waiting, accepted = self._waiting, self.accepted
        while waiting:
            command, answer = waiting[0]
            if not answer.done():
                if len(waiting) <= most:
                    return
                await asyncio.wait((answer,))
            waiting.popleft()
            error = answer.exception()
            if error is None:
                accepted[command.message_name] += 1
            elif isinstance(error, Rejected):
                self._reject(command, error)
            else:
                raise error

    def _reject(self, command: Command, why: Rejected | Kept) -> None:
        name = command.message_name
        self.rejected[name] += 1
        self.rejections.append(Rejection(name, why.reason, why.code, dict(why.facts)))
