"""Appends as the checker sees them: what each asked for, was answered, and left in the log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from msgspec import Struct

from diptych.log import Append
from diptych.testing.checker.violations import Found, Stored
from diptych.testing.history import Answered, AppendRequest, Call, Outcomes, digest_of


class Attempt(Struct, eq=False):
    """One append of a batch.

    ``positions`` are where its events are. ``new``: it took effect, then and there (not by an
    earlier use of its key). ``place``: the last position before its effect.
    """

    call: Call
    index: int
    append: Append
    answer: Answered | None
    positions: list[int]
    batch: list[Attempt]
    new: bool = False
    place: int | None = None

    @property
    def ok(self) -> bool:
        """Whether it was answered that it took place, now or earlier."""
        return self.answer is not None and not self.answer.refused

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of its events."""
        return tuple([event.id for event in self.append.events])

    @property
    def facts(self) -> dict[str, object]:
        """What to say of it in a violation."""
        facts: dict[str, object] = {"client": self.call.client, "call": self.call.id}
        if len(self.batch) > 1:
            facts["append"] = self.index
        if self.append.key is not None:
            facts["key"] = self.append.key
        return facts


def attempts_of(calls: Iterable[Call], stored: Stored) -> list[Attempt]:
    """Return the appends of all calls, in the order in which they began."""
    attempts: list[Attempt] = []
    for call in calls:
        if not isinstance(call.request, AppendRequest):
            continue
        answers: tuple[Answered | None, ...] = (None,) * len(call.request.batch)
        if isinstance(call.answer, Outcomes):
            answers = call.answer.outcomes
        batch: list[Attempt] = []
        for index, append in enumerate(call.request.batch):
            answer = answers[index] if index < len(answers) else None
            positions = [p for event in append.events for p in stored.by_id.get(event.id, ())]
            batch.append(Attempt(call, index, append, answer, positions, batch))
        attempts += batch
    return attempts


def check_storage(
    attempts: list[Attempt], stored: Stored, found: Found, *, foreign: set[str] | None
) -> None:
    """Points 1 to 4: what was appended is there as often as it may be, unchanged and in order.

    ``foreign`` are the ids of events that others have appended; None: there may be any.
    """
    owners: defaultdict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        for identity in attempt.ids:
            owners[identity].append(attempt)
    for attempt in attempts:
        _check_attempt(attempt, owners, stored, found)
    for attempt in attempts:
        if attempt.call.outcome == "unknown" and not attempt.index:
            _check_torn_batch(attempt.batch, found)
    for event in stored.events:
        by = owners.get(event.id)
        if by is None:
            if foreign is not None and event.id not in foreign:
                at, its_id = event.position, event.id
                found.add(3, "An event that nobody appended", position=at, id=its_id)
        elif all(a.call.outcome == "failed" or (a.answer and a.answer.refused) for a in by):
            found.add(3, "A failed append is stored", position=event.position, **by[0].facts)


def _check_attempt(
    attempt: Attempt, owners: dict[str, list[Attempt]], stored: Stored, found: Found
) -> None:
    answer, events, positions = attempt.answer, attempt.append.events, attempt.positions
    if attempt.ok and answer is not None and not answer.replayed:
        attempt.new = True
        attempt.place = answer.first - 1 if events else answer.last
        if len(events) != (answer.last - answer.first + 1 if answer.first else 0):
            found.add(4, "The answer counts other events", **attempt.facts, answer=answer)
        wanted = list(range(answer.first, answer.first + len(events)))
        if positions == wanted:
            _check_bytes(attempt, 1, stored, found)
        elif sorted(positions) == wanted:
            found.add(4, "Events in another order", **attempt.facts, positions=positions)
            _check_bytes(attempt, 1, stored, found)
        elif len(positions) > len(events):
            found.add(1, "Acknowledged, and stored twice", **attempt.facts, positions=positions)
        elif len(positions) < len(events):
            found.add(
                1, "Acknowledged, and lost", **attempt.facts, answer=answer, positions=positions
            )
        else:
            found.add(
                4, "Stored elsewhere than answered", **attempt.facts, answer=answer, at=positions
            )
        if answer.rejection != attempt.append.rejection:
            found.add(1, "Another rejection", **attempt.facts, answer=answer)
        if not events and answer.last > stored.head:
            found.add(1, "Its position is beyond the head", **attempt.facts, answer=answer)
    elif attempt.answer is None and attempt.call.outcome == "unknown" and positions:
        if len(positions) > len(events):
            found.add(2, "Unknown, and stored twice", **attempt.facts, positions=positions)
        elif len(positions) < len(events):
            found.add(2, "Unknown, and stored in part", **attempt.facts, positions=positions)
        else:
            if positions != list(range(positions[0], positions[0] + len(events))):
                found.add(4, "An append is scattered", **attempt.facts, positions=positions)
            _check_bytes(attempt, 2, stored, found)
            if _is_the_one(attempt, owners[events[0].id]):
                attempt.new = True
                attempt.place = positions[0] - 1


def _is_the_one(attempt: Attempt, owners: list[Attempt]) -> bool:
    """Whether an unknown append stored its events: it may have been made again with the same."""
    sure = [one for one in owners if one.ok and one.answer and not one.answer.replayed]
    unknown = [one for one in owners if one.answer is None and one.call.outcome == "unknown"]
    return not sure and unknown[0] is attempt


def _check_bytes(attempt: Attempt, point: int, stored: Stored, found: Found) -> None:
    for event, position in zip(attempt.append.events, attempt.positions, strict=False):
        if digest_of(event) != digest_of(stored.by_position[position]):
            found.add(point, "An event was changed", **attempt.facts, position=position)


def _check_torn_batch(batch: list[Attempt], found: Found) -> None:
    """A batch is one transaction: what nothing can refuse is stored together with the rest."""
    sure = [a for a in batch if a.append.events and not a.append.conditions and not a.append.key]
    if any(a.positions for a in batch):
        for attempt in sure:
            if not attempt.positions:
                found.add(2, "Unknown, and a part of the batch is stored", **attempt.facts)


def check_batches(attempts: list[Attempt], found: Found) -> None:
    """Point 4, of a batch: its appends lie in the log in their order."""
    for attempt in attempts:
        if attempt.index:
            continue
        before = 0
        for one in attempt.batch:
            if one.new and one.positions:
                if one.positions[0] <= before:
                    found.add(4, "A batch in another order", **one.facts, positions=one.positions)
                before = one.positions[-1]
