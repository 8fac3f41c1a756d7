"""What a run has at hand: sizes, backends, and logs that were filled once for all rounds."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from msgspec import Struct

from bench.figures import Backend
from bench.places import Databases, Place

Fill: TypeAlias = Callable[[str, int], Awaitable[None]]
"""Puts so many events into the empty database of a URL."""


class Sizes(Struct, frozen=True, kw_only=True):
    """How much work a measurement is. The defaults take a second or a few each."""

    in_flight: tuple[int, ...] = (1, 32, 256)
    threads: tuple[int, ...] = (1, 4, 16)
    uma_threads: tuple[int, ...] = (1, 32, 128)
    sequential: int = 4_000
    commands: int = 60_000
    peer_commands: int = 2_400
    uma_commands: int = 12_000
    events: int = 1_000_000
    peer_events: int = 3_200
    uma_events: int = 100_000
    small: int = 10_000
    largest: int = 1_000_000
    window: int = 20_000
    asked: int = 3_000
    connections: int = 64
    requests: int = 40_000
    steady_seconds: float = 5.0


class Prepared(Struct, frozen=True):
    """A database that was filled for several measurements. ``seconds``: how long that took."""

    url: str
    events: int
    seconds: float


class Setup:
    """A run's sizes and backends. Filled databases are kept until the end."""

    def __init__(self, sizes: Sizes, places: dict[Backend, Place]) -> None:
        self.sizes = sizes
        self.backends: dict[Backend, Databases] = {
            backend: place.databases for backend, place in places.items()
        }
        self.notes: list[str] = []
        self._places = places
        self._stock: dict[tuple[str, str, int], Prepared] = {}

    async def prepared(self, backend: Backend, kind: str, events: int, fill: Fill) -> Prepared:
        """Return a database of this kind and size, filled when it is first asked for."""
        key = (backend, kind, events)
        if key not in self._stock:
            url = self._places[backend].database()
            began = time.perf_counter()
            await fill(url, events)
            seconds = time.perf_counter() - began
            databases = self.backends[backend]
            databases.settle()
            self._stock[key] = Prepared(url, events, seconds)
            size = databases.size(url) / 1e6
            self.notes.append(
                f"{backend}, {kind}: {events:,} events in {seconds:,.1f} s, {size:,.0f} MB"
            )
        return self._stock[key]
