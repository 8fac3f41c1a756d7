"""Points 5 to 7: the order of things, conditions that held, refusals that have a cause."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from diptych.log import Condition
from diptych.testing.checker.attempts import Attempt
from diptych.testing.checker.violations import Found, Stored
from diptych.testing.history import Call, Done, Head, Seen

_Resolved: TypeAlias = tuple[int, set[int]] | Literal["unfounded", "unknown"]
"""What ``after`` and ``known`` come to; or that the condition has no ground, or who knows."""


def check_conditions(attempts: Iterable[Attempt], stored: Stored, found: Found) -> None:
    """Point 6 of what was appended, point 7 of what was refused."""
    for attempt in attempts:
        if attempt.new and attempt.place is not None:
            for index, condition in enumerate(attempt.append.conditions):
                resolved = _resolve(attempt, condition)
                if resolved == "unfounded":
                    text = "It builds on an append that did not take place"
                    found.add(6, text, **attempt.facts, condition=index)
                elif not isinstance(resolved, str):
                    after, known = resolved
                    between = stored.first(condition.query, after, attempt.place, known)
                    if between:
                        found.add(
                            6,
                            "A condition did not hold",
                            **attempt.facts,
                            condition=index,
                            after=after,
                            forbidden=between,
                            at=attempt.place + 1,
                        )
        elif attempt.answer is not None and attempt.answer.refused == "conflict":
            _check_conflict(attempt, stored, found)
        elif attempt.answer is not None and attempt.answer.refused == "unfounded":
            _check_unfounded(attempt, found)


def _resolve(attempt: Attempt, condition: Condition) -> _Resolved:
    after, known = condition.after, set(condition.known)
    for earlier in (condition.since, *condition.seen):
        if earlier is None:
            continue
        base = attempt.batch[earlier]
        if not base.new:
            return "unfounded" if base.answer is not None or base.append.events else "unknown"
        if earlier == condition.since:
            after = base.positions[-1] if base.positions else base.place or 0
        if earlier in condition.seen:
            known.update(base.positions)
    return after, known


def _check_conflict(attempt: Attempt, stored: Stored, found: Found) -> None:
    answer = attempt.answer
    assert answer is not None
    conditions = attempt.append.conditions
    if answer.condition >= len(conditions):
        found.add(7, "A conflict with no condition", **attempt.facts, answer=answer)
        return
    for index in range(answer.condition + 1):
        condition = conditions[index]
        resolved = _resolve(attempt, condition)
        if isinstance(resolved, str):
            if resolved == "unfounded":
                found.add(7, "A conflict where it has no ground", **attempt.facts, condition=index)
            return
        after, known = resolved
        first = stored.first(condition.query, after, answer.position, known)
        if index < answer.condition and first:
            found.add(7, "An earlier condition failed", **attempt.facts, condition=index, at=first)
        if index == answer.condition and first != answer.position:
            event = stored.by_position.get(answer.position)
            found.add(
                7,
                "A conflict without a cause" if not first else "Not the first that conflicts",
                **attempt.facts,
                condition=index,
                after=after,
                named=answer.position,
                event="none" if event is None else f"{event.type} {' '.join(event.tags)}",
                first=first or "none",
            )


def _check_unfounded(attempt: Attempt, found: Found) -> None:
    for condition in attempt.append.conditions:
        for earlier in (condition.since, *condition.seen):
            if earlier is not None and not attempt.batch[earlier].new:
                return
    found.add(7, "Unfounded, where all it builds on took place", **attempt.facts)


def check_order(
    calls: Iterable[Call], attempts: Iterable[Attempt], placed: dict[str, int], found: Found
) -> None:
    """Point 5: in the order of time, everything lies after what had been known before it began.

    ``placed`` are the last positions before the effects of commands, by call.
    """
    # (time, 1, position known to exist) and (time, 0, place, …): what begins at the very moment
    # at which something else ends is not after it.
    steps: list[tuple[int, int, int, str, dict[str, object]]] = []
    for call in calls:
        known = _known_after(call)
        if known and call.end is not None:
            steps.append((call.end, 1, known, "", {}))
        if isinstance(call.answer, Head):
            facts: dict[str, object] = {"client": call.client, "call": call.id}
            steps.append((call.start, 0, call.answer.position, "A head that is too low", facts))
        if call.id in placed:
            facts = {"client": call.client, "call": call.id}
            steps.append((call.start, 0, placed[call.id], "A command lies too early", facts))
    for attempt in attempts:
        call = attempt.call
        if attempt.new and attempt.place is not None:
            steps.append((call.start, 0, attempt.place, "An append lies too early", attempt.facts))
            end = attempt.positions[-1] if attempt.positions else attempt.place
            if call.end is not None and call.outcome == "ok":
                steps.append((call.end, 1, end, "", {}))
        if (
            attempt.answer is not None
            and attempt.answer.refused == "conflict"
            and call.end is not None
        ):
            steps.append((call.end, 1, attempt.answer.position, "", {}))
    highest = 0
    for _, kind, position, text, facts in sorted(steps, key=lambda step: step[:2]):
        if kind:
            highest = max(highest, position)
        elif position < highest:
            found.add(5, text, **facts, after=position, known_before=highest)


def _known_after(call: Call) -> int:
    """Return the highest position that a call's answer shows to exist."""
    match call.answer:
        case Head():
            return call.answer.position
        case Seen() if call.operation == "read":
            return call.answer.events[-1].position if call.answer.events else 0
        case Done():
            return call.answer.last
        case _:
            return 0
