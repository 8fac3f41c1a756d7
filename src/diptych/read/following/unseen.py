"""Which keys have surely no row yet: a Bloom filter of those that may have one.

B. H. Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970. What begins with an
empty table would otherwise look there for each key once, only to find nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

BITS: Final = 1 << 25
"""4 MiB: of a million keys it takes 3 in a thousand for seen that are not, of ten million 20 %."""

_MASK: Final = BITS - 1


class Unseen:
    """Knows the keys that were asked for. It never takes one that was for one that was not."""

    def __init__(self) -> None:
        self._bits = bytearray(BITS >> 3)

    def note(self, keys: Iterable[Any]) -> list[Any]:
        """Return those of the keys that may have been noted before; now all of them are."""
        bits = self._bits
        found: list[Any] = []
        for key in keys:
            number = hash(key)  # equal keys have equal hashes, whatever their types
            one, other = number & _MASK, (number >> 25) & _MASK
            first, second = 1 << (one & 7), 1 << (other & 7)
            if bits[one >> 3] & first and bits[other >> 3] & second:
                found.append(key)
            else:
                bits[one >> 3] |= first
                bits[other >> 3] |= second
        return found
