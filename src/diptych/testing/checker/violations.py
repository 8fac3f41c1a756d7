"""What the checker finds, and the log it finds it in."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from heapq import merge
from typing import Any, Final

from msgspec import Struct

from diptych.log import EventQuery, Log, QueryItem, StoredEvent

POINTS: Final = {
    1: "an acknowledged append is in the log once, byte for byte",
    2: "an append of unknown outcome is in the log at most once, and whole",
    3: "a failed append is not in the log",
    4: "positions have no gaps, and the order inside an append is kept",
    5: "what ended before another began lies before it",
    6: "no event that a condition forbids lies between its position and the append",
    7: "a refusal has a cause: a matching event, a key that was used",
    8: "a reader sees the log in order and without holes",
    9: "a view is the fold of the log up to its checkpoint, and its proof holds",
    10: "a read with a token saw the write",
}
"""What must hold, by number."""


class Violation(Struct, frozen=True):
    """Something that must hold and does not: ``point`` is its number in ``POINTS``."""

    point: int
    text: str
    facts: dict[str, Any]

    def __str__(self) -> str:
        listed = ", ".join(f"{name}: {value}" for name, value in self.facts.items())
        return f"[{self.point}] {self.text} ({listed}); must hold: {POINTS[self.point]}"


class Found:
    """Collects violations."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def add(self, point: int, text: str, /, **facts: Any) -> None:
        """Add one."""
        self.violations.append(Violation(point, text, facts))


class Stored:
    """The log as it is in the end, by position, id, tag and type."""

    def __init__(self, events: Sequence[StoredEvent]) -> None:
        self.events = list(events)
        self.head = events[-1].position if events else 0
        self.by_position = {event.position: event for event in events}
        self.by_id: defaultdict[str, list[int]] = defaultdict(list)
        self._all: list[int] = []
        self._by_tag: defaultdict[str, list[int]] = defaultdict(list)
        self._by_type: defaultdict[str, list[int]] = defaultdict(list)
        for event in events:
            self.by_id[event.id].append(event.position)
            self._all.append(event.position)
            self._by_type[event.type].append(event.position)
            for tag in set(event.tags):
                self._by_tag[tag].append(event.position)

    def matching(self, query: EventQuery, after: int, upto: int) -> Iterator[int]:
        """Yield the positions in (after, upto] of the events that match, in order."""
        last = after
        for position in merge(*(self._of(item, after) for item in query.items or (QueryItem(),))):
            if position > upto:
                return
            if position > last:  # several items may match one event
                yield position
                last = position

    def first(self, query: EventQuery, after: int, upto: int, known: Collection[int] = ()) -> int:
        """Return the first such position that is not known; 0 when there is none."""
        return next((p for p in self.matching(query, after, upto) if p not in known), 0)

    def _of(self, item: QueryItem, after: int) -> Iterator[int]:
        lists = [self._by_tag.get(tag, []) for tag in item.tags] or [self._all]
        if not item.tags and len(item.types) == 1:
            lists = [self._by_type.get(next(iter(item.types)), [])]
        candidates = min(lists, key=len)
        for index in range(bisect_right(candidates, after), len(candidates)):
            event = self.by_position[candidates[index]]
            typed = not item.types or event.type in item.types
            if typed and item.tags.issubset(event.tags):
                yield event.position


async def read_all(log: Log, found: Found, *, limit: int = 1000) -> list[StoredEvent]:
    """Read a log from its beginning to its head, and check that nothing is missing on the way."""
    events: list[StoredEvent] = []
    upto, head = 0, await log.head()
    while upto < head:
        page = await log.read(after=upto, limit=limit)
        if page.upto <= upto:
            found.add(8, "Reading does not get on", after=upto, upto=page.upto, head=head)
            break
        events += page.events
        upto = page.upto
    return events


def check_positions(events: Sequence[StoredEvent], found: Found) -> None:
    """Point 4, of the log alone: 1, 2, 3 …"""
    before = 0
    for event in events:
        if event.position != before + 1:
            text = "A hole in the positions" if event.position > before else "Out of order"
            found.add(4, text, after=before, position=event.position)
        before = event.position
