"""A command on its way: what it is, what its decision read, what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from diptych.log import Append, Appended, Condition, NewEvent, Token
from diptych.messages import Command, Metadata
from diptych.write.definitions import Decision

if TYPE_CHECKING:
    import asyncio

    from opentelemetry.trace import Span

    from diptych.errors import Rejected
    from diptych.write.cache import Slot


class Receipt(Struct, frozen=True, gc=False):
    """The answer to a command: where its events lie in the log.

    ``first`` and ``last`` are their positions; a command that changed nothing has ``first`` 0 and
    ``last`` the head when it was decided. ``replayed``: its key had been used, this is the first
    answer; ``command_id`` is then that of this attempt, which no event bears.
    """

    log: str
    command_id: str
    first: int
    last: int
    replayed: bool = False

    @property
    def token(self) -> Token:
        """What a query needs to see this command's effect."""
        return Token(self.log, self.last)


class Read(Struct, frozen=True, eq=False, gc=False):
    """What a decision saw of one slot: everything up to ``after``, and these entries."""

    slot: Slot
    after: int
    since: Entry | None
    seen: tuple[Entry, ...]


class Entry(Struct, eq=False, gc=False):
    """One command, from its arrival to its answer.

    ``states`` has a slot for each model asked for (None: an empty tag), ``slots`` the same, each
    once. ``touched`` are the slots that its events change. ``began`` is when it arrived, by
    ``time.perf_counter()``; ``span`` is there where somebody traces.
    """

    command: Command
    decision: Decision
    metadata: Metadata
    key: str | None
    content: bytes
    answer: asyncio.Future[Receipt]
    began: float
    span: Span | None
    states: tuple[Slot | None, ...]
    slots: tuple[Slot, ...]
    attempts: int = 0
    events: tuple[NewEvent, ...] = ()
    event_ids: tuple[str, ...] = ()
    rejection: Rejected | None = None
    reads: tuple[Read, ...] = ()
    touched: tuple[Slot, ...] = ()
    outcome: Appended | None = None
    index: int = -1

    def forget(self) -> None:
        """Forget what was decided: it is to be decided again."""
        self.events, self.event_ids, self.rejection = (), (), None
        self.reads, self.touched, self.outcome, self.index = (), (), None, -1

    def release(self) -> None:
        """Let go of what is not needed once the answer is known: entries would form a chain."""
        self.reads, self.touched, self.slots, self.states, self.events = (), (), (), (), ()

    def remember(self) -> None:
        """Keep what the decision is about to see of each slot."""
        reads: list[Read] = []
        for slot in self.slots:
            if not slot.tail:
                reads.append(Read(slot, slot.base, None, ()))
                continue
            since: Entry | None = None
            seen: list[Entry] = []
            for link in reversed(slot.tail):
                if link.checked:
                    since = link.entry
                    break
                seen.append(link.entry)
            reads.append(Read(slot, slot.base, since, tuple(seen)))
        self.reads = tuple(reads)

    def builds_on(self, lost: set[Entry]) -> bool:
        """Whether the decision saw something of an entry that was lost."""
        return any(read.since in lost or not lost.isdisjoint(read.seen) for read in self.reads)

    def append(self, rejection: bytes | None) -> Append:
        """Return what to ask of the log. What was seen is committed or earlier in the batch."""
        conditions: list[Condition] = []
        for read in self.reads:
            after, since = read.after, None
            known: list[int] = []
            seen: list[int] = []
            if read.since is not None:
                if read.since.outcome is not None:
                    after = max(after, read.since.outcome.last)
                else:
                    since = read.since.index
            for entry in read.seen:
                if entry.outcome is not None:
                    known.extend(range(entry.outcome.first, entry.outcome.last + 1))
                else:
                    seen.append(entry.index)
            conditions.append(Condition(read.slot.query, after, tuple(known), since, tuple(seen)))
        return Append(self.events, tuple(conditions), self.key, self.content, rejection)
