"""The flights' time, which runs faster than ours, and the commands that are due by it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, TypeAlias

from msgspec.structs import replace

from diptych import Command, Rejected, Running, Unavailable
from examples.flights.depart.command import Depart
from examples.flights.divert.command import Divert
from examples.flights.land.command import Land
from examples.flights.page.bell import Bell
from examples.flights.past_board.query import AFTER, BEFORE
from examples.flights.replay.commands import MINUTE, START, Keyed
from examples.flights.swap.event import AircraftSwapped

Window: TypeAlias = tuple[datetime, datetime]

TICK_SECONDS: Final = 0.1
QUARTER: Final = timedelta(minutes=15)
CHUNK: Final = 1000
FASTEST: Final = 60.0
"""Minutes of the flights' time in a second."""


class Clock:
    """What time it is for the flights, and how fast it goes: ``speed`` minutes a second."""

    def __init__(self, now: datetime, speed: float, bell: Bell) -> None:
        self._minutes = (now - START) / MINUTE
        self._bell = bell
        self.speed = speed

    @property
    def now(self) -> datetime:
        """The minute that has begun."""
        return START + MINUTE * int(self._minutes)

    def window(self) -> Window:
        """Which flights are on the board: it moves on every quarter of an hour."""
        quarter = START + (self.now - START) // QUARTER * QUARTER
        return quarter - BEFORE, quarter + AFTER

    def run_at(self, speed: float) -> None:
        """Change the speed; 0: stand still."""
        self.speed = min(max(speed, 0.0), FASTEST)
        self._bell.ring()

    def advance(self, seconds: float) -> None:
        """Let so many seconds of ours go by."""
        before = int(self._minutes)
        self._minutes += self.speed * seconds
        if int(self._minutes) != before:
            self._bell.ring()

    def set_to(self, now: datetime) -> None:
        """Go to a time."""
        self._minutes = (now - START) / MINUTE
        self._bell.ring()


class Replay:
    """Sends commands when they are due. What was sent before is passed over."""

    def __init__(self, running: Running, clock: Clock, source: Iterator[Keyed]) -> None:
        self._running = running
        self._clock = clock
        self._source = source
        self._ahead: deque[Keyed] = deque()
        self._swapped: dict[str, str] = {}
        self._swaps_seen = 0
        self.rejected = 0

    async def run(self) -> None:
        """Follow the clock until cancelled."""
        while self._ahead:
            await asyncio.sleep(TICK_SECONDS)
            self._clock.advance(TICK_SECONDS)
            try:
                await self._send_due()
            except Unavailable:
                await asyncio.sleep(1.0)  # they are still ahead, under the same keys
        self._clock.run_at(0.0)
        await asyncio.Event().wait()  # the last flight is down; visitors go on looking

    async def load(self) -> None:
        """Send what is missing before the clock's time; an old log sets the clock forward."""
        while not self._ahead and (chunk := list(islice(self._source, CHUNK))):
            known = await self._running.recall([key for key, _ in chunk])
            last = max((_due(key) for key in known), default=self._clock.now)
            if last > self._clock.now:
                self._clock.set_to(last)
            missing = [one for one in chunk if one[0] not in known]
            late = [one for one in missing if _due(one[0]) <= self._clock.now]
            await self._send(late)
            self._ahead.extend(missing[len(late) :])

    async def _send_due(self) -> None:
        due: list[Keyed] = []
        while self._ahead and _due(self._ahead[0][0]) <= self._clock.now:
            due.append(self._ahead.popleft())
            if not self._ahead:
                self._ahead.extend(islice(self._source, CHUNK))
        try:
            await self._send(due)
        except Unavailable:
            self._ahead.extendleft(reversed(due))
            raise

    async def _send(self, due: list[Keyed]) -> None:
        if not due:
            return
        await self._read_swaps()
        sent = [
            self._running.submit(self._as_swapped(one), key=key, actor="replay") for key, one in due
        ]
        for answer in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(answer, Rejected):
                self.rejected += 1
            elif isinstance(answer, BaseException):
                raise answer

    async def _read_swaps(self) -> None:
        for one in await self._running.events.read([AircraftSwapped], after=self._swaps_seen):
            if isinstance(one.event, AircraftSwapped):
                self._swapped[one.event.flight] = one.event.aircraft
            self._swaps_seen = one.position

    def _as_swapped(self, command: Command) -> Command:
        """The file does not know which aircraft a visitor gave to the flight."""
        if isinstance(command, (Depart, Land, Divert)) and command.flight in self._swapped:
            return replace(command, aircraft=self._swapped[command.flight])
        return command


def _due(key: str) -> datetime:
    return START + MINUTE * int(key[:5], 16)
