"""Who wins: answers the appends of a batch, by what is known of the log at its head.

Shared by the SQL adapters. The rules are those of ``logs/memory.py``; most conditions are answered
from memory (`Recent`), older ones by a question to the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct

from diptych.log import Append, Appended, Condition, Outcome, Refused, is_new
from diptych.sql.recent import Recent

Answers: TypeAlias = Mapping[str, tuple[bytes, Appended]]
"""Content and first answer of each key that was used."""

FirstStored: TypeAlias = Callable[[Condition], int]
"""The first position, up to ``recent.start``, that a condition is hurt by; 0 when none is."""


def older(batches: Iterable[Sequence[Append]], start: int) -> list[Condition]:
    """Return the conditions that reach back behind a position."""
    return [
        condition
        for batch in batches
        for append in batch
        for condition in append.conditions
        if condition.since is None and condition.after < start
    ]


class KeptKey(Struct, frozen=True, gc=False):
    """A key to be stored with its first answer."""

    key: str
    content: bytes
    first: int
    last: int
    rejection: bytes | None


class Judge:
    """Answers one transaction's appends in order; ``new`` and ``keys`` are what is to be stored.

    What it accepts is added to ``recent`` at once; `withdraw` takes that back.
    """

    def __init__(self, recent: Recent, answers: Answers, first_stored: FirstStored) -> None:
        self._recent = recent
        self._answers = dict(answers)
        self._first_stored = first_stored
        self.begun_at = recent.head
        self.new: list[Append] = []
        self.keys: list[KeptKey] = []

    def answer_all(self, batches: Sequence[Sequence[Append]]) -> list[list[Outcome]]:
        """Answer several batches, one after the other."""
        answered: list[list[Outcome]] = []
        for batch in batches:
            outcomes: list[Outcome] = []
            for append in batch:
                outcomes.append(self.answer(append, outcomes))
            answered.append(outcomes)
        return answered

    def answer(self, append: Append, earlier: Sequence[Outcome]) -> Outcome:
        """Answer one append: its key comes first, then its conditions, then its events."""
        if append.key is not None and append.key in self._answers:
            content, first_answer = self._answers[append.key]
            if content != append.content:
                return Refused("key-reused", position=first_answer.last)
            return first_answer
        for index, condition in enumerate(append.conditions):
            refused = self._check(condition, index, earlier)
            if refused is not None:
                return refused
        return self._accept(append)

    def withdraw(self) -> None:
        """Forget what was accepted: it is not stored."""
        if self.new:
            self._recent.rewind(self.begun_at)

    def _check(
        self, condition: Condition, index: int, earlier: Sequence[Outcome]
    ) -> Refused | None:
        after = condition.after
        known: set[int] | tuple[int, ...] = condition.known
        if condition.since is not None:
            base = earlier[condition.since]
            if not is_new(base):
                return Refused("unfounded", condition=index)
            after = base.last
        if condition.seen:
            known = set(known)
            for seen in condition.seen:
                base = earlier[seen]
                if not is_new(base):
                    return Refused("unfounded", condition=index)
                if base.first:
                    known.update(range(base.first, base.last + 1))
        elif len(known) > 8:
            known = set(known)
        found = 0
        if after < self._recent.start:
            found = self._first_stored(condition)
            after = self._recent.start
        found = found or self._recent.first(condition.query, after, known)
        return Refused("conflict", found, condition=index) if found else None

    def _accept(self, append: Append) -> Appended:
        recent = self._recent
        first = 0
        if append.events:
            self.new.append(append)
            first = recent.head + 1
            for position, event in enumerate(append.events, first):
                recent.add(position, event.type, event.tags)
        last, rejection = recent.head, append.rejection
        if append.key is not None:
            replay = Appended(first, last, replayed=True, rejection=rejection)
            self._answers[append.key] = (append.content, replay)
            self.keys.append(KeptKey(append.key, append.content, first, last, rejection))
        return Appended(first, last, rejection=rejection)
