"""Idempotency keys: one effect, one first answer, for ever."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from diptych.testing.checker.attempts import Attempt
from diptych.testing.checker.violations import Found
from diptych.testing.history import Answered, Call, Recalled, RecallRequest


def check_keys(
    calls: Iterable[Call], attempts: Sequence[Attempt], found: Found, *, alone: bool
) -> None:
    """Points 1, 2 and 7, of keys: at most one append takes effect, and all others are told so.

    ``alone``: nothing outside of the history can have used a key.
    """
    by_key: defaultdict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        if attempt.append.key is not None:
            by_key[attempt.append.key].append(attempt)
    firsts = {key: _check_key(key, group, found, alone=alone) for key, group in by_key.items()}
    for call in calls:
        if isinstance(call.request, RecallRequest) and isinstance(call.answer, Recalled):
            _check_recall(call, call.request.keys, call.answer.answers, firsts, by_key, found)


def _check_key(key: str, group: list[Attempt], found: Found, *, alone: bool) -> Answered | None:
    """Check the appends of one key; return its first answer, as far as it is known."""
    effects: dict[object, Attempt] = {}
    for attempt in group:
        if attempt.new or attempt.positions:
            # One append that was made twice with the same events has one effect.
            effects.setdefault(attempt.ids or id(attempt), attempt)
    if len(effects) > 1:
        point = 1 if all(attempt.ok for attempt in effects.values()) else 2
        where = [attempt.positions or attempt.place for attempt in effects.values()]
        found.add(point, "A key took effect twice", key=key, at=where)
        return None
    effect = next(iter(effects.values()), None)
    first = None if effect is None else _first_answer(effect)
    for attempt in group:
        answer = attempt.answer
        if answer is None:
            continue
        facts = attempt.facts
        if attempt.ok and answer.replayed:
            first = first or answer  # the first use may be one whose outcome is unknown
            if _plain(answer) != _plain(first):
                found.add(1, "Not the first answer to the key", **facts, got=answer, first=first)
            if effect is not None and effect.append.content != attempt.append.content:
                found.add(1, "A key that answers other content", **facts, got=answer)
            if effect is None and alone and not _may_be_unseen(group):
                found.add(1, "Replayed, and never done", **facts, got=answer)
        elif answer.refused == "key-reused":
            if effect is not None and effect.append.content == attempt.append.content:
                found.add(7, "The key was used with the same content", **facts)
            elif first is not None and answer.position != first.last:
                found.add(7, "Not where the key was used", **facts, got=answer, first=first)
            elif effect is None and alone and not _may_be_unseen(group):
                found.add(7, "The key was not used", **facts)
        elif answer.refused and effect is not None and _ended_before(effect, attempt):
            found.add(7, "Refused, where the key had its answer", **facts, got=answer, first=first)
    return first


def _first_answer(effect: Attempt) -> Answered | None:
    if effect.ok:
        return effect.answer
    if effect.positions:
        return Answered(effect.positions[0], effect.positions[-1])
    return None


def _plain(answer: Answered) -> tuple[int, int, bytes | None]:
    return answer.first, answer.last, answer.rejection


def _may_be_unseen(group: Iterable[Attempt]) -> bool:
    """Whether an append without events may have used the key, and was not answered so.

    Its outcome is unknown; or the connection was lost, and its log has sent it again, and found
    its own answer.
    """
    return any(
        not a.append.events
        and (a.call.outcome == "unknown" if a.answer is None else a.ok and a.answer.replayed)
        for a in group
    )


def _ended_before(one: Attempt, other: Attempt) -> bool:
    return one.ok and one.call.end is not None and one.call.end < other.call.start


def _check_recall(
    call: Call,
    keys: Sequence[str],
    answers: dict[str, Answered],
    firsts: dict[str, Answered | None],
    by_key: dict[str, list[Attempt]],
    found: Found,
) -> None:
    facts = {"client": call.client, "call": call.id}
    for key in keys:
        first, got = firsts.get(key), answers.get(key)
        if got is not None and first is not None and _plain(got) != _plain(first):
            found.add(1, "Recalls another answer", **facts, key=key, got=got, first=first)
        if got is None:
            for attempt in by_key.get(key, ()):
                ended = attempt.call.end
                if attempt.ok and ended is not None and ended < call.start:
                    found.add(1, "A key is forgotten", **facts, key=key)
                    break
