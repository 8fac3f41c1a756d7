"""The newest events of a log by tag and type, in memory, so that most conditions need no SQL."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

from diptych.log import EventQuery, QueryItem

Entry: TypeAlias = tuple[int, str, tuple[str, ...]]
"""Position, type and tags of an event."""


class Recent:
    """Every event after position ``start``, up to ``head``: at least ``capacity`` of the newest.

    They lie in two halves; when the younger is full, ``trim`` forgets the elder. Nothing is
    forgotten on the way: an append's transaction asks for events that SQL cannot find yet.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.forget(0)

    def forget(self, head: int) -> None:
        """Forget all; what is known begins after this position."""
        self.start = self.head = head
        self._elder = _Half(head)
        self._younger = _Half(head)

    def trim(self) -> None:
        """Forget the oldest, where there are enough younger ones. All of them must be stored."""
        if len(self._younger.entries) >= self.capacity:
            self._elder, self._younger = self._younger, _Half(self.head)
            self.start = self._elder.start

    def add(self, position: int, type_name: str, tags: tuple[str, ...]) -> None:
        """Take in the event after the head."""
        self._younger.add((position, type_name, tags))
        self.head = position

    def rewind(self, head: int) -> None:
        """Take back what was added after a position, since the last `trim`."""
        self._younger.rewind(head)
        self.head = head

    def first(self, query: EventQuery, after: int, known: Collection[int]) -> int:
        """Return the first matching position after one (at least ``start``); 0 when none is."""
        items = query.items or (QueryItem(),)
        if after < self._younger.start:
            found = self._elder.first(items, after, known)
            if found:
                return found
        return self._younger.first(items, after, known)


class _Half:
    def __init__(self, start: int) -> None:
        self.start = start
        self.entries: list[Entry] = []
        self._by_tag: dict[str, list[Entry]] = {}
        self._by_type: dict[str, list[Entry]] = {}

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        _, type_name, tags = entry
        self._by_type.setdefault(type_name, []).append(entry)
        for tag in tags:
            listed = self._by_tag.get(tag)
            if listed is None:
                self._by_tag[tag] = [entry]
            else:
                listed.append(entry)

    def rewind(self, head: int) -> None:
        while self.entries and self.entries[-1][0] > head:
            _, type_name, tags = self.entries.pop()
            self._by_type[type_name].pop()
            for tag in tags:
                self._by_tag[tag].pop()

    def first(self, items: tuple[QueryItem, ...], after: int, known: Collection[int]) -> int:
        found = 0
        for item in items:
            candidates = self._candidates(item)
            if not candidates or candidates[-1][0] <= after:
                continue  # nearly always
            for position, type_name, tags in reversed(candidates):
                if position <= after:
                    break
                if position not in known and item.matches(type_name, tags):
                    found = min(found or position, position)
        return found

    def _candidates(self, item: QueryItem) -> list[Entry]:
        if len(item.tags) == 1:
            (tag,) = item.tags
            return self._by_tag.get(tag, _NONE)
        if item.tags:
            return min((self._by_tag.get(tag, _NONE) for tag in item.tags), key=len)
        if len(item.types) == 1:
            return self._by_type.get(next(iter(item.types)), _NONE)
        return self.entries


_NONE: list[Entry] = []
