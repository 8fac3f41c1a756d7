"""States of decision models, kept between commands: what is committed, and what builds on it.

A slot is one instance of a model (one order, one aircraft). Its ``base`` is the position up to
which every matching event is known and folded into ``base_state``; its ``tail`` holds what this
process has decided since, committed or not yet, each with the state after it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from diptych.log import EventQuery, StoredEvent
from diptych.messages import Event
from diptych.write.definitions import Model, Tags

if TYPE_CHECKING:
    from diptych.write.entry import Entry

MAX_TAIL = 64
"""Own decisions beyond the base that a slot keeps; with more it is given up, to be read anew."""


# Tens of thousands of these live for long and form no cycles once a command is answered (see
# Entry.release), so the cycle collector need not look at them (gc=False).


class Link(Struct, eq=False, gc=False):
    """One decision's effect on a slot. ``checked``: its append condition covers the slot."""

    entry: Entry
    events: tuple[Event, ...]
    state: Any
    checked: bool


class Slot(Struct, eq=False, gc=False):
    """One instance of a decision model. ``queue``: the commands that wait for it, in order.

    ``guessed``: it counts as loaded, as it is most likely new, and no append has proved that yet.
    """

    key: tuple[str, Tags]
    model: Model
    query: EventQuery
    base_state: Any
    base: int = 0
    tail: list[Link] = []
    queue: deque[Entry] | None = None
    loaded: bool = False
    loading: bool = False
    guessed: bool = False

    @property
    def untouched(self) -> bool:
        """Whether nothing has been found or decided here yet."""
        return not (self.base or self.tail or self.loaded or self.loading)

    @property
    def state(self) -> Any:
        """The state with everything that has been decided here, committed or not."""
        return self.tail[-1].state if self.tail else self.base_state

    @property
    def idle(self) -> bool:
        """Whether nothing waits for this slot and nothing of it is undecided."""
        return not (
            self.queue or self.loading or any(link.entry.outcome is None for link in self.tail)
        )

    def enqueue(self, entry: Entry, *, first: bool = False) -> None:
        """Have a command wait; ``first`` gives it its old place back."""
        if self.queue is None:
            self.queue = deque()
        if first:
            self.queue.appendleft(entry)
        else:
            self.queue.append(entry)

    def dequeue(self) -> None:
        """Let the first command go on."""
        assert self.queue is not None
        self.queue.popleft()
        if not self.queue:
            self.queue = None

    def settle(self, entry: Entry, last: int) -> None:
        """Take note that an entry was appended: the head was then at ``last``."""
        for index, link in enumerate(self.tail):  # it is the first, or near it
            if link.entry is entry:
                if link.checked:
                    # Its condition has proved that nothing else happened up to it.
                    if last > self.base:  # else it was read meanwhile
                        self.base, self.base_state, self.guessed = last, link.state, False
                    del self.tail[: index + 1]
                return

    def drop(self, entry: Entry) -> None:
        """Take an entry's effect out again: it was not committed."""
        kept = [link for link in self.tail if link.entry is not entry]
        if len(kept) != len(self.tail):
            self.tail = kept
            if self.loaded:
                self.refold()

    def refold(self) -> None:
        """Compute the states of the tail anew, from the base."""
        state, evolve = self.base_state, self.model.evolve
        for link in self.tail:
            for event in link.events:
                state = evolve(state, event)
            link.state = state

    def advance(self, events: Iterable[tuple[StoredEvent, Event]], upto: int) -> None:
        """Fold events that were read from the log after the base; the base is then ``upto``."""
        state, evolve = self.base_state, self.model.evolve
        ids: set[str] = set()
        for stored, event in events:
            # A command in flight may have moved the base while the log was read.
            if stored.position > self.base:
                state = evolve(state, event)
                ids.add(stored.id)
        self.base, self.base_state, self.guessed = max(self.base, upto), state, False
        # What was read includes those of our own events that were committed by then.
        self.tail = [
            link
            for link in self.tail
            if ids.isdisjoint(link.entry.event_ids)
            and (link.entry.outcome is None or link.entry.outcome.last > self.base)
        ]
        self.refold()
        self.loaded = True


class Cache:
    """A bounded number of slots, the least recently used given up first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._slots: OrderedDict[tuple[str, Tags], Slot] = OrderedDict()

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, model: Model, tags: Tags) -> Slot | None:
        """Return the slot of an instance if it is here."""
        return self._slots.get((model.name, tags))

    def take(self, model: Model, tags: Tags) -> Slot:
        """Return the slot of an instance, made if need be."""
        key = (model.name, tags)
        slot = self._slots.get(key)
        if slot is not None:
            self._slots.move_to_end(key)
            return slot
        slot = self._slots[key] = Slot(key, model, model.query(tags), model.initial)
        if len(self._slots) > self.limit:
            self._shrink()
        return slot

    def _shrink(self) -> None:
        for _ in range(8):
            key, slot = next(iter(self._slots.items()))
            if slot.idle:
                del self._slots[key]
                if len(self._slots) <= self.limit:
                    return
            else:
                self._slots.move_to_end(key)

    def forget(self, slot: Slot) -> None:
        """Give a slot up."""
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]
