"""All orders in which sessions can take their steps, by number."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial, prod


def how_many(counts: Sequence[int]) -> int:
    """Return how many orders there are in which each session takes so many steps."""
    return factorial(sum(counts)) // prod(factorial(count) for count in counts)


def order(counts: Sequence[int], number: int) -> tuple[int, ...]:
    """Return the order of a number (0 …), as the sessions' indexes; all are different."""
    left = list(counts)
    found: list[int] = []
    while any(left):
        for session, count in enumerate(left):
            if not count:
                continue
            left[session] -= 1
            those = how_many(left)  # that go on with this session
            if number < those:
                found.append(session)
                break
            number -= those
            left[session] += 1
    return tuple(found)
