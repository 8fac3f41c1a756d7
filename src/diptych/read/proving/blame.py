"""Which events explain a difference between two digests: the arithmetic under ``verify``.

Digests are sums, so a difference is the sum of what was applied too often minus what was left out.
Hashes have 128 bits: an explanation that fits by chance is out of the question. Searched for are,
in this order: one run of events, two runs, three and four single events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final, TypeAlias

from msgspec import Struct

from diptych.read.proving.proof import MODULUS

MOST_UNITS: Final = 1100
"""Beyond this the searches over pairs take too long; a block has at most 1024 events."""

Signed: TypeAlias = tuple[int, range]
"""+1: these units (by index) are once too often in the sum; -1: they are missing from it."""


class Unit(Struct, frozen=True):
    """Something that is applied whole or not at all: an event, or an event's effect on a key."""

    position: int
    digest: int
    count: int = 1


def explain(units: Sequence[Unit], digest: int, count: int) -> list[Signed] | None:
    """Return which units explain a difference (actual minus expected); None: none that we find."""
    if digest == 0 and count == 0:
        return []
    for search in (_one_run, _two_runs, _three_or_four):
        if search is not _one_run and len(units) > MOST_UNITS:
            return None
        for found in search(units, digest):
            if _count(units, found) == count:
                return found
    return None


def _count(units: Sequence[Unit], found: Sequence[Signed]) -> int:
    return sum(sign * units[i].count for sign, run in found for i in run)


def _prefixes(units: Sequence[Unit]) -> list[int]:
    return [0, *accumulate((u.digest for u in units), lambda a, b: (a + b) % MODULUS)]


def _one_run(units: Sequence[Unit], digest: int) -> Iterator[list[Signed]]:
    prefixes = _prefixes(units)
    at = {prefix: i for i, prefix in enumerate(prefixes)}
    for sign in (-1, 1):
        for end, prefix in enumerate(prefixes):
            start = at.get((prefix - sign * digest) % MODULUS)
            if start is not None and start < end:
                yield [(sign, range(start, end))]


def _two_runs(units: Sequence[Unit], digest: int) -> Iterator[list[Signed]]:
    prefixes = _prefixes(units)
    size = len(prefixes)
    runs: dict[int, int] = {}
    for start in range(size):
        base = prefixes[start]
        for end in range(start + 1, size):
            runs[(prefixes[end] - base) % MODULUS] = start * size + end
    for total, place in runs.items():
        for first in (-1, 1):
            rest = (digest - first * total) % MODULUS
            for second in (-1, 1):
                other = runs.get(rest if second == 1 else MODULUS - rest)
                if other is None:
                    continue
                one, two = range(*divmod(place, size)), range(*divmod(other, size))
                apart = one.stop <= two.start or two.stop <= one.start
                if apart or (one == two and first == second == 1):
                    yield [(first, one), (second, two)]


def _three_or_four(units: Sequence[Unit], digest: int) -> Iterator[list[Signed]]:
    digests = [u.digest for u in units]
    singles = {d: i for i, d in enumerate(digests)}
    pairs: dict[int, tuple[int, int]] = {}
    for i, a in enumerate(digests):
        for j in range(i):
            pairs[(a + digests[j]) % MODULUS] = (j, i)
    for total, (i, j) in pairs.items():
        for sign in (-1, 1):
            rest = (digest - sign * total) % MODULUS
            for third in (-1, 1):
                k = singles.get(rest if third == 1 else MODULUS - rest)
                if k is not None and k not in (i, j):
                    yield _single((sign, i), (sign, j), (third, k))
            two = pairs.get(rest if sign == 1 else MODULUS - rest)
            if two is not None and not {i, j} & {*two}:
                yield _single((sign, i), (sign, j), (sign, two[0]), (sign, two[1]))
            two = pairs.get(MODULUS - rest if sign == 1 else rest)
            if two is not None and not {i, j} & {*two}:
                yield _single((sign, i), (sign, j), (-sign, two[0]), (-sign, two[1]))


def _single(*signed: tuple[int, int]) -> list[Signed]:
    return [(sign, range(index, index + 1)) for sign, index in signed]
